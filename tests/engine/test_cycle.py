"""The loop: what a turn sees, and what it does about it."""

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flight_delays import bundle as bundles
from flight_delays import cycle, settings
from flight_delays.errors import StoreUnavailable, UserError
from flight_delays.project.target import TARGET
from flight_delays.registry import base, history, promote
from flight_delays.registry import store as registry
from flight_delays.registry.base import Registry
from flight_delays.serving.journal import store as journal
from flight_delays.serving.journal.tables import outcome_line
from flight_delays.training import snapshots, train

from ..helpers import WINDOW, happen

FREE = {"load": False, "min_rows": 50, "unattended": True}
TRAIN = {"folds": 5, "windows": [1.0, 0.1]}


def kept(**gates: object) -> settings.Settings:
    watch = {"window": WINDOW, "threshold": 99.0}
    return settings.load(gates={**FREE, **gates}, monitor=watch, train=TRAIN)


@pytest.fixture
def known(trained: Path) -> Registry:
    """Version 1 is in every environment."""
    found = registry.connect(settings.load())
    for environment in ("staging", "production"):
        promote.promote(environment, kept(), found, version="1")
    return found


@pytest.mark.problem
def test_a_fall_is_answered_and_up_to_production(known: Registry) -> None:
    happen(10, right=0.0)
    done = cycle.turn(kept(), known)
    assert (done.verdict, done.version) == ("retrain", "2"), done.reason
    assert done.promoted == ["test", "staging", "production"]
    assert known.alias("production") == "2"
    manifest = bundles.load(known.pull("2", Path("var/versions"))).manifest
    assert manifest.judged is not None
    assert str(manifest.rows) in manifest.judged.tried
    assert manifest.judged.models == 5


def test_what_is_not_better_is_compared_again_when_labels_came(known: Registry) -> None:
    happen(10, right=0.0)
    done = cycle.turn(kept(margin=1e9), known)
    assert (done.verdict, done.version, done.promoted) == ("retrain", "", [])
    assert "needed: 50.0% (after a fall)" in done.reason
    again = cycle.turn(kept(), known)
    assert again.version == ""
    assert "0 labelled rows came since a candidate was compared" in again.reason
    happen(4, right=0.0, start=datetime(2032, 1, 1))
    assert cycle.turn(kept(), known).version == "2"


def test_a_training_that_fails_is_not_tried_every_night(
    known: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it was the store that was away."""
    happen(10, right=0.0)
    with monkeypatch.context() as patch:
        patch.setenv("DATA_STORE", "nowhere://it")
        with pytest.raises(StoreUnavailable, match="nowhere"):
            cycle.turn(kept(), known)

    def fail(*_: object, **__: object) -> None:
        raise UserError("the disk is full of cats")

    with monkeypatch.context() as patch:
        patch.setattr(cycle, "train", fail)
        with pytest.raises(UserError, match="cats"):
            cycle.turn(kept(), known)
    assert "0 labelled rows came since" in cycle.turn(kept(), known).reason
    with monkeypatch.context() as patch:
        patch.setattr(cycle, "choose", lambda *_: fail())
        with pytest.raises(UserError, match="cats"):
            cycle.turn(settings.load(gates=FREE, cycle={"rows": 1}, train=TRAIN), known, force=True)


def test_production_is_left_to_people_unless_they_say_so(known: Registry) -> None:
    happen(10, right=0.0)
    done = cycle.turn(kept(unattended=False), known)
    assert done.promoted == ["test", "staging"]
    assert known.alias("production") == "1"
    happen(4, right=0.0, start=datetime(2032, 1, 1))
    done = cycle.turn(kept(unattended=False, margin=1e9), known)
    assert done.version == "", done.reason
    assert "version 2 waits in staging: make promote ENV=production VERSION=2" in done.reason


@pytest.mark.parametrize("unattended", [pytest.param(True, marks=pytest.mark.problem), False])
def test_an_earlier_version_that_does_better_comes_back(
    known: Registry, monkeypatch: pytest.MonkeyPatch, unattended: bool
) -> None:
    """Better than what is served, and than a candidate that learnt nothing."""
    frame = snapshots.snapshot(kept()).read()
    wrong = snapshots.store(frame.assign(**{TARGET: frame[TARGET].to_numpy()[::-1]}), "reversed")
    assert train.train(kept(), known, wrong).version == "2"
    for environment in ("staging", "production"):
        history.make(base.Move(environment, "promote", "2", "1", "me", ""), known)
    happen(10, right=1.0)
    judge = cycle.judge

    def nothing_learnt(*given: Any, **named: Any) -> Any:
        found = judge(*given, **named)
        return dataclasses.replace(found, scores=found.scores[::-1])

    monkeypatch.setattr(cycle, "judge", nothing_learnt)
    done = cycle.turn(kept(unattended=unattended), known)
    assert (done.back, done.version) == ("1", ""), done.reason
    assert known.alias("production") == ("1" if unattended else "2")
    if not unattended:
        assert "make promote ENV=staging VERSION=1" in done.reason


def test_a_label_that_nobody_knows_stops_nothing(known: Registry) -> None:
    if bundles.load(Path("var/versions/1")).manifest.classes is None:
        pytest.skip("a regression")
    happen(10, right=1.0)
    log = journal.Journal(settings.load().journal.url)
    log.insert_outcomes([outcome_line(f"2031{0:028}", 7)])
    log.close()
    done = cycle.turn(kept(), known)
    assert done.verdict == "ok", done.reason


@pytest.mark.parametrize(
    ("where", "passed"),
    [("train", 0), ("promote", 0), ("promote", 1), ("promote", 2), ("tag", 0), ("tag", 1)],
)
def test_a_killed_turn_is_run_again(
    known: Registry, monkeypatch: pytest.MonkeyPatch, where: str, passed: int
) -> None:
    """Before the training, before each promotion, and before the answer is noted."""
    happen(10, right=0.0)
    holder = known if where == "tag" else cycle
    real, calls = getattr(holder, where), []

    def die(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) > passed:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(holder, where, die)
        with pytest.raises(KeyboardInterrupt):
            cycle.turn(kept(), known)
    done = cycle.turn(kept(), known)
    if (where, passed) == ("tag", 1):  # all was done but to note it: now version 2 is watched
        assert (known.alias("production"), done.version) == ("2", "")
    else:
        assert done.promoted == ["test", "staging", "production"]
    assert not known.moves("production", closed=False)
