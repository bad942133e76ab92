"""Law 7 for GitHub: each file is linted, and has no right that it does not need."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import variants
import yaml
from harness import ROOT, commit, copy
from read_pipelines import EACH, facts, github, lint, verbs

PINNED = re.compile(
    r"uses: (\./\.github/actions/[a-z]+|[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$"
)
VERB = re.compile(r"make (?:-s )?([a-z-]+)(?: [A-Z]+=[\w./]*)*(?: >> \"\$GITHUB_OUTPUT\")?")
SAID = re.compile(r'echo "::(?:notice|warning|error)::.*"|exit 1|python3 scripts/propose\.py')


SCHEMAS = {
    "github-workflows": "workflows/*.yml",
    "github-actions": "actions/*/action.yml",
    "dependabot": "dependabot.yml",
    "github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "github-issue-config": "ISSUE_TEMPLATE/config.yml",
}


def fit(folder: Path, *schemas: str) -> None:
    """The files of each schema are there, and follow it."""
    for name in schemas:
        found = [str(path) for path in (folder / ".github").glob(SCHEMAS[name])]
        assert found, name
        lint("check-jsonschema", "--builtin-schema", f"vendor.{name}", *found)


@pytest.fixture(scope="module", params=EACH, ids=variants.name)
def project(request, template, tmp_path_factory) -> Path:
    """A project with GitHub's pipelines, for each manager of the environment and each registry."""
    home = tmp_path_factory.mktemp("ci")
    made = copy(template, home / "it", ci="github", **request.param)
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
    fit(project, *SCHEMAS)
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
    switch = facts(project)["switch"]
    named = f"${{{{ env.{switch} != '' && 'bundle' || 'bundle-not-registered' }}}}"
    assert named in kept


def test_our_own_workflows_are_sound_too():
    fit(ROOT, *(name for name in SCHEMAS if name != "github-actions"))
    lint("zizmor", "--offline", "--quiet", str(ROOT / ".github"))


def test_what_is_pushed_is_signed_before_anything_else_runs(project):
    """Each image by its digest, in a file that only `make push` writes."""
    signed = 0
    for workflow in workflows(project).values():
        for job in workflow["jobs"].values():
            for step, after in itertools.pairwise(job["steps"]):
                if step.get("run") == "make push":
                    signed += 1
                    assert after["uses"].startswith("actions/attest-build-provenance@")
                    (path,) = after["with"].values()
                    assert after["if"].startswith(f"hashFiles('{path}') != '' && ")
                    assert Path(path).name in (project / "scripts/push.py").read_text()
    assert signed


def test_actions_are_pinned_and_keep_no_token(project):
    for path in (project / ".github").rglob("*.yml"):
        for line in path.read_text().splitlines():
            if "uses:" in line:
                assert PINNED.fullmatch(line.strip(" -")), f"{path.name}: {line}"
    checkouts = [s for s in steps(project) if s.get("uses", "").startswith("actions/checkout")]
    assert checkouts
    assert all(s["with"] == {"persist-credentials": False} for s in checkouts)


def test_a_version_that_waits_for_approval_keeps_no_monitor_waiting(project):
    """A run that waits for a person holds the group of its workflow, so the cycle has none."""
    jobs = workflows(project)["cycle.yml"]["jobs"]
    assert {name: job["concurrency"] for name, job in jobs.items() if name != "unregistered"} == {
        "monitor": "cycle", "cycle": "promote-staging", "production": "promote-production",
        "deploy-staging": "deploy-staging", "deploy-production": "deploy-production",
    }  # fmt: skip


def test_secrets_are_given_to_verbs_and_never_to_a_pull_request(project):
    """No action sees them, and the environment is made without."""
    guard, given = "github.event_name != 'pull_request' && ", 0
    for name, workflow in workflows(project).items():
        runs = github(project)[name.removesuffix(".yml")].jobs
        around = [workflow | {"jobs": {}}, *(j | {"steps": []} for j in workflow["jobs"].values())]
        assert "secrets." not in str(around), name
        for key, job in workflow["jobs"].items():
            for step in job["steps"]:
                secret = [v for v in step.get("env", {}).values() if "secrets." in v]
                if "JOURNAL_URL" in step.get("env", {}):
                    asked = {*facts(project)["secrets"], *variants.STORE["secrets"]}
                    assert asked | {"EVENTS_SECRET", "MODEL_TRUSTED_KEY"} <= {*step["env"]}
                trains = step.get("run") in ("make train", "make cycle")
                assert ("MODEL_SIGNING_KEY" in step.get("env", {})) == trains, "nothing else signs"
                assert str(step).count("secrets.") == len(secret), "in env: alone"
                if secret:
                    given += 1
                    assert re.match(r"make |python3 scripts/propose", step["run"])
                    safe = "pull request" not in runs[key].runs
                    safe = safe or "github.event_name != 'pull_request'" in step.get("if", "")
                    assert safe or all(v.startswith("${{ " + guard) for v in secret), step
        for variable in variants.STORE["variables"]:
            assert (variable in workflow.get("env", {})) == (name in ("ci.yml", "cycle.yml"))
    assert given > 9


def test_jobs_are_bounded_and_have_no_rights(project):
    for name, workflow in workflows(project).items():
        assert workflow["permissions"] == {}, name
        assert ("concurrency" in workflow) == (name in ("ci.yml", "update.yml")), name
        for key, job in workflow["jobs"].items():
            promotes = [re.search(r"promote ENV=(\w+)", str(s.get("run"))) for s in job["steps"]]
            for found in filter(None, promotes):
                assert job["environment"] == key == found[1], "its approval is the provider's"
                asked = "ci-promote" in found.string
                assert asked == (key == "production"), "production asks who approved"
            assert job["timeout-minutes"] <= 120
            more = {"issues": "write"} if name == "update.yml" else {}
            more = {"actions": "read"} if key == "production" else more
            more = {"actions": "read"} if key.startswith("rollback-") else more
            pushes = "make push" in str(job["steps"])
            signs = {"packages": "write", "id-token": "write", "attestations": "write"}
            more = signs if pushes else more
            assert job["permissions"] in ({}, {"contents": "read"} | more)
            own = {"RUNNER"} | ({key.upper().replace("-", "_")} if "deploy-" in key else set())
            assert job["runs-on"] in {f"${{{{ vars.{name} || 'ubuntu-24.04' }}}}" for name in own}
            if key.startswith(("deploy-", "rollback-")):
                place = key.partition("-")[2]
                assert job["concurrency"] == f"deploy-{place}", "one at a time"
                assert job["environment"] == key.replace("rollback-", "")
                other = {"staging": "PRODUCTION", "production": "STAGING"}[place]
                assert other not in str(job), "it is given what its environment needs"
