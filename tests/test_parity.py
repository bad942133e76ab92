"""Law 7: the pipelines of every provider are the same graph of jobs."""

import os
import runpy
import subprocess

import pytest
from harness import copy
from read_pipelines import Job, azure, facts, github, gitlab
from variants import STORE, choices

READ = {"github": github, "gitlab": gitlab, "azure": azure}


@pytest.mark.parametrize("registry", choices("model_registry"))
def test_what_is_asked_for_by_setup_is_what_the_pipelines_read(registry, template, tmp_path):
    project = copy(template, tmp_path / "it", model_registry=registry)
    told, known = runpy.run_path(str(project / "scripts/registry.py")), facts(project)
    assert told["SWITCH"] == known["switch"]
    assert [*told["VARIABLES"]] == known["variables"]
    assert set().union(*told["LOGINS"]) == {*known["secrets"]}
    asked = (project / "scripts/ci.py").read_text()
    assert all(f'"{name}": "' in asked for name in [*STORE["variables"], *STORE["secrets"]])
    told = runpy.run_path(str(project / "scripts/deployment.py"))
    text = (project / ".github/workflows/ci.yml").read_text()
    assert f"secrets.{told['FILE']}_PRODUCTION" in text


def test_a_pipeline_that_is_told_no_team_keeps_its_versions(template, tmp_path):
    project = copy(template, tmp_path / "it", model_registry="wandb")
    for told, offline in (
        ({}, False), ({"CI": "true"}, True), ({"TF_BUILD": "True"}, True),
        ({"CI": "true", "WANDB_ENTITY": ""}, True), ({"CI": "true", "WANDB_ENTITY": "us"}, False),
    ):  # fmt: skip
        own = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "WANDB_MODE")}
        said = subprocess.run(
            ["make", "--dry-run", "ui"], cwd=project, env=own | told, capture_output=True, text=True
        )
        assert ("WANDB_MODE=offline" in said.stdout) == offline, told


@pytest.mark.parametrize("ci", READ)
def test_what_nobody_set_of_an_object_store_reaches_no_client(ci, template, tmp_path):
    """A pipeline passes it on as empty; botocore would take that for a region."""
    project = copy(template, tmp_path / "it", ci=ci)
    (project / "local.mk").write_text("told: ; @env\n")
    names = [*STORE["variables"], *STORE["secrets"]]
    for given, left in ("", []), ("it", names):
        own = os.environ | dict.fromkeys(names, given)
        command = ["make", "--silent", "told"]
        said = subprocess.run(command, cwd=project, env=own, capture_output=True, text=True).stdout
        assert [name for name in names if f"\n{name}=" in f"\n{said}"] == left


@pytest.fixture(scope="module", params=choices("model_registry"))
def graphs(request, template, tmp_path_factory):
    home, registry = tmp_path_factory.mktemp("parity"), request.param
    return {
        ci: read(copy(template, home / ci, ci=ci, model_registry=registry))
        for ci, read in READ.items()
    }


def test_every_provider_is_compared():
    assert {*READ, "none"} == set(choices("ci"))


def test_the_graph_that_is_compared_says_something(graphs):
    """So that an empty reading of each cannot pass for parity."""
    jobs = graphs["github"]["ci"].jobs
    assert jobs["train"].verbs == ("data", "train", "bundle", "show")
    assert jobs["audit"].verbs == ("audit",)
    assert not [name for name, job in jobs.items() if "audit" in job.needs]
    assert jobs["build"].verbs == ("image", "smoke", "sbom", "load", "push")
    assert jobs["production"].needs == {"train", "staging"}
    assert {name for name, job in jobs.items() if "pull request" in job.runs} == {
        "check", "audit", "train", "build",
    }  # fmt: skip
    assert jobs["unregistered"].runs == {"push without a registry"}
    assert jobs["production"].runs == {"push", "push with targets"}
    for name in ("staging", "production"):
        assert jobs[f"deploy-{name}"] == Job(
            ("ci-deploy",), frozenset({name}), f"deploy-{name}", frozenset({"push with targets"})
        )
    assert {name: job.verbs for name, job in graphs["github"]["cycle"].jobs.items()} == {
        "unregistered": (),
        "monitor": ("monitor",),
        "cycle": ("cycle", "show", "load"),
        "production": ("ci-promote",),
        "deploy-staging": ("ci-deploy",),
        "deploy-production": ("ci-deploy",),
    }
    assert {
        name: (job.verbs, job.environment, "push" in job.runs)
        for name, job in graphs["github"]["rollback"].jobs.items()
    } == {
        "rollback-staging": (("ci-rollback",), "staging", False),
        "rollback-production": (("ci-rollback",), "production", True),
    }
    assert graphs["github"]["rollback"].triggers == frozenset()
    assert [graphs["github"][name].schedule for name in ("ci", "cycle", "update")] == [
        None, "17 5 * * *", "41 4 * * 1",
    ]  # fmt: skip


@pytest.mark.parametrize("other", ["gitlab", "azure"])
@pytest.mark.parametrize("pipeline", ["ci", "cycle", "update", "rollback"])
def test_jobs_needs_environments_and_triggers_are_the_same(graphs, other, pipeline):
    ours, theirs = graphs["github"][pipeline], graphs[other][pipeline]
    assert dict(theirs.jobs) == dict(ours.jobs)
    assert theirs.triggers == ours.triggers
    assert theirs.schedule == ours.schedule
