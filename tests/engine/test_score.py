"""Batch scoring gives what the API gives, whole or not at all, and goes on where it stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flight_delays import bundle as bundles
from flight_delays.batch import score
from flight_delays.bundle import Bundle
from flight_delays.errors import UserError
from flight_delays.project import data
from flight_delays.training import snapshots

from .interrupted import interrupted_at


@pytest.fixture
def bundle(trained: Path) -> Bundle:
    return bundles.load(trained / "var/versions/1")


def test_what_training_reads_is_scored(
    bundle: Bundle, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "PARTITION", len(sample) // 2)
    sample.to_parquet("rows.pq", index=False)
    parts = Path("parts.parquet")
    parts.mkdir()
    sample.iloc[:100].to_parquet(parts / "a.parquet")
    sample.iloc[100:].to_parquet(parts / "b.parquet")
    tables = []
    for i, uri in enumerate(("rows.parquet", "rows.pq", "parts.parquet")):
        assert score.score(bundle, uri, f"out{i}.csv") == len(sample)
        tables.append(Path(f"out{i}.csv").read_text())
    assert tables[0] == tables[1] == tables[2]


def test_rows_that_clean_leaves_out_are_counted(
    bundle: Bundle,
    sample: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(data, "clean", lambda frame: frame.iloc[10:], raising=False)
    assert score.score(bundle, "rows.parquet", "out.parquet") == len(sample)
    assert len(pd.read_parquet("out.parquet")) == len(sample) - 10
    assert "10 rows are left out by clean()" in capsys.readouterr().out
    broken = sample.assign(**{snapshots.FIELDS[0]: pd.Series([[1]] * len(sample))})
    with pytest.raises(UserError, match=r"row 5010\b"):
        score.scored(bundle, broken, "rows", 5000)


def test_a_stopped_run_goes_on(
    bundle: Bundle, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(sample) // 3 + 1
    monkeypatch.setattr(score, "PARTITION", size)
    scored, calls = interrupted_at(2, score.scored)
    monkeypatch.setattr(score, "scored", scored)
    with pytest.raises(KeyboardInterrupt):
        score.score(bundle, "rows.parquet", "out.parquet")
    assert not Path("out.parquet").exists()
    assert score.score(bundle, "rows.parquet", "out.parquet") == len(sample)
    assert len(calls) == 4, "the first of three partitions is not scored again"
    assert not list(score.WORK.iterdir())


def test_a_table_is_replaced_whole_or_not_at_all(
    bundle: Bundle, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "PARTITION", len(sample) // 2)
    out = "sqlite:///out.db#scores"
    score.score(bundle, "rows.parquet", out)
    real, calls = pd.DataFrame.to_sql, []

    def fails_at_second(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("disk full")
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_sql", fails_at_second)
        with pytest.raises(OSError, match="disk full"):
            score.score(bundle, "rows.parquet", out)
    assert len(pd.read_sql_table("scores", "sqlite:///out.db")) == len(sample)


def test_a_database_that_cannot_be_written_is_one_line_without_its_password(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="cannot be written") as told:
        score.score(bundle, "rows.parquet", "postgresql+psycopg://u:p/w@127.0.0.1:1/x#y")
    assert "u:***@127.0.0.1:1/x#y" in str(told.value)
    assert "p/w" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_folder_of_parts_is_scored_into_a_folder(
    bundle: Bundle, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "PARTITION", len(sample) // 2)
    Path("rows").mkdir()
    sample.iloc[:100].to_parquet("rows/a.parquet")
    sample.iloc[100:].to_parquet("rows/b.parquet")
    score.score(bundle, "rows.parquet", "out.parquet")
    for _ in range(2):  # an earlier output is replaced
        assert score.score(bundle, "rows", "out/") == len(sample)
        parts = [pd.read_parquet(path) for path in sorted(Path("out").iterdir())]
        made = pd.concat(parts, ignore_index=True)
        pd.testing.assert_frame_equal(made, pd.read_parquet("out.parquet"))
    Path("out/notes.txt").touch()
    with pytest.raises(UserError, match=r"^OUT=out/: holds other things .*notes\.txt"):
        score.score(bundle, "rows", "out/")
    Path("rows/b.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(UserError, match=r"^rows: cannot be read: ") as told:
        score.score(bundle, "rows", "new/")
    assert "\n" not in str(told.value)
    assert not Path("new").exists()


@pytest.mark.problem
@pytest.mark.format
def test_examples_keep_their_scores(bundle: Bundle) -> None:
    rows = pd.DataFrame([e["features"] for e in bundle.examples])
    rows.to_csv("examples.csv", index=False)
    score.score(bundle, "examples.csv", "out.parquet")
    table = pd.read_parquet("out.parquet")
    expected = np.array([e["expected"] for e in bundle.examples])
    names = [str(c) for c in table if str(c).startswith("probabilities.")] or ["prediction"]
    given = table[names].to_numpy()
    np.testing.assert_allclose(given.squeeze(), expected.squeeze(), atol=1e-4, rtol=1e-4)


def test_what_cannot_be_scored_is_named(bundle: Bundle, sample: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=r"is no output"):
        score.score(bundle, "rows.parquet", "out.txt")
    with pytest.raises(UserError, match=r"nowhere.csv: cannot be read"):
        score.score(bundle, "nowhere.csv", "out.csv")
    with pytest.raises(UserError, match=r"is the input"):
        score.score(bundle, "rows.parquet", str(Path("rows.parquet").absolute()))
    assert len(pd.read_parquet("rows.parquet")) == len(sample)
    sample.iloc[:, :1].to_csv("narrow.csv", index=False)
    with pytest.raises(UserError, match=r"has no column .*; it has .* belongs in clean\(\)"):
        score.score(bundle, "narrow.csv", "out.csv")
