"""Data comes in by any door, is checked row by row, and stays as it was."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from . import NAME, package

data = package("data")
features = package("project.features")
target = package("project.target")
settings = package("settings")
UserError = package("errors").UserError
FIELD = next(iter(features.Features.model_fields))


def settings_for(uri: str, **train: object):
    return settings.load(data={"uri": uri, "journal": False}, train=train)


def test_a_snapshot_is_named_by_its_content(project, sample) -> None:
    first = data.snapshot(settings_for("rows.parquet"))
    assert first.path.stem == first.fingerprint == data.sha256(first.path)[:32]
    stamp = first.path.stat().st_mtime_ns
    assert data.snapshot(settings_for("rows.parquet")).path == first.path
    assert first.path.stat().st_mtime_ns == stamp
    sample.iloc[1:].to_parquet("other.parquet", index=False)
    assert data.snapshot(settings_for("other.parquet")).fingerprint != first.fingerprint
    assert data.find(first.fingerprint[:6]).path == first.path


def test_every_source_gives_the_same_columns(project, sample) -> None:
    sample.to_csv("rows.csv", index=False)
    with sqlite3.connect("rows.db") as db:
        sample.to_sql("rows", db, index=False)
    db.close()
    first, *others = (
        data.columns(data.snapshot(settings_for(uri)).read())
        for uri in ("rows.parquet", "rows.csv", "sqlite:///rows.db#rows")
    )
    for other in others:
        for name, column in first.items():
            np.testing.assert_array_equal(column, other[name], err_msg=name)


def test_rows_that_break_the_contract_are_counted_and_shown(project, sample, monkeypatch) -> None:
    monkeypatch.setattr(data, "CHUNK", 10)  # the bad rows stand in several chunks
    numbers = [n for n, k in package("contract").KINDS.items() if k == "number"]
    if not numbers:
        pytest.skip("the contract has no number to break")
    name = numbers[0]
    broken = sample.astype({name: object})
    broken.loc[broken.index[5:40], name] = "many"
    broken[name] = broken[name].astype(str)
    broken.to_csv("broken.csv", index=False)
    with pytest.raises(UserError, match=r"35 of .* rows break the contract") as error:
        data.snapshot(settings_for("broken.csv"))
    lines = str(error.value).splitlines()
    assert len(lines) == 21
    assert name in lines[1]
    assert "'many'" in lines[1]


def test_labelled_rows_of_the_journal_are_trained_on(trained, sample) -> None:
    from datetime import datetime

    journal = package("serving.journal")
    bundle = package("bundle").load(trained / "var/versions/1")
    before = data.snapshot(settings.load())
    label = before.read()[target.TARGET].tolist()[0]
    log = journal.Journal(settings.load().journal.url)
    answer = {"prediction": label}
    made = journal.Record(
        "a" * 32,
        "own-key",
        datetime(2031, 1, 1),
        "1",
        bundle.manifest.contract,
        bundle.examples[0]["features"],
        answer,
    )
    log.write([made, made._replace(id="b" * 32, key="no-label")])
    log.put_outcome("a" * 32, label)
    log.close()
    after = data.snapshot(settings.load())
    assert len(after.read()) == len(before.read()) + 1
    assert after.read()[target.TARGET].iloc[-1] == label
    if features.KEY:
        assert after.read()[features.KEY].iloc[-1] == "own-key"


def test_rows_served_under_another_contract_are_left_out(trained, capsys) -> None:
    from datetime import datetime

    journal = package("serving.journal")
    bundle = package("bundle").load(trained / "var/versions/1")
    before = data.snapshot(settings.load())
    label = before.read()[target.TARGET].tolist()[0]
    features = bundle.examples[0]["features"]
    at, answer = datetime(2031, 1, 1), {"prediction": label}
    less = {name: value for name, value in features.items() if name != FIELD}
    log = journal.Journal(settings.load().journal.url)
    log.write(
        journal.Record(key * 32, key, at, "1", "older", row, answer, label)
        for key, row in (("a", features), ("b", {**less, FIELD: [1]}))
    )
    log.close()
    assert len(data.snapshot(settings.load()).read()) == len(before.read()) + 1
    assert "1 rows of the journal do not fit" in capsys.readouterr().out


def test_without_a_time_a_late_label_is_newer_and_moves_no_other_row(project, sample, monkeypatch):
    from datetime import datetime

    import pandas as pd

    monkeypatch.setattr(data, "TIME", None)
    late = [pd.Timestamp("2031-01-02"), pd.Timestamp("2031-01-01")]
    told = sample.iloc[:2].pipe(data.labelled, "rows").assign(**{data.ARRIVAL: late})
    monkeypatch.setattr(data, "journalled", lambda _: told)
    if features.KEY:
        told[features.KEY] = ["new-1", "new-2"]
    with_journal = settings.load(data={"uri": "rows.parquet", "journal": True})
    frame = data.snapshot(with_journal).read()
    arrived = frame[data.ARRIVAL]
    assert arrived.is_monotonic_increasing
    n = len(sample)
    for known, newer in ((n - 10, 11), (n - 1, 2), (n, 1), (n + 1, 0)):
        until = data.until(frame.iloc[: known + 1])
        assert isinstance(until, int) == (known < n), until
        assert data.later(frame, until).sum() == newer
    assert data.until(frame) == datetime(2031, 1, 2).isoformat(timespec="microseconds")


def test_without_a_time_labels_that_came_in_one_go_are_in_an_order(trained, sample, monkeypatch):
    from datetime import datetime

    monkeypatch.setattr(data, "TIME", None)
    kept = settings.load(data={"uri": "rows.parquet", "journal": True})
    journal = package("serving.journal")
    example = package("bundle").load(trained / "var/versions/1").examples[0]["features"]
    label = data.records(data.labelled(sample, "rows"))[0][target.TARGET]
    one = journal.Record("0", None, datetime(2030, 1, 1), "1", "?", example, {}, label)
    with journal.opened(kept.journal.url) as log:
        log.write([one._replace(id=str(i)) for i in range(20)])
    frame = data.snapshot(kept).read()
    assert data.later(frame, data.until(frame.iloc[: len(sample) + 15])).sum() == 5


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: f.iloc[:0], "holds no rows"),
        (lambda f: f.iloc[:5], "too few to train on"),
        (lambda f: f.drop(columns=FIELD), "has no column"),
        (lambda f: f.assign(**{FIELD: None}), "holds no value"),
    ],
    ids=["empty", "too-few", "no-column", "all-missing"],
)
def test_data_that_cannot_be_used_is_refused_in_one_line(project, sample, make, said) -> None:
    make(sample).to_parquet("bad.parquet", index=False)
    with pytest.raises(UserError, match=said) as error:
        data.snapshot(settings_for("bad.parquet"))
    assert "\n" not in str(error.value)


def test_sources_that_cannot_be_read_are_named(project) -> None:
    with open("torn.parquet", "wb") as file:
        file.write(b"PAR1 torn")
    for uri, said in [
        ("nowhere.csv", "no such file"),
        ("torn.parquet", "cannot be read"),
        ("rows.xlsx", "is not a source"),
        ("sqlite:///none.db", "names no table"),
        ("sqlite:///none.db#none", "cannot be read"),
    ]:
        with pytest.raises(UserError, match=said):
            data.snapshot(settings_for(uri))


def test_a_missing_target_is_named(project, sample) -> None:
    raw = set(sample) - set(features.Features.model_fields) - {features.KEY, features.TIME}
    sample.drop(columns=list(raw)).to_parquet("unlabelled.parquet", index=False)
    with pytest.raises(UserError, match=r"has no column"):
        data.snapshot(settings_for("unlabelled.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nowhere.csv", None, "no such file"),
        ("empty.csv", b"", "cannot be read"),
        ("binary.csv", bytes(range(256)), ""),
        ("binary.parquet", bytes(range(256)), "cannot be read"),
        ("header.csv", b"a,b\n", "holds no rows"),
    ],
)
def test_a_command_ends_with_one_line_and_an_error(project, name, content, said) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    command = [sys.executable, "-m", NAME, "data"]
    done = subprocess.run(
        command, env=os.environ | {"DATA_URI": name}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {name}")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_rows_come_in_order_of_time_and_the_newest_judge(project, sample) -> None:
    frame = data.snapshot(settings_for("rows.parquet")).read()
    at = frame[features.TIME or data.ARRIVAL]
    assert at.is_monotonic_increasing
    early, late = package("project.data").split(frame, 0.2)
    assert at[early.index].max() <= at[late.index].min()


def test_keys_are_texts_whatever_the_source_makes_of_them(monkeypatch) -> None:
    import pandas as pd

    monkeypatch.setattr(data, "KEY", "own_id")
    frames = [pd.DataFrame({"own_id": ids}) for ids in ([1, 2], [1.0, None], ["1", "x"])]
    first = [data.typed(frame, "rows")["own_id"].iloc[0] for frame in frames]
    assert first == ["1", "1", "1"]


@pytest.mark.parametrize("times", [["2013-01-01", "noon"], ["2013-01-01T00:00Z", "2013-01-01"]])
def test_a_time_that_is_none_is_named(monkeypatch, times) -> None:
    import pandas as pd

    monkeypatch.setattr(data, "TIMES", ["when"])
    with pytest.raises(UserError, match=r"^rows: column when: .*[^.:]$"):
        data.typed(pd.DataFrame({"when": times}), "rows")


def test_a_password_is_shown_to_nobody() -> None:
    sources = package("sources")
    assert package("errors").shown("postgresql+psycopg://me:secret@host/db#t") == (
        "postgresql+psycopg://me:***@host/db#t"
    )
    with pytest.raises(UserError) as error:
        sources.read("sqlite://me:secret@host/db#t")
    assert "secret" not in str(error.value)
