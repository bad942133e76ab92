"""Labels from a table are the API's, all or none; and a model that only scores is watched."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flight_delays import bundle as bundles
from flight_delays import contract
from flight_delays.batch import outcomes, score
from flight_delays.bundle import Bundle
from flight_delays.cli import lifecycle
from flight_delays.errors import UserError
from flight_delays.monitoring import monitor
from flight_delays.monitoring.verdict import Verdict
from flight_delays.project import features, target
from flight_delays.registry.store import connect
from flight_delays.serving.journal.store import Journal, Record, opened
from flight_delays.settings import load
from flight_delays.training import snapshots as data

from ..helpers import write_records
from .interrupted import interrupted_at

pytestmark = pytest.mark.problem

ID, KEY, WHEN = outcomes.ID, features.KEY, features.TIME or "time"
by_key = pytest.mark.skipif(not KEY, reason="the contract has no KEY")


@pytest.fixture
def bundle(trained: Path) -> Bundle:
    return bundles.load(trained / "var/versions/1")


@pytest.fixture
def classes(bundle: Bundle) -> list[Any] | None:
    return bundle.manifest.classes


@pytest.fixture
def kept(bundle: Bundle, journal: Journal, sample: pd.DataFrame) -> pd.DataFrame:
    """The table that scoring left, with the label of each row."""
    assert score.score(bundle, "rows.parquet", "out.parquet", journal, "test") == len(sample)
    frame = pd.read_parquet("out.parquet")
    return frame.assign(outcome=target.target(sample).to_numpy())


def told(journal: Journal) -> dict[str, Any]:
    return {record.id: record.outcome for record in journal.rows(labelled=True)}


def test_every_door_sets_the_same_outcomes(
    kept: pd.DataFrame, journal: Journal, classes: list[Any] | None
) -> None:
    kept = kept[[ID, "outcome"]]
    kept.to_csv("labels.csv", index=False)
    kept.to_parquet("labels.parquet", index=False)
    with sqlite3.connect("labels.db") as db:
        kept.to_sql("labels", db, index=False)
    db.close()
    labelled = kept.dropna()
    expected = dict(zip(labelled[ID], labelled["outcome"].tolist(), strict=True))
    for n, uri in enumerate(("labels.csv", "labels.parquet", "sqlite:///labels.db#labels")):
        found = outcomes.write_outcomes(journal, classes, uri)
        assert (found.labels, found.matched) == (len(labelled), len(labelled))
        assert found.without == len(kept) - len(labelled)
        assert (found.replaced, found.early) == (len(labelled) if n else 0, 0)
        assert told(journal) == expected
        assert {type(v) for v in told(journal).values()} == {type(v) for v in expected.values()}


@by_key
def test_a_label_by_key_and_time_may_be_early(
    journal: Journal, bundle: Bundle, classes: list[Any] | None, sample: pd.DataFrame
) -> None:
    rows = data.labelled(sample, "rows")
    raw = sample.assign(**{WHEN: pd.to_datetime(rows[WHEN])}) if WHEN in rows else sample
    raw.to_csv("raw.csv", index=False)  # the label is what project/target.py makes of it
    found = outcomes.write_outcomes(journal, classes, "raw.csv")
    assert (found.labels, found.matched, found.early) == (len(rows), 0, len(rows))
    assert not told(journal)
    score.score(bundle, "rows.parquet", "out.csv", journal, "test")
    assert sorted(told(journal).values()) == sorted(rows[target.TARGET].tolist())
    found = outcomes.write_outcomes(journal, classes, "raw.csv")
    assert (found.matched, found.early, found.replaced) == (len(rows), 0, len(rows))


def test_one_bad_row_and_none_is_written(
    kept: pd.DataFrame, journal: Journal, classes: list[Any] | None
) -> None:
    bad = kept.dropna()[[ID, "outcome"]].astype(object).reset_index(drop=True)
    bad.loc[3, "outcome"] = "no such thing"
    bad.loc[5, ID] = "0" * 32
    bad.loc[8, ID] = None
    bad.to_csv("bad.csv", index=False)
    found = outcomes.write_outcomes(journal, classes, "bad.csv")
    assert not told(journal)
    assert len(found.refused) == 3
    text = outcomes.refusal(found, "bad.csv")
    assert f"row 5: no prediction {'0' * 32}" in text
    wrong = "should be a number" if classes is None else "is no class of the model ("
    assert f'row 3: outcome "no such thing" {wrong}' in text
    assert f"row 8: {ID} is missing" in text
    assert text.startswith(f"bad.csv: 3 of {len(bad):,} labels are refused")
    assert "\n" not in text


def test_what_a_table_lacks_is_named(journal: Journal, classes: list[Any] | None) -> None:
    pd.DataFrame({"n": [1], "outcome": [1]}).to_csv("whose.csv", index=False)
    with pytest.raises(UserError, match=rf"whose.csv: .* needs a column {ID} .* it has n, outcome"):
        outcomes.write_outcomes(journal, classes, "whose.csv")
    pd.DataFrame({ID: ["x"]}).to_csv("what.csv", index=False)
    said = r"what.csv: .*project/target.py .*; or name the column of labels outcome$"
    with pytest.raises(UserError, match=said):
        outcomes.write_outcomes(journal, classes, "what.csv")


def test_ids_and_keys_of_digits_are_texts(
    journal: Journal, classes: list[Any] | None, bundle: Bundle, sample: pd.DataFrame
) -> None:
    answer = {"prediction": 0}
    number = "01234567890123456789012345678901"
    made = Record(number, "007", pd.Timestamp("2020-01-01").to_pydatetime(), "1", "c", {}, answer)
    write_records(journal, [made])
    label = [target.target(sample).dropna().tolist()[0]]
    pd.DataFrame({ID: [number], "outcome": label}).to_csv("ids.csv", index=False)
    assert outcomes.write_outcomes(journal, classes, "ids.csv").matched == 1
    if KEY:
        keyed = pd.DataFrame({KEY: ["007"], WHEN: ["2020-01-01T01:00:00+01:00"], "outcome": label})
        keyed.to_csv("keys.csv", index=False)
        assert outcomes.write_outcomes(journal, classes, "keys.csv").matched == 1


def test_a_scoring_that_was_killed_keeps_each_row_once(
    bundle: Bundle, journal: Journal, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "PARTITION", len(sample) // 3 + 1)
    with sqlite3.connect("rows.db") as db:
        sample.to_sql("rows", db, index=False)
    db.close()
    insert, calls = interrupted_at(2, journal.insert_predictions)
    for source in ("rows.parquet", "sqlite:///rows.db#rows"):
        before, out = len(journal.rows()), f"{source.partition(':')[0]}.out.parquet"
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(journal, "insert_predictions", insert)
            with pytest.raises(KeyboardInterrupt):
                score.score(bundle, source, out, journal, "test")
        assert not Path(out).exists()
        assert 0 < len(journal.rows()) - before < len(sample)
        for _ in range(2):
            score.score(bundle, source, out, journal, "test")
            ids = {record.id for record in journal.rows()}
            assert len(ids) - before == len(sample)
            assert set(pd.read_parquet(out)[ID]) <= ids
    record = journal.rows()[0]
    assert record.version == bundle.version
    assert record.contract == bundle.manifest.contract
    assert bundles.ROWS.validate_python([record.features])


def test_a_row_that_cannot_be_scored_leaves_the_journal_alone(
    bundle: Bundle, journal: Journal, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "PARTITION", len(sample) // 3 + 1)
    numbers = [n for n, k in contract.KINDS.items() if k == "number"]
    broken = sample.astype({numbers[0]: object})
    broken.loc[broken.index[-1], numbers[0]] = "many"
    broken.to_csv("broken.csv", index=False)
    with pytest.raises(UserError, match="break the contract"):
        score.score(bundle, "broken.csv", "out.csv", journal, "test")
    assert not journal.rows()


def test_a_model_that_only_scores_is_watched(
    trained: Path, sample: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load(monitor={"window": 500})
    known = connect(settings)

    def verdict() -> Verdict:
        with opened(settings.journal.url) as journal:
            return monitor.run(settings, known, journal, "test")

    assert verdict().verdict == "unknown"
    lifecycle.score("rows.parquet", "out.parquet", "test", journal=True)
    assert "labelled rows" in verdict().reason
    labels = pd.read_parquet("out.parquet")[[ID]].assign(outcome=target.target(sample).to_numpy())
    labels.to_csv("labels.csv", index=False)
    lifecycle.outcomes("labels.csv", "test")
    found = verdict()
    assert found.verdict in ("ok", "warn", "retrain"), found.reason
    assert found.labelled == len(labels.dropna())
    report = json.loads(Path("reports/outcomes.json").read_text())
    assert report["matched"] == found.labelled
    labels.assign(**{ID: "x"}).to_csv("labels.csv", index=False)
    with pytest.raises(UserError, match="labels are refused, so none is written: row 0: no predic"):
        lifecycle.outcomes("labels.csv", "test")
    assert len(json.loads(Path("reports/outcomes.json").read_text())["refused"]) == found.labelled
