"""A search: forward in time, resumable, and its best a candidate like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import randint
from sklearn.preprocessing import StandardScaler

from flight_delays import bundle as bundles
from flight_delays import settings
from flight_delays.cli import lifecycle
from flight_delays.errors import UserError
from flight_delays.evaluation import mattered
from flight_delays.evaluation.metric import MAIN
from flight_delays.project import model
from flight_delays.registry.base import Trial
from flight_delays.registry.store import connect
from flight_delays.training import fitting, tune
from flight_delays.training.snapshots import Snapshot, snapshot

from .interrupted import interrupted_at

(STEP,) = [name.lower() for name in vars(model) if name.startswith("RandomForest")]
LEAF, DEPTH = f"{STEP}__min_samples_leaf", f"{STEP}__max_depth"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    """One process, a folder of the test's own, and a small space."""
    monkeypatch.setenv("ENGINE_WORKERS", "1")
    monkeypatch.setattr(model, "SEARCH", {LEAF: [5, 50, 500], DEPTH: [None, 3]}, raising=False)


@pytest.fixture
def rows() -> Snapshot:
    return snapshot(settings.load())


def search(rows: Snapshot, trials: int, **train: Any) -> tune.Found:
    return tune.search(settings.load(train=train), rows, trials)


@pytest.mark.problem
def test_trials_are_judged_before_the_rows_of_the_gates(
    rows: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, real = [], tune.judge

    def seen(frame: pd.DataFrame, train: settings.Train) -> Any:
        judged.append((frame, train.parameters))
        return real(frame, train)

    monkeypatch.setattr(tune, "judge", seen)
    found = search(rows, 3)
    assert [trial.number for trial in found.trials] == [0, 1, 2]
    assert found.trials[0].parameters == {LEAF: 10, DEPTH: None}
    assert [parameters for _, parameters in judged] == [
        {},
        *(trial.parameters for trial in found.trials[1:]),
    ]
    early, late = fitting.split(rows.read(), settings.load().train)
    for frame, _ in judged:
        assert len(frame) == len(early)
        assert not {*map(tuple, frame.to_numpy())} & {*map(tuple, late.to_numpy())}
    assert found.best.metrics[MAIN] in [trial.metrics[MAIN] for trial in found.trials]
    mattered.draw(found.trials, Path("reports/tune.png"))
    assert Path("reports/tune.png").stat().st_size > 5000


def test_a_search_goes_on_where_it_was_stopped(
    rows: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, calls = interrupted_at(3, tune.judge)
    monkeypatch.setattr(tune, "judge", judge)
    with pytest.raises(KeyboardInterrupt):
        search(rows, 4)
    assert len(list(tune.WORK.glob("*/*.json"))) == 2
    found = search(rows, 4)
    assert (len(calls), len(found.trials)) == (5, 4)
    assert search(rows, 4) == found
    assert search(rows, 3).trials == found.trials[:3]
    assert len(calls) == 5, "the trials are the same however many are asked for"
    search(rows, 1, folds=1)
    assert len(calls) == 6, "other settings are another search"


def test_each_set_of_parameters_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    in_force = {LEAF: 50, DEPTH: None}
    tried = list(tune._candidates(in_force, 0))
    assert len(tried) == 5
    assert in_force not in tried
    assert all(tried.count(one) == 1 for one in tried)
    monkeypatch.setattr(model, "SEARCH", {LEAF: randint(1, 4)})
    drawn = [one[LEAF] for one in tune._candidates({LEAF: 10}, 0)]
    assert sorted(drawn) == [1, 2, 3]
    assert all(type(value) is int for value in drawn), "what settings.toml can hold"


def test_a_trial_that_fails_is_told_and_the_others_go_on(
    rows: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "SEARCH", {LEAF: [-1, 20]})
    found = search(rows, 20)
    (failed,) = [trial for trial in found.trials if trial.error]
    assert failed.parameters == {LEAF: -1}
    assert "min_samples_leaf" in failed.error
    assert "\n" not in failed.error
    assert (len(found.trials), found.best.error) == (3, "")
    lifecycle.show_trials(found.trials, mattered.shares(found.trials))
    with pytest.raises(UserError, match=r"^all of the 1 trials failed; the first: project/"):
        search(rows, 1, parameters={LEAF: -2})
    with pytest.raises(UserError, match="no trial was done within 0 seconds"):
        tune.search(settings.load(train={"seed": 1}), rows, 2, 0)


def test_a_space_that_is_wrong_is_named(rows: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    for space, said in (
        ({"forest__depth": [1]}, "SEARCH: forest__depth is no parameter"),
        ({f"{STEP}__max_dept": [1]}, f"is {DEPTH}"),
        ({LEAF: 5}, "SEARCH: "),
        ({LEAF: [StandardScaler()]}, r"settings\.toml cannot hold"),
        ({}, r'add it, such as SEARCH = \{"randomforest'),
    ):
        monkeypatch.setattr(model, "SEARCH", space)
        with pytest.raises(UserError, match=said) as error:
            search(rows, 2)
        assert "\n" not in str(error.value)
    monkeypatch.delattr(model, "SEARCH")
    with pytest.raises(UserError, match="SEARCH does not say which parameters to try"):
        search(rows, 2)
    with pytest.raises(UserError, match=r"^\[train\] parameters: depth is no parameter"):
        fitting.judge(rows.read(), settings.load(train={"parameters": {"depth": 1}}).train)


def test_parameters_of_the_settings_are_those_of_the_model(rows: Snapshot) -> None:
    Path("settings.toml").write_text(f'[train]\nparameters = {{ {DEPTH} = "None", {LEAF} = 70 }}\n')
    known = settings.load()
    assert known.train.parameters == {DEPTH: None, LEAF: 70}
    made = fitting.judge(rows.read(), known.train).refit(0)
    assert made.model.get_params()[LEAF] == 70
    best = tune.Found([], Trial(1, {LEAF: 20, DEPTH: None}, {}, 0.0), True)
    kept = tune.settings_of(best, known)
    Path("settings.toml").write_text(tune.toml(kept))
    assert settings.load().train == kept.train


@pytest.mark.parametrize("better", [True, False])
def test_the_best_becomes_a_version_if_it_is_better(
    better: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model, "SEARCH", {LEAF: [20, 21]})
    real = tune.search

    def found(*given: Any) -> tune.Found:
        trials = real(*given).trials
        return tune.Found(trials, trials[1], better)

    monkeypatch.setattr(tune, "search", found)
    lifecycle.tune(trials=2)
    said, registry = capsys.readouterr().out, connect(settings.load())
    assert "explains" in said
    if not better:
        assert "nothing is trained" in said
        assert registry.numbers() == []
        return
    assert "[train]\nparameters = { " in said
    bundle = bundles.load(registry.pull("1", Path("var/versions")))
    assert bundle.manifest.train["parameters"][LEAF] in (20, 21)
    assert registry.alias("test") == "1"


def test_what_mattered_is_what_moves_the_metric() -> None:
    random = np.random.default_rng(0)
    trials = [
        Trial(i, {"a": i % 3, "b": float(random.random()), "c": None}, {MAIN: float(i % 3)}, 1.0)
        for i in range(30)
    ]
    found = mattered.shares([*trials, Trial(30, {"a": 9, "b": 9, "c": None}, {}, 1.0, "no")])
    assert next(iter(found)) == "a"
    assert found["a"] == pytest.approx(1.0)
    assert found["b"] < 0.2
    assert found["c"] == 0
