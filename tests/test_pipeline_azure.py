"""Law 7 for Azure: each file is linted, and turned by a small interpreter: no runner exists.

It knows only what the files use: stages, one job each, templates of steps, a few functions in
conditions, and `##vso[task.setvariable]`. What it does not know, it fails on.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import commit, copy
from pipelines import (
    AZURE,
    CHECKED,
    MAIN,
    SERVER,
    Tools,
    expression,
    lint,
    said,
    steps_of,
    variables_of,
    verbs,
)
from variants import AXES

VERB = re.compile(r"make ([a-z-]+)(?: [A-Z]+=[\w./]*)*")
SHOWN = re.compile(
    r"set -o pipefail\nmake -s show WHAT=(?:train|cycle|monitor)\.\w+ \| "
    r"sed 's/=/;isOutput=true\]/; s/\^/##vso\[task\.setvariable variable=/'\n"
)
BESIDES = re.compile(
    r"(?:python -m )?pip install --quiet uv==\d+\.\d+\.\d+|python3 scripts/propose\.py"
    r"|echo \"##vso\[task\.(?:logissue|prependpath)[^\"]*\"(?:\nexit 1\n)?"
)
TOKEN = "$(System.AccessToken)"
SET = re.compile(r"##vso\[task\.setvariable variable=(\w+);isOutput=true\](.*)")
TASKS = {"UsePythonVersion@0", "Cache@2", "PublishTestResults@2", "DownloadPipelineArtifact@2"}


@pytest.fixture(scope="module", params=AXES["env_manager"])
def project(request, template, tmp_path_factory) -> Path:
    """A project with Azure's pipelines, for each manager of the environment."""
    home = tmp_path_factory.mktemp("azure")
    return copy(template, home / "it", ci="azure", env_manager=request.param)


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
    found = [str(project / path) for path in (*AZURE.values(), ".azure/setup.yml")]
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
        group = {"MLFLOW_TRACKING_URI": SERVER}
        assert variables_of(flow, "Schedule", group)["MLFLOW_TRACKING_URI"] == SERVER
        if flow.get("pr") != "none":
            assert name == "ci"
            assert "MLFLOW_TRACKING_URI" not in variables_of(flow, "PullRequest", group)
    for step in steps(project):
        if TOKEN in str(step):
            assert step["script"] in (
                "make ci-promote ENV=production",
                "python3 scripts/propose.py",
            )
        for value in step.get("env", {}).values():
            assert re.fullmatch(r"(?!.*\$\((?:MLFLOW|JOURNAL|UPDATE)).*", value), (
                "empty if undefined"
            )


def test_scheduled_pipelines_run_though_nothing_was_pushed(project):
    for name in ("cycle", "update"):
        flow = flows(project)[name]
        (times,) = flow["schedules"]
        assert (flow["trigger"], flow["pr"], times["always"]) == ("none", "none", "true")


class Run:
    """One run of a pipeline: each script step in order, under its conditions."""

    def __init__(self, project: Path, path: str, tools: Tools, reason: str, group: dict[str, str]):
        self.project, self.folder, self.tools = project, (project / path).parent, tools
        flow = yaml.safe_load((project / path).read_text())
        branch = "refs/pull/1/merge" if reason == "PullRequest" else "refs/heads/main"
        self.secret = set(group) - {"MLFLOW_TRACKING_URI", "DATA_URI"}
        self.root = {
            "Build.SourceBranch": branch, "Build.RequestedFor": "Ada", "System.JobAttempt": "1",
            "System.AccessToken": "job", "Pipeline.Workspace": str(tools.home), "Agent.OS": "Linux",
        } | variables_of(flow, reason, group)  # fmt: skip
        self.results: dict[str, str] = {}
        self.stages: dict[str, dict[str, str]] = {}
        self.jobs: dict[str, dict[str, str]] = {}
        self.artifacts: set[str] = set()
        self.out = ""
        for stage in flow["stages"]:
            self.stage(stage)

    def evaluate(self, text: str, variables: dict[str, str], good: bool) -> Any:
        return expression(
            text, variables=variables, jobs=self.jobs, succeeded=lambda: good,
            stages={name: Empty(self.stages.get(name, {})) for name in self.results},
        )  # fmt: skip

    def stage(self, stage: dict[str, Any]) -> None:
        name, (job,) = stage["stage"], stage["jobs"]
        good = all(self.results[needed] == "succeeded" for needed in stage["dependsOn"])
        if not self.evaluate(stage.get("condition", "succeeded()"), self.root, good):
            self.results[name] = "skipped"
            return
        own = self.root | job.get("variables", {})
        for key, value in own.items():
            if inner := re.fullmatch(r"\$\[(.*)\]", value):
                own[key] = self.evaluate(inner[1], self.root, True)
        outputs: dict[str, str] = {}
        good = True
        for step in steps_of(job, self.folder):
            if self.evaluate(step.get("condition", "succeeded()"), own | outputs, good):
                code, told = self.step(step, own | outputs)
                good = good and not code
                outputs |= {f"{step['name']}.{key}": value for key, value in told}
        keyed = f"{name}." if "deployment" in job else ""
        self.jobs[f"{name}.{name}"] = {keyed + key: value for key, value in outputs.items()}
        self.stages[name] = {f"{name}.{keyed}{key}": value for key, value in outputs.items()}
        self.results[name] = "succeeded" if good else "failed"

    def step(self, step: dict[str, Any], own: dict[str, str]) -> tuple[int, list[tuple[str, str]]]:
        def filled(text: str) -> str:
            return re.sub(r"\$\(([\w.]+)\)", lambda m: own.get(m[1], m[0]), text)

        if "publish" in step:
            self.artifacts.add(filled(step["artifact"]))
            return int(not (self.project / step["publish"]).is_dir()), []
        if "task" in step:
            assert step["task"] in TASKS
            wanted = step["inputs"].get("artifactName")
            return int(wanted is not None and wanted not in self.artifacts), []
        if "checkout" in step:
            return 0, []
        plain = {k.upper().replace(".", "_"): v for k, v in own.items() if k not in self.secret}
        script = step["script"] if "script" in step else step["bash"]
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", filled(script)],
            env=os.environ | self.tools.own | plain
            | {key: filled(value) for key, value in step.get("env", {}).items()},
            cwd=self.project, capture_output=True, text=True,
        )  # fmt: skip
        self.out += done.stdout + done.stderr
        return done.returncode, SET.findall(done.stdout)


class Empty(dict[str, str]):
    """What is not there is empty, as in Azure's expressions."""

    def __missing__(self, key: str) -> str:
        return ""


@pytest.fixture
def turn(template, tmp_path):
    made = copy(template, tmp_path / "it", ci="azure")
    commit(made)
    tools = Tools(tmp_path)

    def run(name: str, group: dict[str, str], reason: str = "IndividualCI", **says: str) -> Any:
        tools.begin(**says)
        done = Run(made, AZURE[name], tools, reason, group)
        return done, tools.calls()

    return run


REGISTRY = {"MLFLOW_TRACKING_URI": SERVER}


def test_a_push_is_checked_trained_tried_and_promoted(turn):
    done, calls = turn("ci", REGISTRY | {"MLFLOW_TRACKING_TOKEN": "secret"})
    assert said(calls) == [*MAIN, "promote", "ci-promote"], done.out
    end = f"URI={SERVER} TOKEN=secret"
    assert calls[-4:] == [
        f"load | VERSION=7 BUNDLE= BY= {end}",
        f"push | VERSION=7 BUNDLE= BY= URI={SERVER} TOKEN=",
        f"promote ENV=staging | VERSION=7 BUNDLE= BY=Ada {end}",
        f"ci-promote ENV=production | VERSION=7 BUNDLE= BY= {end}",
    ]
    assert calls[0].endswith("TOKEN="), "make check is given no secret"
    assert done.artifacts >= {"bundle", "reports-train-1", "reports-load-1"}
    assert done.results["unregistered"] == "skipped"


def test_without_a_registry_a_push_promotes_nothing_and_says_so(turn):
    done, calls = turn("ci", {"DATA_URI": "data"})
    assert said(calls) == MAIN, done.out
    assert calls[-2].endswith("| VERSION= BUNDLE=build/bundle BY= URI= TOKEN="), (
        "no literal $(NAME)"
    )
    assert "bundle-not-registered" in done.artifacts
    assert "type=warning]nothing was registered" in done.out
    assert (done.results["unregistered"], done.results["production"]) == ("succeeded", "skipped")


def test_a_pull_request_never_reaches_the_registry(turn):
    done, calls = turn("ci", REGISTRY | {"MLFLOW_TRACKING_TOKEN": "secret"}, "PullRequest")
    assert said(calls) == CHECKED, done.out
    assert all(call.endswith("URI= TOKEN=") for call in calls)
    assert {done.results[name] for name in ("staging", "production", "unregistered")} == {"skipped"}


@pytest.mark.parametrize("step", ["check", "train", "smoke"])
def test_what_fails_stops_all_that_needs_it(turn, step):
    done, calls = turn("ci", REGISTRY, fails=step)
    assert "failed" in done.results.values()
    assert said(calls) == CHECKED[: CHECKED.index(step) + 1]


def test_a_value_that_cannot_be_read_is_a_failure(turn):
    done, calls = turn("ci", REGISTRY, fails="show")
    assert (done.results["train"], said(calls)) == ("failed", CHECKED[:4])
    done, _ = turn("cycle", REGISTRY, "Schedule", fails="show")
    assert (done.results["monitor"], done.results["cycle"]) == ("failed", "skipped")


def test_the_cycle_retrains_on_the_verdict_only(turn):
    for verdict in ("ok", "warn"):
        done, calls = turn("cycle", REGISTRY, "Schedule", verdict=verdict)
        assert said(calls) == ["monitor"], done.out
        assert "failed" not in done.results.values()
    done, calls = turn("cycle", REGISTRY, "Schedule", verdict="retrain")
    assert said(calls) == ["monitor", "cycle", "load", "ci-promote"], done.out
    assert calls[-1].startswith("ci-promote ENV=production | VERSION=8 ")


def test_without_a_new_version_production_is_not_asked(turn):
    done, calls = turn("cycle", REGISTRY, "Schedule", verdict="retrain", version="")
    assert said(calls) == ["monitor", "cycle"], done.out
    assert done.results["production"] == "skipped"


def test_the_cycle_is_red_when_nothing_was_watched(turn):
    done, calls = turn("cycle", {}, "Schedule")
    assert (done.results["unregistered"], calls) == ("failed", [])
    assert "set the variable MLFLOW_TRACKING_URI" in done.out
    done, calls = turn("cycle", REGISTRY, "Schedule", fails="monitor")
    assert (done.results["monitor"], said(calls)) == ("failed", ["monitor"])


def test_an_update_is_made_and_then_proposed(turn):
    done, calls = turn("update", {"UPDATE_TOKEN": "team"}, "Schedule")
    assert said(calls) == ["update", "propose"], done.out
    assert calls[-1] == "propose scripts/propose.py TOKEN=team"
    done, calls = turn("update", {}, "Schedule", fails="update")
    assert (done.results["update"], calls[-1]) == ("failed", "propose scripts/propose.py TOKEN=")
