"""Law 7 for Azure: each file is linted, and says what it leaves behind."""

import re
from pathlib import Path
from typing import Any

import pytest
import variants
import yaml
from harness import copy
from read_pipelines import (
    AZURE,
    CHECKED,
    EACH,
    SERVER,
    facts,
    lint,
    said,
    steps_of,
    variables_of,
    verbs,
)
from run_pipelines import azure

VERB = re.compile(r"make ([a-z-]+)(?: [A-Z]+=[\w./]*)*")
SHOWN = re.compile(
    r"set -o pipefail\n(?:make -s show WHAT=(?:train|cycle)\.\w+ \| "
    r"sed 's/=/;isOutput=true\]/; s/\^/##vso\[task\.setvariable variable=/'\n)+"
)
BESIDES = re.compile(
    r"(?:python -m )?pip install --quiet uv==\d+\.\d+\.\d+|python3 scripts/propose\.py"
    r"|echo \"##vso\[task\.(?:logissue|prependpath)[^\"]*\"(?:\nexit 1\n)?"
    r"|echo \"nothing is deployed [^\"]*\""
)
TOKEN = "$(System.AccessToken)"


@pytest.fixture(scope="module", params=EACH, ids=variants.name)
def project(request, template, tmp_path_factory) -> Path:
    """A project with Azure's pipelines, for each manager of the environment and each registry."""
    home = tmp_path_factory.mktemp("azure")
    return copy(template, home / "it", ci="azure", **request.param)


def flows(project: Path) -> dict[str, Any]:
    return {name: yaml.safe_load((project / path).read_text()) for name, path in AZURE.items()}


def steps(project: Path) -> list[dict[str, Any]]:
    return [
        step
        for name, flow in flows(project).items()
        for stage in flow["stages"]
        for step in steps_of(stage["jobs"][0], (project / AZURE[name]).parent)
    ]


def test_the_schema_finds_nothing(project):
    found = [
        str(project / path) for path in (*AZURE.values(), ".azure/setup.yml", ".azure/verb.yml")
    ]
    lint(
        "check-jsonschema", "--builtin-schema", "vendor.azure-pipelines", "--data-transform",
        "azure-pipelines", "--regex-variant", "nonunicode", *found,
    )  # fmt: skip
    lint("check-jsonschema", "--builtin-schema", "vendor.renovate", str(project / "renovate.json"))


def test_jobs_call_make_verbs_only(project):
    known = verbs(project)
    for step in steps(project):
        text = str(step.get("script", step.get("bash", 'echo "##vso[task.logissue]"')))
        if not SHOWN.fullmatch(text) and not BESIDES.fullmatch(text):
            call = VERB.fullmatch(text)
            assert call, text
            assert call[1] in known, text


def test_jobs_are_bounded_and_promotions_are_one_at_a_time(project):
    for flow in flows(project).values():
        assert flow["parameters"][0]["default"] == {"vmImage": "ubuntu-24.04"}
        assert flow["pool"] == "${{ parameters.pool }}"
        for stage in flow["stages"]:
            (job,) = stage["jobs"]
            assert stage["stage"] == job.get("job", job.get("deployment"))
            assert int(job["timeoutInMinutes"]) <= 120
            assert ("environment" in job) == ("deployment" in job)
            if "environment" in job:
                assert stage["lockBehavior"] == "sequential"
            for place in re.findall(r"promote ENV=(\w+)", str(job)):
                assert place == job["environment"]


def test_secrets_are_given_where_they_are_needed_and_never_to_a_pull_request(project):
    for name, flow in flows(project).items():
        switch = facts(project)["switch"]
        group = {switch: SERVER}
        assert variables_of(flow, "Schedule", group)[switch] == SERVER
        if flow.get("pr") != "none":
            assert name == "ci"
            assert switch not in variables_of(flow, "PullRequest", group)
    for step in steps(project):
        if TOKEN in str(step):
            assert step["script"] in (
                "make push",
                "make ci-promote ENV=production",
                "make ci-rollback ENV=staging",
                "make ci-rollback ENV=production",
                "python3 scripts/propose.py",
            )
        login = {*facts(project)["secrets"]}
        secrets = login | {*variants.STORE["secrets"], "JOURNAL_URL"}
        secrets |= {"EVENTS_WEBHOOK", "EVENTS_SECRET"}
        assert secrets & {*step.get("env", {})} in (set(), login, secrets)
        trains = step.get("script") in ("make train", "make cycle")
        assert bool(step.get("env", {}).get("MODEL_SIGNING_KEY")) == trains, "nothing else signs"
        for value in step.get("env", {}).values():
            named = r"\$\((?:MLFLOW|WANDB|AWS|AZURE|JOURNAL|EVENTS|MODEL|UPDATE|DOTENV|KUBECONFIG)"
            assert not re.search(named, value), "empty if undefined"


def test_scheduled_pipelines_run_though_nothing_was_pushed(project):
    for name in ("cycle", "update"):
        flow = flows(project)[name]
        (times,) = flow["schedules"]
        assert (flow["trigger"], flow["pr"], times["always"]) == ("none", "none", "true")


@pytest.fixture
def run_pipeline(template, tmp_path):
    return azure(template, tmp_path)


REGISTRY = {"MLFLOW_TRACKING_URI": SERVER}


def test_artifacts_and_stages_are_named_for_what_they_are(run_pipeline):
    done = run_pipeline("ci", group=REGISTRY | {"MLFLOW_TRACKING_TOKEN": "secret"})
    assert done.artifacts >= {"bundle", "reports-train-1", "reports-load-1"}
    assert done.results["unregistered"] == "skipped"
    assert done.calls[0].endswith("TOKEN="), "it is given no secret of the registry"
    push = next(call for call in done.calls if call.startswith("push"))
    assert push.endswith("TOKEN=secret"), "it notes on the version which image holds it"
    assert " BY=Ada " in done.calls[-2]
    done = run_pipeline("ci", group={"DATA_URI": "data"})
    assert "bundle-not-registered" in done.artifacts
    assert "type=warning]nothing was registered" in done.out
    assert (done.results["unregistered"], done.results["production"]) == ("succeeded", "skipped")
    assert not any("$(" in call for call in done.calls), "a variable that is not there is empty"
    done = run_pipeline("ci", "pull request", REGISTRY)
    assert {done.results[name] for name in ("staging", "production", "unregistered")} == {"skipped"}


def test_a_value_that_cannot_be_read_is_a_failure(run_pipeline):
    done = run_pipeline("ci", group=REGISTRY, fails="show")
    assert (done.results["train"], said(done.calls)) == ("failed", CHECKED[:4])
    done = run_pipeline("cycle", "schedule", REGISTRY, fails="show")
    assert (done.results["cycle"], done.results["production"]) == ("failed", "skipped")
    assert said(done.calls) == ["monitor", "cycle"]


def test_what_failed_is_the_stage_that_did(run_pipeline):
    assert run_pipeline("cycle", "schedule").results["unregistered"] == "failed"
    assert (
        run_pipeline("cycle", "schedule", REGISTRY, fails="monitor").results["monitor"] == "failed"
    )
    assert run_pipeline("update", "schedule", fails="update").results["update"] == "failed"
    done = run_pipeline("cycle", "schedule", REGISTRY, version="")
    assert done.results["production"] == "skipped"


def test_what_a_schedule_promoted_alone_is_deployed_and_nobody_is_asked(run_pipeline):
    group = REGISTRY | {"DEPLOY_PRODUCTION": "machine", "DOTENV_PRODUCTION": "ZmlsZQ=="}
    done = run_pipeline("cycle", "schedule", group, promoted="test staging production")
    assert (done.results["production"], done.results["deploy_staging"]) == ("skipped", "skipped")
    assert said(done.calls)[-1] == "ci-deploy"
    assert "nothing is deployed to staging; the variable DEPLOY_STAGING is not set" in done.out
    done = run_pipeline("cycle", "schedule", group, fails="load", promoted="test production")
    assert done.results["deploy_production"] == "skipped"
