"""Gates say no, moves are kept, and there is a way back."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from flight_delays import errors, settings
from flight_delays.bundle import load as load_bundle
from flight_delays.errors import UserError
from flight_delays.evaluation import metric, unseen
from flight_delays.project.target import TARGET
from flight_delays.registry import base, gates, history, promote, status
from flight_delays.registry import store as registry
from flight_delays.registry.store import MlflowRegistry
from flight_delays.training import snapshots as data
from flight_delays.training import train

from ..helpers import copied

FREE = {"load": False, "min_rows": 50, "margin": -1e9}


def connect(**flags: dict[str, Any]) -> MlflowRegistry:
    found = registry.connect(settings.load(**flags))
    assert isinstance(found, MlflowRegistry)
    return found


@pytest.fixture(scope="module")
def home_of_three(twice_trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three versions of the same model."""
    with copied(twice_trained_home, tmp_path_factory.mktemp("three")) as folder:
        train.train(settings.load(), connect(), data.find(""))
    return folder


@pytest.fixture
def known(home_of_three: Path, tmp_path: Path) -> Iterator[MlflowRegistry]:
    """A registry of the test's own that knows three versions; the first holds `test`."""
    with copied(home_of_three, tmp_path):
        yield connect()


def hold(known: MlflowRegistry, environment: str, *versions: str) -> None:
    for version in versions:
        assert promote.promote(environment, settings.load(gates=FREE), known, version=version)


def test_a_version_walks_through_the_environments_and_back(known: MlflowRegistry) -> None:
    hold(known, "test", "2")
    hold(known, "staging", "1", "2", "3")
    hold(known, "production", "3")
    assert promote.promote("production", settings.load(gates=FREE), known, version="3") is None
    assert history.rollback("staging", known).to == "2"
    assert history.rollback("staging", known).to == "1"
    with pytest.raises(UserError, match=r"no earlier version"):
        history.rollback("staging", known)
    hold(known, "staging", "3")
    assert history.rollback("staging", known).to == "1"
    moves = known.moves("staging")
    assert [m.to for m in moves] == ["1", "2", "3", "2", "1", "3", "1"]
    assert all(m.by and m.at and m.commit for m in moves)


@pytest.fixture
def apart(known: MlflowRegistry) -> MlflowRegistry:
    """The same versions, where each environment is a registered model of its own."""
    return connect(model={"per_environment": True})


def test_each_environment_can_be_a_registered_model_of_its_own(
    known: MlflowRegistry, apart: MlflowRegistry
) -> None:
    assert apart.moves("production") == []
    assert apart.client.get_experiment_by_name(f"production.{apart.name}-moves") is None
    hold(apart, "staging", "3", "1", "2")
    hold(apart, "production", "2")
    assert history.rollback("staging", apart).to == "1"
    assert history.repair("staging", apart) == []
    assert (apart.alias("staging"), apart.alias("production")) == ("1", "2")
    assert [v.environments for v in apart.versions()] == [[], ["production"], ["test", "staging"]]
    assert known.alias("staging") is None
    assert not known.moves("production")


def test_who_may_not_write_to_production_does_not_change_it(
    known: MlflowRegistry, apart: MlflowRegistry, tmp_path: Path
) -> None:
    hold(apart, "staging", "2")
    hold(apart, "production", "2")
    hold(known, "production", "1")  # all that the common model's permission allows
    known.tag("2", "bundle", "forged")
    assert history.repair("production", apart) == []
    assert apart.alias("production") == "2"
    assert apart.pull("2", tmp_path / "served", "production").exists()
    with pytest.raises(errors.BundleError, match=r"not the one that was registered"):
        apart.pull("2", tmp_path / "forged")


def test_what_a_gate_reads_is_noted_where_the_environment_keeps_it(
    known: MlflowRegistry, apart: MlflowRegistry
) -> None:
    hold(apart, "staging", "2")
    known.tag("2", "load", "forged")
    assert apart.note("2", "load", "staging") == ""
    apart.tag("2", "load", "measured", "staging")
    assert (apart.note("2", "load", "staging"), known.note("2", "load")) == ("measured", "forged")
    with pytest.raises(UserError, match=r"staging\..* has no copy of version 1; `make promote"):
        apart.note("1", "load", "staging")


def test_what_is_no_copy_is_not_held(known: MlflowRegistry, apart: MlflowRegistry) -> None:
    hold(apart, "production", "1")
    model, version = f"production.{apart.name}", known.client.get_model_version(known.name, "1")
    known.client.create_model_version(model, str(version.source), version.run_id)
    known.client.set_registered_model_alias(model, "production", "2")
    assert apart.alias("production") is None
    history.repair("production", apart)
    assert apart.alias("production") == "1"


def test_a_move_without_a_promotion_brings_nothing_into_production(
    known: MlflowRegistry, apart: MlflowRegistry
) -> None:
    hold(apart, "production", "1")
    apart.close(apart.intend(base.Move("production", "promote", "2", "1", "eve", "")))
    with pytest.raises(UserError, match=r"keeps no version 2, .* delete its run"):
        history.repair("production", apart)
    assert apart.alias("production") == "1"


def test_the_bundle_that_was_gated_is_the_one_that_is_kept(
    known: MlflowRegistry, apart: MlflowRegistry
) -> None:
    digest = known.note("2", "bundle")
    known.tag("2", "bundle", "forged")
    apart.copy_into("production", "2", digest)
    assert apart.note("2", "bundle", "production") == digest
    with pytest.raises(errors.BundleError, match=r"is another bundle than version 2"):
        apart.copy_into("production", "2", "forged")


def test_who_may_only_read_sees_what_is_left_half_done(
    known: MlflowRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise errors.NotPermitted("registry: permission denied")

    hold(known, "staging", "2")
    known.intend(base.Move("staging", "promote", "3", "2", "me", ""))
    monkeypatch.setattr(known, "abandon", refuse)
    console = Console(record=True, width=200)
    status.show(known, console)
    said = console.export_text()
    assert "not repaired staging: registry: permission denied" in said
    assert "promote staging" in said


def test_what_waits_for_production_is_said(known: MlflowRegistry) -> None:
    def said() -> str:
        console = Console(record=True, width=200)
        status.show(known, console)
        return console.export_text()

    waits = "version 2 waits in staging for a person: `make promote ENV=production`"
    assert "waits" not in said()
    hold(known, "staging", "2")
    assert waits in said()
    hold(known, "production", "1")
    assert waits in said()
    hold(known, "production", "2")
    assert "waits" not in said()
    history.rollback("production", known)
    assert "waits" not in said()


@pytest.mark.problem
def test_rows_that_either_model_saw_do_not_judge(known: MlflowRegistry, tmp_path: Path) -> None:
    """A version is judged by rows that came later, and by those that judged its procedure."""
    free = settings.load(gates=FREE)
    frame = data.snapshot(free).read()
    bundle = load_bundle(known.pull("2", Path("var/versions")))
    assert bundle.manifest.judged is not None
    judged = bundle.manifest.judged.rows
    assert not data.later(frame, bundle.manifest.trained_until).any(), "it was fitted on all rows"
    assert 0 < judged < len(frame)
    candidate = gates.Candidate(bundle, "2", None, "")
    assert (
        f"on {judged:,} rows that it was not trained on"
        in gates.compare(candidate, frame, free, known).detail
    )
    old = load_bundle(
        shutil.copytree(known.pull("1", Path("var/versions")), tmp_path / "old" / "1")
    )
    for name in (unseen.JUDGED, unseen.TRAINED):
        (old.path / name).unlink(missing_ok=True)  # as those of 0.1.0
    old.manifest.trained_until = data.until(frame.iloc[: len(frame) - 60])
    scores = unseen.scores
    both = [np.isfinite(scores(b, frame)).reshape(len(frame), -1) for b in (bundle, old)]
    left = int((both[0].all(axis=1) & both[1].all(axis=1)).sum())
    assert 0 < left <= 60, "of equal rows some were trained on"
    free = settings.load(gates={**FREE, "min_rows": 10})
    candidate = gates.Candidate(bundle, "2", "1", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates.bundles, "load", lambda *_, **__: old)
        said = gates.compare(candidate, frame, free, known).detail
        assert f"on {left:,} rows that neither was trained on" in said
        if old.manifest.classes:
            old.manifest.classes = ["other", *old.manifest.classes[1:]]
            strict = settings.load(gates={"min_rows": 10**6})
            said = gates.compare(candidate, frame, strict, known).detail
            assert int(said.partition(" of ")[0]) < left, "only labels that both know"


@pytest.mark.problem
def test_a_model_that_is_worse_than_a_baseline_is_refused(known: MlflowRegistry) -> None:
    free = settings.load(gates=FREE)
    bundle = load_bundle(known.pull("2", Path("var/versions")))
    frame = data.snapshot(free).read()
    wrong = frame.assign(**{TARGET: frame[TARGET].to_numpy()[::-1]})
    scores = unseen.scores(bundle, frame)
    own = gates.Scored("version 2", 1 - scores if scores.ndim == 2 else -9 * scores, None)
    own = dataclasses.replace(own, classes=bundle.manifest.classes)
    gate = gates.compare_scores(own, None, wrong if scores.ndim == 1 else frame, free.gates)
    assert not gate.passed
    assert "a baseline without features has" in gate.detail


def test_a_gain_shows_in_the_brier_score_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better probabilities, and hits that are only likely to be more; never by chance alone."""
    random, n = np.random.default_rng(0), 600
    actual = random.integers(0, 2, n)
    frame = pd.DataFrame({TARGET: actual})
    limits = settings.load(gates={"min_rows": 300}).gates
    monkeypatch.setattr(gates, "METRIC", hits)
    monkeypatch.setattr(metric, "METRIC", hits)
    monkeypatch.setattr(metric, "GREATER_IS_BETTER", True)
    monkeypatch.setattr(gates, "groups_of", lambda _: None)

    def scored(signal: float, noise: float) -> gates.Scored:
        chance = 1 / (1 + np.exp(-signal * (2 * actual - 1) - noise * random.normal(size=n)))
        return gates.Scored("a", np.stack([1 - chance, chance], axis=1), [0, 1])

    sharp = scored(0.7, 1.0)
    blunt = dataclasses.replace(sharp, scores=0.5 + (sharp.scores - 0.5) / 4)  # as many hits
    right = np.flatnonzero(sharp.scores.argmax(axis=1) == actual)
    wrong = np.setdiff1d(np.arange(n), right)
    # Rows that change sides: more hits lost than won, and four won where one is lost.
    for changed, passed in (([*right[:3], *wrong[:1]], False), ([*right[:1], *wrong[:4]], True)):
        scores = sharp.scores.copy()
        scores[changed] = scores[changed, ::-1]
        gate = gates.compare_scores(dataclasses.replace(sharp, scores=scores), blunt, frame, limits)
        assert (gate.passed, "Brier" in gate.detail) == (passed, True), gate.detail
    passes = 0
    for _ in range(300):
        old, new = scored(0.7, 1.0), scored(0.7, 1.0)
        passes += gates.compare_scores(new, old, frame, limits).passed
    assert passes <= 0.08 * 300


def hits(actual: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(predicted.argmax(axis=1) == actual))


@pytest.mark.problem
def test_a_gain_and_a_loss_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    sign = 1.0 if metric.GREATER_IS_BETTER else -1.0
    monkeypatch.setattr(metric, "METRIC", lambda a, p: sign * float(np.mean(a == p)))
    actual = random.integers(0, 2, 1000)
    good = np.where(random.random(1000) < 0.9, actual, 1 - actual)
    poor = np.where(random.random(1000) < 0.7, actual, 1 - actual)
    gain = metric.gain(actual, good, poor)
    assert 0.15 < gain.value < 0.25
    assert gain.confidence(0.1) > 0.99 > 0.01 > gain.confidence(0.3)
    assert metric.gain(actual, poor, good).surely_below(0.0)
    same = metric.gain(actual, good, good)
    assert (same.confidence(0.0), same.confidence(1e-9)) == (1.0, 0.0)
