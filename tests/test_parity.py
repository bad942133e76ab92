"""Law 7: the pipelines of every provider are the same graph of jobs."""

import pytest
from harness import copy
from read_pipelines import azure, github, gitlab
from variants import choices

READ = {"github": github, "gitlab": gitlab, "azure": azure}


@pytest.fixture(scope="module")
def graphs(template, tmp_path_factory):
    home = tmp_path_factory.mktemp("parity")
    return {ci: read(copy(template, home / ci, ci=ci)) for ci, read in READ.items()}


def test_every_provider_is_compared():
    assert {*READ, "none"} == set(choices("ci"))


def test_the_graph_that_is_compared_says_something(graphs):
    """So that an empty reading of each cannot pass for parity."""
    jobs = graphs["github"]["ci"].jobs
    assert jobs["train"].verbs == ("data", "train", "bundle", "show")
    assert jobs["build"].verbs == ("image", "smoke", "load", "push")
    assert jobs["production"].needs == {"train", "staging"}
    assert {name for name, job in jobs.items() if "pull request" in job.runs} == {
        "check", "train", "build",
    }  # fmt: skip
    assert jobs["unregistered"].runs == {"push without a registry"}
    assert jobs["production"].runs == {"push"}
    assert {name: job.verbs for name, job in graphs["github"]["cycle"].jobs.items()} == {
        "unregistered": (),
        "monitor": ("monitor",),
        "cycle": ("cycle", "show", "load"),
        "production": ("ci-promote",),
    }
    assert [graphs["github"][name].schedule for name in ("ci", "cycle", "update")] == [
        None, "17 5 * * *", "41 4 * * 1",
    ]  # fmt: skip


@pytest.mark.parametrize("other", ["gitlab", "azure"])
@pytest.mark.parametrize("pipeline", ["ci", "cycle", "update"])
def test_jobs_needs_environments_and_triggers_are_the_same(graphs, other, pipeline):
    ours, theirs = graphs["github"][pipeline], graphs[other][pipeline]
    assert dict(theirs.jobs) == dict(ours.jobs)
    assert theirs.triggers == ours.triggers
    assert theirs.schedule == ours.schedule
