"""What lies outside the files, for each provider, over a stand-in of its client."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_provider import CLIENTS, ORIGIN, RUN
from harness import ROOT, copy, git

pytestmark = pytest.mark.heavy  # each asks a client some hundred times
GIVEN = {
    "MLFLOW_TRACKING_URI": "http://registry.example",
    "JOURNAL_URL": "postgresql://u:s3cret@h/d",
    "EVENTS_WEBHOOK": "https://hooks.example/s3cret",
    "AWS_SECRET_ACCESS_KEY": "s3cret/of/a/store",
    "MODEL_SIGNING_KEY": "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n",
    "MODEL_TRUSTED_KEY": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
}


def test_setup_makes_once_what_check_asks_for(provider):
    code, said = provider("ci", "check")
    assert code == 1
    for promise in ("MLFLOW_TRACKING_URI", "a person approves production", "pipeline cycle"):
        assert f"not held  {promise}" in said, said
    assert "hint      JOURNAL_URL" in said
    assert "hint      UPDATE_TOKEN" in said
    assert "hint      DEPLOY_PRODUCTION" in said
    for name in ("EVENTS", "AWS", "MODEL", "DOTENV", "environment deploy-staging"):
        assert name not in said, "not everyone wants them"

    code, made = provider("ci", "setup", **GIVEN)
    assert code == 0, made
    assert "made     JOURNAL_URL" in made
    assert "missing  UPDATE_TOKEN" in made
    code, again = provider("ci", "setup", **GIVEN)
    assert (code, "made " in again) == (0, False), again
    code, said = provider("ci", "check")
    assert (code, "not held" in said) == (0, False), said
    assert "ok        a person approves production" in said

    state = provider.client()
    assert state["values"]["MLFLOW_TRACKING_URI"]["value"] == GIVEN["MLFLOW_TRACKING_URI"]
    for name in ("JOURNAL_URL", "EVENTS_WEBHOOK", "AWS_SECRET_ACCESS_KEY"):
        assert state["values"][name] == {"secret": True, "value": GIVEN[name]}
    for name, secret in (("MODEL_SIGNING_KEY", True), ("MODEL_TRUSTED_KEY", False)):
        kept = state["values"][name]
        assert (kept["secret"], base64.b64decode(kept["value"]).decode()) == (secret, GIVEN[name])
    assert "s3cret" not in made + again + said + json.dumps(state["log"])


def test_a_login_of_the_registry_is_enough(provider):
    provider("ci", "setup", **GIVEN, MLFLOW_TRACKING_TOKEN="a-token-of-the-registry")
    _, said = provider("ci", "check")
    assert "ok        MLFLOW_TRACKING_TOKEN" in said
    assert "MLFLOW_TRACKING_PASSWORD" not in said


def deploys(provider, **environment):
    """Deploys production where make notes the file that it was given."""
    (provider.tools / "make").write_text(
        '#!/bin/sh\necho "$* $(/bin/cat "$COMPOSE_ENV_FILES")" >>"$MADE"\n'
        '/bin/ls -ld "${COMPOSE_ENV_FILES%/*}" >>"$MADE"\n'
        'echo "$COMPOSE_ENV_FILES" >>"$MADE"\n'
    )
    return provider("ci", "deploy", "production", **environment)


def test_setup_keeps_what_a_deployment_needs(provider, tmp_path):
    (tmp_path / "dotenv").write_text("POSTGRES_PASSWORD=s3cret\nENV=production\n")
    told = {"DEPLOY_PRODUCTION": "machine", "DOTENV_PRODUCTION": str(tmp_path / "dotenv")}
    code, made = provider("ci", "setup", **GIVEN, **told)
    assert (code, "made     environment deploy-production" in made) == (0, True), made
    assert "deploy-staging" not in made
    kept = provider.client()["values"]["DOTENV_PRODUCTION"]
    assert kept["secret"]
    assert base64.b64decode(kept["value"]).decode() == (tmp_path / "dotenv").read_text()
    code, said = provider("ci", "check")
    assert (code, "ok        DOTENV_PRODUCTION" in said) == (0, True), said
    assert "hint      DEPLOY_STAGING" in said
    told = "error: MODEL_SIGNING_KEY: No such file or directory; say the path of a file\n"
    code, said = provider("ci", "setup", MODEL_SIGNING_KEY="s3cret")
    assert (code, said.endswith(told), "s3cret" in said) == (1, True, False), said
    code, said = provider("ci", "setup", DOTENV_STAGING="/nowhere")
    told = "error: DOTENV_STAGING=/nowhere: No such file or directory; say the path of a file\n"
    assert (code, said.endswith(told)) == (1, True), said

    code, said = deploys(provider, DEPLOY_PRODUCTION="machine", DOTENV_PRODUCTION=kept["value"])
    assert code == 0, said
    call, mode, path = provider.promoted().replace("\nENV", " ENV").splitlines()
    asked = "deploy ENV=production CONTEXT=machine YES=1 POSTGRES_PASSWORD=s3cret ENV=production"
    assert call == f"--no-print-directory {asked}"
    assert mode.startswith("drwx------"), "nobody else reads it"
    assert not Path(path).exists()


def test_nothing_is_deployed_where_nothing_says_where_or_with_what(provider):
    code, said = deploys(provider)
    told = "nothing is deployed to production; the variable DEPLOY_PRODUCTION is not set\n"
    assert (code, said) == (0, told)
    code, said = deploys(provider, DEPLOY_PRODUCTION="machine")
    assert (code, "set the secret DOTENV_PRODUCTION (its .env), or" in said) == (1, True), said
    code, said = deploys(provider, DEPLOY_PRODUCTION="machine", DOTENV_PRODUCTION="A=1\n")
    assert (code, "DOTENV_PRODUCTION is not base64; set it by" in said) == (1, True), said
    assert not provider.promoted()
    code, _ = deploys(provider, DEPLOY_PRODUCTION="machine", COMPOSE_ENV_FILES="/dev/null")
    assert (code, "deploy ENV=production" in provider.promoted()) == (0, True)


def test_a_rollback_asks_the_same_people(provider):
    provider("ci", "setup", **GIVEN)
    run = RUN[provider.ci]
    code, said = provider("ci", "rollback", "production", **run)
    assert (code, "nobody approved this run" in said, provider.promoted()) == (1, True, "")
    provider.client(approvals=["zoe"])
    for place, by in (("production", "zoe"), ("staging", "ann")):
        code, said = provider("ci", "rollback", place, **run)
        assert code == 0, said
        assert provider.promoted().endswith(f"rollback ENV={place} BY={by} CONTEXT= YES=1\n")


def test_a_branch_that_no_pipeline_runs_on_is_told(provider):
    provider("ci", "setup", **GIVEN)
    for branch in ("master", ""):
        provider.client(branch=branch)
        code, said = provider("ci", "check")
        assert code == (provider.ci != "gitlab"), said
        told = f"not held  branch main (the pipelines run there, and the default branch is {branch}"
        assert (told in said) == (provider.ci != "gitlab")
        assert ("git branch -m main" in said) == (provider.ci != "gitlab")
        _, made = provider("ci", "setup", **GIVEN)
        assert ("missing  branch main" in made) == (provider.ci != "gitlab")


def test_reviewers_are_those_that_were_named(provider):
    code, said = provider("ci", "setup", **GIVEN, REVIEWERS="ada, bo")
    assert code == 0, said
    (rule,) = provider.client()["environments"]["production"][-1:]
    assert len(rule.get("reviewers", []) or rule.get("settings", {}).get("approvers", [1, 1])) == 2
    assert provider.ci != "gitlab" or rule == {"user_id": 2}


def test_nothing_reaches_an_unprotected_environment(provider):
    provider.client(environments={"production": []})
    for gate in ("", "ci", "name"):
        code, said = provider(
            "ci", "promote", "production", **RUN[provider.ci], GATES_APPROVAL=gate
        )
        assert code == 1
        assert "make ci-setup" in said
        assert "approval = 'none'" in said
        assert said.count("\n") == 1
    assert not provider.promoted()


def test_who_approved_goes_into_the_history(provider):
    provider("ci", "setup", **GIVEN)
    code, said = provider("ci", "promote", "production", **RUN[provider.ci])
    assert (code, "nobody approved this run" in said, provider.promoted()) == (1, True, "")
    provider.client(approvals=["zoe", "o'neil@x.org"])
    code, said = provider("ci", "promote", "production", **RUN[provider.ci], VERSION="7")
    assert code == 0, said
    made = "promote ENV=production VERSION=7 BY=o_neil@x.org, zoe\n"
    assert provider.promoted().endswith(made), "nothing of a name reaches the shell"


def test_where_the_settings_say_so_nobody_is_asked(provider):
    (provider.project / "settings.toml").write_text('[gates]\napproval = "none"\n')
    code, said = provider("ci", "promote", "production", **RUN[provider.ci], VERSION="7")
    assert code == 0, said
    assert "ENV=production VERSION=7 BY=ann" in provider.promoted()
    assert provider.client()["log"] == []
    provider("ci", "setup", **GIVEN)
    code, said = provider("ci", "check")
    assert (code, "production asks nobody" in said) == (0, True), said
    checks = provider.client()["environments"]["production"]
    assert [check["type"]["name"] for check in checks] == ["ExclusiveLock"] * len(checks)


def test_a_manual_job_is_an_approval_on_gitlab_only(provider):
    provider("ci", "setup", **GIVEN)
    code, _ = provider("ci", "promote", "production", **RUN[provider.ci], CI_JOB_MANUAL="true")
    assert (code == 0) == (provider.ci == "gitlab")
    assert ("BY=ann" in provider.promoted()) == (provider.ci == "gitlab")


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (("promote", "production"), {}, "by hand: make promote"),
        (("promote", ""), {}, "make ci-promote ENV=production"),
        (("else",), {}, "use setup, check, or promote"),
        (("rollback", "production"), {}, "by hand: make rollback"),
        (("rollback", "test"), {}, "make ci-rollback ENV=production"),
        (("deploy", ""), {}, "make ci-deploy ENV=production"),
        (("check",), {"GATES_APPROVAL": "maybe"}, "gates.approval = 'maybe'; use ci, name or none"),
    ],
)
def test_bad_input_is_answered_in_a_line(provider, words, environment, told):
    code, said = provider("ci", *words, **environment)
    assert (code, said.count("\n")) == (1, said.count("\n")), said
    assert told in said
    assert said.splitlines()[-1].startswith("error: ")


def test_a_missing_or_unknown_client_is_one_line(provider):
    name = CLIENTS[provider.ci]
    asks = {"gh": "gh auth login", "glab": "HTTP 401", "az": "Please run 'az login'"}[name]
    provider.client(refuse=" ", says=f"To get started, run: {asks}")
    code, said = provider("ci", "check")
    assert (code, said.count("\n")) == (1, 1)
    assert f"error: {name} is not logged in; run `{name} " in said
    (provider.tools / name).unlink()
    code, said = provider("ci", "setup", **GIVEN)
    assert (code, said.count("\n")) == (1, 1)
    assert f"error: {name} is not installed; see https://" in said


def test_what_a_plan_lacks_is_told_and_the_rest_is_made(provider):
    refuse = {
        "github": "PUT repos/{owner}/{repo}/environments/production",
        "gitlab": "protected_environments --method",
        "azure": "pipelinesChecks --resource configurations --route-parameters project=project "
        "--http-method POST",
    }[provider.ci]
    provider.client(environments={"production": []}, refuse=refuse, says="your plan (HTTP 404)")
    code, said = provider("ci", "setup", **GIVEN)
    assert code == 1
    assert "failed   a person approves production" in said
    assert "your plan" in said
    assert provider.ci != "gitlab" or "protected environments need Premium" in said
    assert "made     pipeline update" in said


def test_a_workflow_that_was_not_pushed_is_told(provider):
    if provider.ci == "github":
        provider.client(known=["ci.yml"])
        code, said = provider("ci", "setup", **GIVEN)
        assert code == 1
        assert "push .github/workflows/cycle.yml to the default branch first" in said


def test_the_verb_hands_all_of_it_on(provider):
    """With the project's own Makefile, and a Python that runs the scripts and notes the rest."""
    (provider.tools / "make").unlink()
    for name in ("make", "cat", "git", "awk"):
        if not (provider.tools / name).exists():
            (provider.tools / name).symlink_to(str(shutil.which(name)))
    bin, log = provider.project / ".venv" / "bin", provider.project / "log"
    for path in (bin / "python", provider.project / "locks" / "dev.txt", bin.parent / ".ready"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'#!/bin/sh\ncase $1 in scripts/*) exec "{sys.executable}" -S "$@" ;; esac\n'
            f"echo \"$*\" >>'{log}'\n"
        )
    (bin / "python").chmod(0o755)
    provider("ci", "setup", **GIVEN)
    provider.client(approvals=["zoe", "o'neil@x.org"])
    state = {"STATE": str(provider.tools.parent / "state"), "PATH": str(provider.tools)}
    done = subprocess.run(
        ["make", "ci-promote", "ENV=production"], cwd=provider.project, text=True,
        env=state | RUN[provider.ci] | {"VERSION": "7"}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    asked = "promote --env production --version 7 --by o_neil@x.org, zoe\n"
    assert log.read_text().endswith(asked)


@pytest.mark.parametrize("provider", ["azure"], indirect=True)
@pytest.mark.parametrize(
    ("origin", "place"),
    [
        (ORIGIN, "https://dev.azure.com/org project it"),
        ("https://dev.azure.com/org/_git/it", "https://dev.azure.com/org it it"),
        ("git@ssh.dev.azure.com:v3/org/a%20b/it", "https://dev.azure.com/org a b it"),
    ],
)
def test_where_the_project_is_on_azure(provider, origin, place):
    git(provider.project, "remote", "set-url", "origin", origin)
    command = [sys.executable, "-c", "import provider; print(*provider._place())"]
    said = subprocess.check_output(command, cwd=provider.project / "scripts", text=True)
    assert said.strip() == place


def test_the_approvals_are_those_of_the_settings():
    for path in (
        "src/{{ package }}/settings.py",
        "{% if ci != 'none' %}.{% endif %}/scripts/ci.py",
    ):
        assert '"ci", "name", "none"' in (ROOT / "template" / path).read_text()


def test_the_scripts_are_typed(provider):
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11",
         "--config-file", os.devnull, "ci.py", "propose.py"],
        cwd=provider.project / "scripts", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_without_pipelines_each_verb_says_so(template, tmp_path):
    project = copy(template, tmp_path / "it", ci="none")
    for verb in ("ci-setup", "ci-check", "ci-promote", "ci-deploy", "ci-rollback"):
        done = subprocess.run(["make", verb], cwd=project, capture_output=True, text=True)
        assert done.returncode != 0
        assert "error: no pipelines were chosen; make update CHOICE='ci=github'" in done.stderr
