"""Law 7: what each provider's pipelines do is seen by running them, and is the same."""

import re
from itertools import product

import pytest
from read_pipelines import CHECKED, MAIN, SERVER, said
from run_pipelines import RUNNERS
from variants import choices

pytestmark = pytest.mark.heavy
REGISTRY = {"MLFLOW_TRACKING_URI": SERVER, "WANDB_ENTITY": SERVER}
SECRET = {"MLFLOW_TRACKING_TOKEN": "secret", "WANDB_API_KEY": "secret"}
TARGETS = {"DEPLOY_STAGING": "ubuntu-24.04", "DEPLOY_PRODUCTION": "ubuntu-24.04"}
"""Names of runners, of which act must know the label."""
QUICK = {("github", "mlflow"), ("gitlab", "wandb"), ("azure", "mlflow")}
"""Names are all that a registry changes: each is run in one provider's pipelines or two."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(pair, marks=[] if pair in QUICK else [pytest.mark.full], id="-".join(pair))
        for pair in product(RUNNERS, choices("model_registry"))
    ],
)
def run_pipeline(request, template, tmp_path_factory):
    ci, registry = request.param
    return RUNNERS[ci](template, tmp_path_factory.mktemp("pipelines"), registry)


def test_a_push_is_checked_trained_tried_promoted_and_deployed(run_pipeline):
    done = run_pipeline("ci", group=REGISTRY | SECRET | TARGETS)
    assert done.good, done.out[-3000:]
    after = {" ".join(call.split()[:2]): i for i, call in enumerate(done.calls)}
    for place, verb in (("staging", "promote"), ("production", "ci-promote")):
        assert after[f"{verb} ENV={place}"] < after[f"ci-deploy ENV={place}"]
    assert [call.split()[0] for call in done.calls].count("audit") == 1
    done.calls[:] = [call for call in done.calls if not call.startswith(("audit", "ci-deploy"))]
    assert said(done.calls) == [*MAIN, "promote", "ci-promote"]
    load, _, staging, production = done.calls[-4:]
    assert f" VERSION=7 BUNDLE= BY= URI={SERVER} TOKEN=secret" in load
    assert re.fullmatch(r"promote ENV=staging .*\| VERSION=7 BUNDLE= BY=.* TOKEN=secret", staging)
    assert re.fullmatch(r"ci-promote ENV=production .*\| VERSION=7 .* TOKEN=secret", production)
    assert "nothing was registered" not in done.out


def test_without_a_registry_a_push_promotes_nothing_and_says_so(run_pipeline):
    done = run_pipeline("ci")
    assert done.good, done.out[-3000:]
    assert said(done.calls) == MAIN
    assert " VERSION= BUNDLE=build/bundle BY= URI= TOKEN=" in done.calls[-2]
    assert re.search("set the variable (MLFLOW_TRACKING_URI|WANDB_ENTITY) to your", done.out)


def test_a_pull_request_never_reaches_the_registry(run_pipeline):
    done = run_pipeline("ci", "pull request", REGISTRY | SECRET)
    assert done.good, done.out[-3000:]
    assert said(done.calls) == CHECKED
    assert all(call.endswith("URI= TOKEN=") for call in done.calls)


@pytest.mark.parametrize("step", ["check", "train", "smoke"])
def test_what_fails_stops_all_that_needs_it(run_pipeline, step):
    done = run_pipeline("ci", group=REGISTRY, fails=step)
    assert not done.good
    assert said(done.calls) == CHECKED[: CHECKED.index(step) + 1]


def test_a_vulnerability_is_red_and_stops_nothing(run_pipeline):
    done = run_pipeline("ci", group=REGISTRY, fails="audit")
    assert (done.good, said(done.calls)) == (False, [*MAIN, "promote", "ci-promote"]), done.out


def test_the_cycle_runs_after_every_green_monitor(run_pipeline):
    """Whatever it said: what is to be done is decided by `make cycle`."""
    done = run_pipeline("cycle", "schedule", REGISTRY)
    assert done.good, done.out[-3000:]
    assert said(done.calls) == ["monitor", "cycle", "load", "ci-promote"]
    assert "nothing is deployed to production; the variable DEPLOY_PRODUCTION is not" in done.out
    assert re.match(r"ci-promote ENV=production .*\| VERSION=8 ", done.calls[-1])


def test_what_the_cycle_promoted_is_deployed(run_pipeline):
    done = run_pipeline("cycle", "schedule", REGISTRY | TARGETS)
    assert done.good, done.out[-3000:]
    places = {call.split()[1] for call in done.calls if call.startswith("ci-deploy")}
    assert places == {"ENV=staging", "ENV=production"}


def test_a_rollback_by_hand_is_one_verb(run_pipeline):
    done = run_pipeline("rollback", "by hand", REGISTRY | SECRET | TARGETS)
    assert done.good, done.out[-3000:]
    (call,) = done.calls
    assert re.fullmatch(r"ci-rollback ENV=production .* TOKEN=secret", call)


def test_without_a_new_version_nothing_is_promoted(run_pipeline):
    """Not what staging holds either."""
    done = run_pipeline("cycle", "schedule", REGISTRY, version="")
    assert (done.good, said(done.calls)) == (True, ["monitor", "cycle"]), done.out[-3000:]


def test_the_cycle_is_red_when_nothing_was_watched(run_pipeline):
    done = run_pipeline("cycle", "schedule")
    assert (done.good, done.calls) == (False, []), done.out[-3000:]
    assert re.search("set the variable (MLFLOW_TRACKING_URI|WANDB_ENTITY) to your", done.out)
    done = run_pipeline("cycle", "schedule", REGISTRY, fails="monitor")
    assert (done.good, said(done.calls)) == (False, ["monitor"])


def test_a_cycle_that_failed_promotes_nothing(run_pipeline):
    done = run_pipeline("cycle", "schedule", REGISTRY, fails="cycle")
    assert (done.good, said(done.calls)) == (False, ["monitor", "cycle"])


def test_an_update_is_made_and_then_proposed(run_pipeline):
    """It is proposed though the update left work."""
    for fails in ("nothing", "update"):
        token = "team" if fails == "nothing" else ""
        done = run_pipeline(
            "update", "schedule", {"UPDATE_TOKEN": token} if token else {}, fails=fails
        )
        assert done.good == (fails == "nothing"), done.out[-3000:]
        assert said(done.calls) == ["update", "propose"]
        assert done.calls[-1] == f"propose scripts/propose.py TOKEN={token}"
