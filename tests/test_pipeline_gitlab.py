"""Law 7 for GitLab: each file is linted, and keeps secrets from merge requests."""

import re
from pathlib import Path
from typing import Any

import pytest
import variants
import yaml
from harness import ROOT, copy
from read_pipelines import EACH, MAIN, SERVER, facts, lint, said, verbs
from run_pipelines import gitlab

VERB = re.compile(
    r"make (?:-s )?([a-z-]+)(?: [A-Z]+=(?:[\w./]*|\"\$(?:version|GITLAB_USER_LOGIN)\"))*"
    r"(?: >>? reports/\w+\.env| \|\| failed=\$\?)?"
)
BESIDES = re.compile(
    r"if \[ \"\$CI_PIPELINE_SOURCE\" = merge_request_event \]; then unset [A-Z_ ]+; fi"
    r"|if [^;]+; then echo \"[^\"]+\";(?: exit [01];)? fi"
    r"|apt-get update --quiet"
    r"|apt-get install --yes --quiet (?:podman|glab|make|kubernetes-client)"
    r"|pip install --quiet uv==\d+\.\d+\.\d+|python3 scripts/propose\.py"
    r"|exit (?:1|\$\{failed:-0\})|echo \"[^\"]+\""
)
"""The few lines beside verbs: what a bare image lacks, and how a job ends."""
EITHER = re.compile(
    r"if \[ -n \"\$(?:MLFLOW_TRACKING_URI|WANDB_ENTITY)\" \]; then (.*); else (.*); fi"
)
ON_MAIN = re.compile(r"if \[ \"\$CI_COMMIT_BRANCH\" = \"\$CI_DEFAULT_BRANCH\" \]; then (.*); fi")
FILES = ("ci", "cycle", "update", "rollback")


@pytest.fixture(scope="module", params=EACH, ids=variants.name)
def project(request, template, tmp_path_factory) -> Path:
    """A project with GitLab's pipelines, for each manager of the environment and each registry."""
    home = tmp_path_factory.mktemp("gitlab")
    return copy(template, home / "it", ci="gitlab", **request.param)


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
    assert len(found) == 6
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
            whose = "deploy-" if name.startswith("rollback/") else ""
            assert job["resource_group"] == whose + place, name
            assert job["interruptible"] is False, name
        promoted = [re.search(r"promote ENV=(\w+)", line) for line in job["script"]]
        assert all(found[1] == place for found in promoted if found), name


def test_a_person_starts_production(project):
    for name, waits in (("ci", True), ("cycle", False)):
        (rule,) = jobs(project)[f"{name}/production"]["rules"]
        assert rule["when"] == "manual"
        assert rule["allow_failure"] is not waits
    (rule,) = jobs(project)["rollback/rollback-production"]["rules"]
    assert rule["when"] == "manual"


def test_a_merge_request_sees_no_secret(project):
    """Each job of a merge request forgets them first, even if somebody did not protect them."""
    head = (project / ".gitlab-ci.yml").read_text()
    told = r"\b(?:(?:MLFLOW_TRACKING|WANDB|EVENTS)_[A-Z_]+|JOURNAL_URL|DATA_STORE|[A-Z]+_TOKEN"
    told += r"|(?:DOTENV|KUBECONFIG)_[A-Z]+|MODEL_[A-Z]+_KEY)\b"
    named = set(re.findall(told, head)) | {*variants.STORE["secrets"]}
    assert all(name in head for name in (*variants.STORE["secrets"], *variants.STORE["variables"]))
    registry = facts(project)
    assert named >= {registry["switch"], *registry["secrets"], "JOURNAL_URL", "UPDATE_TOKEN"}
    assert named >= {"MODEL_SIGNING_KEY", "MODEL_TRUSTED_KEY"}
    for name in ("check", "audit", "train", "build"):
        forgets = jobs(project)[f"ci/{name}"]["script"][0]
        assert named == set(re.findall(r"unset ([A-Z_ ]+);", forgets)[0].split())


def test_the_merge_request_shows_the_reports(project):
    told = jobs(project)
    assert told["ci/check"]["artifacts"]["reports"]["junit"] in str(told["ci/check"]["variables"])
    for name in ("train", "build"):
        assert told[f"ci/{name}"]["artifacts"]["expose_as"]
    assert (project / ".gitlab/merge_request_templates/Default.md").exists()


@pytest.fixture(scope="module")
def run_pipeline(template, tmp_path_factory):
    return gitlab(template, tmp_path_factory.mktemp("local"))


REGISTRY = {"MLFLOW_TRACKING_URI": SERVER}


@pytest.mark.heavy
def test_production_waits_for_a_person(run_pipeline):
    done = run_pipeline("ci", group=REGISTRY, manual=False)
    assert done.good, done.out[-3000:]
    assert said(done.calls) == [*MAIN, "promote"]
    assert re.search(r" BY=\S", done.calls[-1]), "and who pushed is noted"


@pytest.mark.heavy
def test_a_pipeline_that_promoted_nothing_is_not_green(run_pipeline):
    assert re.search(r"WARN +unregistered", run_pipeline("ci").out)
    done = run_pipeline("cycle", "schedule", REGISTRY, version="")
    assert re.search(r"WARN +production", done.out)
    assert "this cycle trained no version" in done.out
    assert said(done.calls) == ["monitor", "cycle"]
