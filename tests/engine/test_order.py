"""Without a time the order of the rows is all there is: it is checked, and no gate trusts it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flight_delays import bundle as bundles
from flight_delays import settings, sources
from flight_delays.evaluation import evaluate, unseen
from flight_delays.project import data as project
from flight_delays.project.target import TARGET
from flight_delays.registry import gates
from flight_delays.registry import store as registry
from flight_delays.registry.store import MlflowRegistry
from flight_delays.training import order, train
from flight_delays.training import snapshots as data

pytestmark = pytest.mark.problem

CUT = 0.8


@pytest.fixture
def timeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of arrival takes the place of the time, and is what is split by."""
    for module in (data, order, unseen, evaluate):
        monkeypatch.setattr(module, "TIME", None)
    monkeypatch.setattr(project, "split", split)


def split(frame: pd.DataFrame, holdout: float = 1 - CUT) -> tuple[pd.DataFrame, pd.DataFrame]:
    cut = round(len(frame) * (1 - holdout))
    return frame.iloc[:cut], frame.iloc[cut:]


def arrived(sample: pd.DataFrame, by: str = "", seed: int = 0, rows: int = 0) -> pd.DataFrame:
    """The rows as in a snapshot: shuffled, `rows` of them if that is given, then sorted by `by`."""
    frame = data.labelled(sample, "rows")
    frame = frame.sample(n=rows or len(frame), random_state=seed)
    frame = frame.sort_values(by) if by else frame
    at = pd.to_datetime(np.arange(len(frame)), unit="us").as_unit("us")
    return frame.assign(**{data.ARRIVAL: at}).reset_index(drop=True)


def bundle(folder: Path, frame: pd.DataFrame, early: pd.DataFrame) -> Any:
    """All that `newer` looks at."""
    unseen.write(folder, early[:0], np.zeros((0, 2)), early)
    manifest = SimpleNamespace(trained_until=data.until(frame.loc[early.index]))
    return SimpleNamespace(path=folder, version="1", manifest=manifest)


def test_a_sorted_table_is_told_and_a_shuffled_one_is_not(
    timeless: None, sample: pd.DataFrame, record_property: Callable[[str, str], None]
) -> None:
    for name in (TARGET, data.FIELDS[-1]):
        (told,) = order.warnings(*split(arrived(sample, by=name)))
        assert f": {name} differs most" in told
        assert order.SHUFFLE in told
        assert "\n" not in told
    seeds = 200
    alarms = sum(bool(order.warnings(*split(arrived(sample, "", s, 300)))) for s in range(seeds))
    record_property("said", f"rows in random order called sorted: {alarms} of {seeds} times")
    assert alarms <= 6, "1 % at most: more than 6 of 200 would come by chance in 1 of 200 runs"


def test_rows_of_the_journal_are_not_called_sorted(timeless: None, sample: pd.DataFrame) -> None:
    early, late = split(arrived(sample, by=TARGET))
    assert order.sorted_by(early, late)
    late[data.ARRIVAL] += pd.Timedelta(days=20_000)
    assert not order.sorted_by(early, late)


def test_a_random_split_is_told(timeless: None, sample: pd.DataFrame, tmp_path: Path) -> None:
    frame = arrived(sample)
    late = frame.sample(frac=1 - CUT, random_state=0)
    early = frame.drop(late.index)
    (told,) = order.warnings(early, late)
    assert f"of the {len(late):,} rows held out, " in told
    assert "let split() in project/data.py hold out the newest" in told


def test_the_hash_of_a_row_is_that_of_its_values(
    timeless: None, sample: pd.DataFrame, tmp_path: Path
) -> None:
    frame = arrived(sample)
    hashes = unseen.row_hashes(frame)
    assert (str(hashes.dtype), hashes.shape) == ("uint64", (len(frame),))
    turned = frame.iloc[::-1].reset_index(drop=True)
    np.testing.assert_array_equal(unseen.row_hashes(turned), hashes[::-1])
    np.testing.assert_array_equal(unseen.row_hashes(frame.astype(object)), hashes)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    read = data.typed(sources.read(str(tmp_path / "rows.csv")), "rows.csv")
    np.testing.assert_array_equal(unseen.row_hashes(read), hashes)
    other = frame.assign(**{TARGET: frame[TARGET].to_numpy()[::-1]})
    changed = (frame[TARGET] != other[TARGET]).to_numpy()
    np.testing.assert_array_equal(unseen.row_hashes(other) != hashes, changed)


def test_rows_that_were_trained_on_judge_nobody_in_any_order(
    timeless: None, sample: pd.DataFrame, tmp_path: Path
) -> None:
    twice = pd.concat([sample, sample], ignore_index=True)  # equal rows on both sides
    frame = arrived(twice)
    early, late = split(frame)
    old = bundle(tmp_path / "old", frame, early)
    np.testing.assert_array_equal(unseen.newer(frame, old), np.arange(len(frame)) >= len(early))

    again = arrived(twice, seed=1)
    left = again[unseen.newer(again, old)]
    copies = pd.Series(unseen.row_hashes(left)).value_counts()
    held = pd.Series(unseen.row_hashes(late)).value_counts().reindex(copies.index)
    assert 0 < len(left) < len(late)
    assert (copies <= held).all()

    (old.path / unseen.TRAINED).unlink()
    np.testing.assert_array_equal(unseen.newer(again, old), np.arange(len(frame)) >= len(early))


def test_a_reordered_table_is_judged_on_rows_that_neither_has_seen(
    timeless: None, project: Path, sample: pd.DataFrame, record_property: Callable[[str, str], None]
) -> None:
    known = registry.connect(settings.load())
    force = settings.load(gates={"min_rows": 20, "margin": -1e9})
    tables = [data.store(arrived(sample, seed=seed), "rows") for seed in (0, 1)]
    first, second = (train.train(settings.load(), known, table) for table in tables)
    old, new = (bundles.load(known.pull(v.version, Path("var/versions"))) for v in (first, second))
    assert {unseen.TRAINED, unseen.JUDGED} < set(old.manifest.files)
    candidate = gates.Candidate(new, second.version, first.version, "")
    frame = tables[1].read()
    gate = gates.compare(candidate, frame, force, known)
    held = [pd.Series(unseen.row_hashes(split(table.read())[1])) for table in tables]
    common = held[1].value_counts().to_frame().join(held[0].value_counts(), rsuffix="_old")
    fair = int(common.min(axis=1).where(common.notna().all(axis=1), 0).sum())  # equal rows, too
    record_property("said", f"of {len(held[1])} rows that judged, {fair} judge: {gate.detail}")
    assert f"on {fair:,} rows" in gate.detail
    assert 0 < fair < len(held[1]) / 2

    gate = gates.compare(candidate, frame, settings.load(gates={"min_rows": 10**6}), known)
    assert gate.detail.startswith(f"{fair:,} of {len(sample):,} labelled rows can be compared")


def test_training_and_its_card_tell_it(
    timeless: None, project: Path, sample: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    known = registry.connect(settings.load())
    by = data.FIELDS[-1]  # sorted by its target, a table of two classes cannot be trained on
    made = train.train(settings.load(), known, data.store(arrived(sample, by=by), "rows"))
    assert f"warning: the rows held out are not like those trained on: {by} differs" in (
        capsys.readouterr().out
    )
    assert isinstance(known, MlflowRegistry)
    card = known.client.download_artifacts(made.run, "model_card.md")
    assert f"{by} differs most" in Path(card).read_text()
