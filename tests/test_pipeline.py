"""Law 7: each CI file is linted, and what it does is seen by running it: act turns the graph."""

import itertools
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, commit, copy
from pipelines import BIN, CHECKED, MAIN, lint, said, verbs
from variants import AXES

PINNED = re.compile(
    r"uses: (\./\.github/actions/[a-z]+|[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$"
)
VERB = re.compile(r"make (?:-s )?([a-z-]+)(?: [A-Z]+=[\w./]+)*(?: >> \"\$GITHUB_OUTPUT\")?")
SAID = re.compile(r'echo "::(?:warning|error)::.*"|exit 1|python3 scripts/propose\.py')
MAKE = """#!/bin/sh
echo "$* VERSION=$VERSION BUNDLE=$BUNDLE URI=$MLFLOW_TRACKING_URI" >>'{log}'
mkdir -p reports build/bundle/7
echo '{{"changed": 0, "to": "v1"}}' >reports/update.json
case "$*" in
  *train.version*) echo version=7 ;;
  *monitor.verdict*) echo verdict="{verdict}" ;;
  *cycle.version*) echo version=8 ;;
  *"{fails}"*) exit 2 ;;
esac
"""
ACTION = "name: stand-in\nruns: {using: composite, steps: [{shell: bash, run: 'true'}]}\n"
SERVER = ("--var", "MLFLOW_TRACKING_URI=http://registry.example")


@pytest.fixture(scope="module", params=AXES["env_manager"])
def project(request, template, tmp_path_factory) -> Path:
    """A project with GitHub's pipelines, for each manager of the environment."""
    made = copy(
        template, tmp_path_factory.mktemp("ci") / "it", ci="github", env_manager=request.param
    )
    commit(made)
    return made


def workflows(project: Path) -> dict[str, Any]:
    return {
        path.name: yaml.safe_load(path.read_text())
        for path in (project / ".github" / "workflows").iterdir()
    }


def steps(project: Path) -> list[dict[str, Any]]:
    """Every step of the workflows and of the local action."""
    jobs = [job for w in workflows(project).values() for job in w["jobs"].values()]
    action = yaml.safe_load((project / ".github/actions/setup/action.yml").read_text())
    return list(itertools.chain(*(job["steps"] for job in jobs), action["runs"]["steps"]))


def test_schemas_and_audit_find_nothing(project):
    github = project / ".github"
    for schema, pattern in {
        "vendor.github-workflows": "workflows/*.yml",
        "vendor.github-actions": "actions/*/action.yml",
        "vendor.dependabot": "dependabot.yml",
        "vendor.github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
        "vendor.github-issue-config": "ISSUE_TEMPLATE/config.yml",
    }.items():
        found = [str(path) for path in github.glob(pattern)]
        assert found
        lint("check-jsonschema", "--builtin-schema", schema, *found)
    lint(
        "check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(project / "compose.yaml")
    )
    lint("zizmor", "--offline", "--quiet", str(project))


def test_jobs_call_make_verbs_only(project):
    known = verbs(project)
    for step in steps(project):
        for line in str(step.get("run", "")).splitlines():
            if not SAID.fullmatch(line):
                call = VERB.fullmatch(line)
                assert call, line
                assert call[1] in known, line


def test_what_is_not_registered_is_named_so(project):
    kept = [s["with"]["name"] for s in steps(project) if "upload-artifact" in s.get("uses", "")]
    named = "${{ env.MLFLOW_TRACKING_URI != '' && 'bundle' || 'bundle-not-registered' }}"
    assert named in kept


def test_our_own_workflows_are_sound_too():
    own = [str(path) for path in ROOT.glob(".github/workflows/*.yml")]
    lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *own)
    lint("zizmor", "--offline", "--quiet", str(ROOT / ".github"))


def test_actions_are_pinned_and_keep_no_token(project):
    for path in (project / ".github").rglob("*.yml"):
        for line in path.read_text().splitlines():
            if "uses:" in line:
                assert PINNED.fullmatch(line.strip(" -")), f"{path.name}: {line}"
    checkouts = [s for s in steps(project) if s.get("uses", "").startswith("actions/checkout")]
    assert checkouts
    assert all(s["with"] == {"persist-credentials": False} for s in checkouts)


def test_jobs_are_bounded_and_have_no_rights(project):
    for name, workflow in workflows(project).items():
        assert workflow["permissions"] == {}, name
        assert workflow["concurrency"], name
        for key, job in workflow["jobs"].items():
            promotes = [re.search(r"promote ENV=(\w+)", str(s.get("run"))) for s in job["steps"]]
            for found in filter(None, promotes):
                assert job["environment"] == key == found[1], "its approval is the provider's"
                asked = "ci-promote" in found.string
                assert asked == (key == "production"), "production asks who approved"
            assert job["timeout-minutes"] <= 120
            more = {"issues": "write"} if name == "update.yml" else {}
            more = {"actions": "read"} if key == "production" else more
            more = {"packages": "write", "id-token": "write"} if key == "build" else more
            assert job["permissions"] in ({}, {"contents": "read"} | more)
            assert job["runs-on"] == "${{ vars.RUNNER || 'ubuntu-24.04' }}"


@pytest.fixture
def act(template, tmp_path):
    """Runs an event through a workflow, with a make that only writes down what it is asked.

    The workflows are the same for every manager of the environment.
    """
    project = copy(template, tmp_path / "it", ci="github")
    commit(project)

    def run(event: str, workflow: str, *more: str, verdict: str = "ok", fails: str = "nothing"):
        log, tools, action = tmp_path / "log", tmp_path / "bin", tmp_path / "action"
        for folder in (tools, action, tmp_path / "home"):
            folder.mkdir(exist_ok=True)
        log.write_text("")
        (tools / "make").write_text(MAKE.format(log=log, verdict=verdict, fails=fails))
        (tools / "make").chmod(0o755)
        (action / "action.yml").write_text(ACTION)
        command = [str(BIN / "act"), event, "-W", f".github/workflows/{workflow}"]
        command += ["-P", "ubuntu-24.04=-self-hosted", *more]
        for used in {s["uses"] for s in steps(project) if "@" in s.get("uses", "")}:
            if not used.startswith("actions/checkout@"):
                command += ["--local-repository", f"{used}={action}"]
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=project, env={"HOME": str(tmp_path / "home"), "PATH": path},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        calls = [line for line in log.read_text().splitlines() if not line.startswith("setup")]
        return done.returncode, calls, done.stdout + done.stderr

    return run


@pytest.mark.heavy
def test_a_push_is_checked_trained_tried_and_promoted(act):
    code, calls, out = act("push", "ci.yml", *SERVER)
    assert code == 0, out[-3000:]
    assert said(calls) == [*MAIN, "promote", "ci-promote"]
    assert "load VERSION=7 BUNDLE= URI=http://registry.example" in calls
    assert calls[-2:] == [
        "promote ENV=staging VERSION=7 BUNDLE= URI=http://registry.example",
        "ci-promote ENV=production VERSION=7 BUNDLE= URI=http://registry.example",
    ]
    assert "::warning::" not in out


@pytest.mark.heavy
def test_without_a_registry_a_push_promotes_nothing_and_says_so(act):
    code, calls, out = act("push", "ci.yml")
    assert code == 0, out[-3000:]
    assert said(calls) == MAIN
    assert "load VERSION= BUNDLE=build/bundle URI=" in calls
    assert "set the variable MLFLOW_TRACKING_URI" in out


@pytest.mark.heavy
def test_a_pull_request_never_reaches_the_registry(act):
    code, calls, out = act("pull_request", "ci.yml", *SERVER)
    assert code == 0, out[-3000:]
    assert said(calls) == CHECKED
    assert all(call.endswith("URI=") for call in calls)


@pytest.mark.heavy
@pytest.mark.parametrize("step", ["check", "train", "smoke"])
def test_what_fails_stops_all_that_needs_it(act, step):
    code, calls, _ = act("push", "ci.yml", *SERVER, fails=step)
    assert code != 0
    assert said(calls) == CHECKED[: CHECKED.index(step) + 1]


@pytest.mark.heavy
def test_the_cycle_retrains_on_the_verdict_only(act):
    for verdict in ("ok", "warn"):
        code, calls, out = act("schedule", "cycle.yml", *SERVER, verdict=verdict)
        assert (code, said(calls)) == (0, ["monitor"]), out[-3000:]
    code, calls, out = act("schedule", "cycle.yml", *SERVER, verdict="retrain")
    assert code == 0, out[-3000:]
    assert said(calls) == ["monitor", "cycle", "load", "ci-promote"]
    assert calls[-1].startswith("ci-promote ENV=production VERSION=8")


@pytest.mark.heavy
def test_the_cycle_is_red_when_nothing_was_watched(act):
    code, calls, out = act("schedule", "cycle.yml")
    assert (code != 0, calls) == (True, []), out[-3000:]
    assert "set the variable MLFLOW_TRACKING_URI" in out
    code, calls, _ = act("schedule", "cycle.yml", *SERVER, fails="monitor")
    assert (code != 0, said(calls)) == (True, ["monitor"])


@pytest.mark.heavy
def test_an_update_is_made_and_then_proposed(act):
    code, calls, out = act("schedule", "update.yml")
    assert code == 0, out[-3000:]
    assert said(calls) == ["update"]
    assert "there is nothing to propose" in out
    code, calls, out = act("schedule", "update.yml", fails="update")
    assert (code != 0, said(calls)) == (True, ["update"])
    assert "there is nothing to propose" in out, "it is proposed though the update left work"
