"""Each provider's pipelines as one kind of data, and a make that writes down its calls."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from variants import AXES, REGISTRIES

BIN = Path(sys.executable).parent
"""The linters are Python packages of the tests' own environment."""
CHECKED = ["check", "data", "train", "bundle", "image", "smoke", "sbom", "load"]
MAIN = [*CHECKED, "push"]
"""What a push to main does, before anything is promoted."""
SERVER = "http://registry.example"
MANAGERS = AXES["env_manager"]
EACH = [
    *({"env_manager": manager, "model_registry": "mlflow"} for manager in MANAGERS),
    {"env_manager": MANAGERS[0], "model_registry": "wandb"},
]
EACH = [  # the last with the last answer, where it is asked for
    made | {"deployment": of[-1 if made == EACH[-1] else 0]}
    for of in [AXES.get("deployment", ["compose"])]
    for made in EACH
]
"""The answers that the pipelines' files hang on: all of them once."""
MAKE = """#!/bin/sh
for word in "$@"; do
  case "$word" in VERSION=*|BUNDLE=*|BY=*|ENV=*) eval "${{word%%=*}}='${{word#*=}}'" ;; esac
done
given="VERSION=$VERSION BUNDLE=$BUNDLE BY=$BY"
echo "$* | $given URI=${switch} TOKEN=${secret}" >>'{log}'
mkdir -p reports build/bundle/7
echo "{{}}" >reports/update.json
case "$*" in
  *"{fails}"*) exit 2 ;;
  *train.version*) echo version=7 ;;
  *cycle.version*) echo version="{version}" ;;
  *cycle.promoted*) echo promoted="{promoted}" ;;
esac
"""


def lint(*command: str) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def facts(project: Path) -> dict[str, Any]:
    """What a project's pipelines know of its registry."""
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return dict(REGISTRIES[answers["model_registry"]]["pipelines"])


def said(calls: list[str]) -> list[str]:
    """The verbs in the order of the calls, without show, and audit, which runs beside the rest."""
    named = [call.split()[0] for call in calls if "show" not in call]
    return [verb for verb in named if verb != "audit"]


def verbs(project: Path) -> set[str]:
    """Every verb of a project that a pipeline may call."""
    told = subprocess.run(["make", "help"], cwd=project, capture_output=True, text=True, check=True)
    return set(re.findall(r"make ([a-z-]+)", told.stdout)) | {"show"}


class Tools:
    """A folder of commands that write down how they are called, instead of doing anything."""

    def __init__(self, home: Path, project: Path) -> None:
        self.home, self.bin, self.log = home, home / "bin", home / "log"
        self.registry = facts(project)
        self.bin.mkdir()
        self.own = {"HOME": str(home), "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}
        for name in ("pip", "apt-get", "python", "conda"):
            self.write(name, "#!/bin/sh\n")
        # Only the step that proposes calls it; scripts/propose.py has tests of its own.
        self.write(
            "python3", f"#!/bin/sh\necho \"propose $* TOKEN=$UPDATE_TOKEN\" >>'{self.log}'\n"
        )

    def write(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def begin(self, version: str = "8", fails: str = "nothing", promoted: str = "") -> None:
        self.log.write_text("")
        promoted = promoted or "test staging" if version else promoted
        says = {"log": self.log, "version": version, "fails": fails, "promoted": promoted}
        says |= {"switch": self.registry["switch"], "secret": self.registry["secrets"][-1]}
        self.write("make", MAKE.format(**says))

    def calls(self) -> list[str]:
        return [c for c in self.log.read_text().splitlines() if not c.startswith("setup")]


@dataclass(frozen=True)
class Job:
    """What must be the same wherever a pipeline runs."""

    verbs: tuple[str, ...]
    needs: frozenset[str]
    environment: str | None
    runs: frozenset[str]
    """The names of the EVENTS on which it runs, if all goes well."""


@dataclass(frozen=True)
class Pipeline:
    jobs: Mapping[str, Job]
    triggers: frozenset[str]
    schedule: str | None


EVENTS = {
    "push": ("main", SERVER, ""),
    "push without a registry": ("main", "", ""),
    "pull request": ("", SERVER, "there"),
    "push with targets": ("main", SERVER, "there"),
}
"""A branch, or none for a pull request; the registry; and where each environment is deployed."""


def called(lines: str) -> tuple[str, ...]:
    """The verbs in a script; of two ways to call one, it counts once."""
    found = re.findall(r"make (?:-s )?([a-z-]+)|scripts/(propose)\.py", lines)
    names = ["".join(one) for one in found]
    return tuple(n for i, n in enumerate(names) if not i or names[i - 1] != n)


def names(value: Any) -> frozenset[str]:
    return frozenset([value] if isinstance(value, str) else value or [])


def reached(
    needs: Mapping[str, frozenset[str]],
    triggers: frozenset[str],
    starts: Callable[..., bool],
) -> dict[str, frozenset[str]]:
    """On which events each job runs: where it may start, and all that it needs ran."""
    ran: dict[str, set[str]] = {job: set() for job in needs}
    for event, told in EVENTS.items():
        if event == "pull request" and event.replace(" ", "_") not in triggers:
            continue
        for job, needed in needs.items():
            if all(event in ran[name] for name in needed) and starts(job, *told):
                ran[job].add(event)
    return {job: frozenset(events) for job, events in ran.items()}


def contains(text: str, part: str) -> bool:
    return part in text


def github(project: Path) -> dict[str, Pipeline]:
    found = {}
    for path in (project / ".github/workflows").glob("*.yml"):
        flow = yaml.safe_load(path.read_text())
        jobs, on = flow["jobs"], flow[True]  # YAML reads `on` as true

        def starts(job: str, branch: str, registry: str, target: str, jobs: Any = jobs) -> bool:
            known = {
                "github.ref": f"refs/heads/{branch}",
                "github.event_name": "push" if branch else "pull_request",
                f"vars.{facts(project)['switch']}": registry,
                "needs.cycle.outputs.version": "8",
                "needs.cycle.outputs.promoted": "test staging",
                "needs.cycle.result": "success",
                "needs.production.result": "success",
                "inputs.environment": "production",
                **dict.fromkeys(("vars.DEPLOY_STAGING", "vars.DEPLOY_PRODUCTION"), target),
            }
            text = jobs[job].get("if", "true").replace("&&", "and").replace("true", "True")
            text = re.sub(r"!(?!=)", "not ", text.replace("||", "or"))
            text = re.sub(
                r"\b(?:github|vars|needs|inputs)\.[\w.]+", lambda m: repr(known[m[0]]), text
            )
            return bool(eval(text, {"contains": contains, "cancelled": lambda: False}))

        needs = {name: names(job.get("needs")) for name, job in jobs.items()}
        triggers = frozenset(on) & {"push", "pull_request", "schedule"}
        runs = reached(needs, triggers, starts)
        found[path.stem] = Pipeline(
            {
                name: Job(
                    called("\n".join(str(step.get("run", "")) for step in job["steps"])),
                    needs[name],
                    job.get("environment"),
                    runs[name],
                )
                for name, job in jobs.items()
            },
            triggers,
            on["schedule"][0]["cron"] if "schedule" in on else None,
        )
    return found


def rule(text: str, known: Mapping[str, str]) -> bool:
    """Whether a rule of GitLab's holds."""
    text = re.sub(r"\$(\w+)", lambda m: repr(known.get(m[1], "")), text)
    return bool(eval(text.replace("&&", "and").replace("||", "or")))


def gitlab(project: Path) -> dict[str, Pipeline]:
    text = (project / ".gitlab-ci.yml").read_text()
    head = yaml.safe_load(text)
    times = dict(re.findall(r"SCHEDULE=(\w+) .* (\S+ \S+ \S+ \S+ \S+)$", text, re.MULTILINE))
    found = {}
    for name in ("ci", "cycle", "update", "rollback"):
        jobs = yaml.safe_load((project / f".gitlab/{name}.yml").read_text())
        schedule = name if name in ("cycle", "update") else ""

        def known(
            branch: str, registry: str, target: str = "", schedule: str = schedule
        ) -> dict[str, str]:
            source = "push" if branch else "merge_request_event"
            return {
                "CI_COMMIT_BRANCH": branch, "CI_DEFAULT_BRANCH": "main", "SCHEDULE": schedule,
                "CI_PIPELINE_SOURCE": source, facts(project)["switch"]: registry,
                "ROLLBACK": "production", "DEPLOY_STAGING": target, "DEPLOY_PRODUCTION": target,
            }  # fmt: skip

        def starts(job: str, *told: str, jobs: Any = jobs, of: Any = known) -> bool:
            rules = jobs[job].get("rules", [{}])
            holds = (r for r in rules if rule(r.get("if", "True"), of(*told)))
            return next(holds, {"when": "never"}).get("when") != "never"

        flow = [r["if"] for r in head["workflow"]["rules"]]
        on = {
            event
            for event, branch in (("push", "main"), ("pull_request", ""))
            if any(rule(text, known(branch, "")) for text in flow)
        }
        triggers = frozenset({"schedule"} if schedule else on if name == "ci" else ())
        needs = {job: names(told.get("needs")) for job, told in jobs.items()}
        runs = reached(needs, triggers, starts)
        places = {job: told.get("environment") for job, told in jobs.items()}
        found[name] = Pipeline(
            {
                job: Job(
                    called("\n".join(told["script"])),
                    needs[job],
                    place["name"] if isinstance(place := places[job], dict) else place,
                    runs[job],
                )
                for job, told in jobs.items()
            },
            triggers,
            times.get(schedule),
        )
    return found


AZURE = {"ci": "azure-pipelines.yml"}
AZURE |= {name: f".azure/{name}.yml" for name in ("cycle", "update", "rollback")}


def expression(text: str, **known: Any) -> Any:
    """What an expression of Azure's comes to; what is not there is empty."""
    text = re.sub(r"\b(and|or|not)\(", r"\1_(", text)
    text = text.replace("${{ parameters.environment }}", "production")
    text = re.sub(r"variables\.([\w]+)", r"variables['\1']", text)
    text = re.sub(r"stageDependencies\.(\w+)\.(\w+)\.outputs", r"jobs['\1.\2']", text)
    text = re.sub(r"dependencies\.(\w+)\.outputs", r"stages['\1']", text)
    text = re.sub(r"dependencies\.(\w+)\.result", r"results['\1'].capitalize()", text)
    known = {k: known.get(k, {}) for k in ("variables", "jobs", "stages", "results")} | known
    known["variables"] = defaultdict(str, known["variables"])
    functions = {
        "and_": lambda *of: all(of), "or_": lambda *of: any(of), "not_": lambda one: not one,
        "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "contains": contains,
        "succeededOrFailed": lambda: True, "canceled": lambda: False,
    }  # fmt: skip
    return eval(text, functions | known)


def steps_of(job: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """The steps of a job, those of templates in their place, with their parameters."""
    strategy = job.get("strategy", {}).get("runOnce", {}).get("deploy", {})
    for step in job.get("steps") or strategy["steps"]:
        if "template" in step:
            text = (folder / step["template"]).read_text()
            of = {p["name"]: p.get("default") for p in yaml.safe_load(text).get("parameters", [])}
            given = of | step.get("parameters", {})
            assert None not in given.values()
            assert given.keys() == of.keys()
            for name, value in given.items():
                text = text.replace(f"${{{{ parameters.{name} }}}}", value)
            yield from yaml.safe_load(text)["steps"]
        else:
            yield step


def variables_of(flow: dict[str, Any], reason: str, group: Mapping[str, str]) -> dict[str, str]:
    """The variables at the root of a pipeline, with those of its group where it is read."""
    found: dict[str, str] = {}

    def take(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            for name, value in entry.items():
                if condition := re.fullmatch(r"\$\{\{ if (.*) \}\}", name):
                    if expression(condition[1], variables={"Build.Reason": reason}):
                        take(value)
                elif name == "group":
                    assert value == "ciclo"
                    found.update(group)
                elif name == "name":
                    found[value] = entry["value"]

    take(flow["variables"])
    return found


def azure(project: Path) -> dict[str, Pipeline]:
    found = {}
    for name, path in AZURE.items():
        flow = yaml.safe_load((project / path).read_text())
        stages = {stage["stage"]: stage for stage in flow["stages"]}

        def starts(
            name: str, branch: str, registry: str, target: str, stages: Any = stages,
            flow: Any = flow,
        ) -> bool:  # fmt: skip
            stage = name.replace("-", "_")
            group = dict.fromkeys(("DEPLOY_STAGING", "DEPLOY_PRODUCTION"), target)
            return bool(
                expression(
                    stages[stage].get("condition", "True"),
                    succeeded=lambda: True,
                    variables={
                        "Build.SourceBranch": f"refs/heads/{branch}"
                        if branch
                        else "refs/pull/1/merge",
                        **variables_of(
                            flow,
                            "" if branch else "PullRequest",
                            group | {facts(project)["switch"]: registry},
                        ),
                    },
                    stages={
                        "cycle": {
                            "cycle.cycle.turned.version": "8",
                            "cycle.cycle.turned.promoted": "test staging",
                        }
                    },
                    results=dict.fromkeys(stages, "succeeded"),
                )
            )

        on = {"push": flow.get("trigger"), "pull_request": flow.get("pr")}
        times = flow.get("schedules", [])
        triggers = frozenset(event for event, told in on.items() if told != "none")
        triggers |= {"schedule"} if times else set()
        # The names of stages have no dashes.
        needs = {stage.replace("_", "-"): names(of["dependsOn"]) for stage, of in stages.items()}
        runs = reached(needs, triggers, starts)
        jobs = {}
        for stage, told in stages.items():
            (job,) = told["jobs"]
            lines = [
                str(step.get("script", step.get("bash", "")))
                for step in steps_of(job, (project / path).parent)
            ]
            verbs = tuple(verb for verb in called("\n".join(lines)) if verb != "setup")
            place, own = job.get("environment"), stage.replace("_", "-")
            place = place["name"] if isinstance(place, dict) else place
            jobs[own] = Job(verbs, needs[own], place, runs[own])
        found[name] = Pipeline(jobs, triggers, times[0]["cron"] if times else None)
    return found
