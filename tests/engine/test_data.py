"""Data comes in by any door, is checked row by row, and stays as it was."""

import json
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flight_delays import contract, errors, settings, sources, values
from flight_delays.bundle import load as load_bundle
from flight_delays.errors import UserError
from flight_delays.project import data as project
from flight_delays.project import features, target
from flight_delays.serving.journal import store as journal
from flight_delays.serving.journal.tables import outcome_line
from flight_delays.training import snapshots as data

from ..helpers import write_records
from .conftest import Another

FIELD = next(iter(features.Features.model_fields))


def settings_for(uri: str, **train: object) -> settings.Settings:
    return settings.load(data={"uri": uri, "journal": False}, train=train)


def test_a_column_that_is_empty_is_missing_in_every_row(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": pd.array([None, None], dtype="Int64"), "c": ["x", "y"]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet", index=False)
    for name in ("rows.csv", "rows.parquet"):
        for size in (None, 1):
            for part in sources.partitions(str(tmp_path / name), size):
                assert part["b"].isna().all()


def test_what_is_empty_is_missing_beside_the_na_values_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "CSV", {"na_values": ["NA"]}, raising=False)
    (tmp_path / "rows.csv").write_text("a,b\n1,x\nNA,\n,NA\n")
    frame = sources.read(str(tmp_path / "rows.csv"))
    assert frame["a"].isna().tolist() == [False, True, True]
    assert frame["b"].isna().tolist() == [False, True, True]


def test_a_label_that_was_mistyped_is_no_class(capsys: pytest.CaptureFixture[str]) -> None:
    told = pd.Series([0, 1, 7, *[2] * 10])
    assert data.rare(told, pd.Series([0, 1, 1])).tolist() == [False, False, True, *[False] * 10]
    assert ": 7 is no class of the source" in capsys.readouterr().out
    data.rare(pd.Series(["a", "[b]"]), pd.Series(["a"]))
    assert ": [b] is no class of the source" in capsys.readouterr().out
    assert not data.rare(told, pd.Series([0, 1, 7])).any()


def test_a_snapshot_of_another_contract_is_validated_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = data.snapshot(settings.load())
    frame = made.read()
    assert frame.attrs == {"contract": contract.digest()}
    monkeypatch.setattr(contract, "digest", lambda: "another")
    pd.testing.assert_frame_equal(made.read(), frame, check_dtype=False)
    less = data.store(frame.drop(columns=FIELD), "rows")
    with pytest.raises(UserError, match=f"the snapshot: has no column {FIELD}; it has"):
        data.find(less.fingerprint[:8]).read()


def test_rows_that_break_the_contract_are_counted_and_shown(
    project: Path, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "CHUNK", 10)  # the bad rows stand in several chunks
    numbers = [n for n, k in contract.KINDS.items() if k == "number"]
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


@pytest.mark.problem
def test_labelled_rows_of_the_journal_are_trained_on(trained: Path, sample: pd.DataFrame) -> None:
    bundle = load_bundle(trained / "var/versions/1")
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
    write_records(log, [made, made._replace(id="b" * 32, key="no-label")])
    log.insert_outcomes([outcome_line("a" * 32, label)])
    log.close()
    after = data.snapshot(settings.load())
    assert len(after.read()) == len(before.read()) + 1
    assert after.read()[target.TARGET].iloc[-1] == label
    if features.KEY:
        assert after.read()[features.KEY].iloc[-1] == "own-key"


@pytest.mark.problem
def test_rows_served_under_another_contract_are_left_out(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = load_bundle(trained / "var/versions/1")
    before = data.snapshot(settings.load())
    label = before.read()[target.TARGET].tolist()[0]
    features = bundle.examples[0]["features"]
    at, answer = datetime(2031, 1, 1), {"prediction": label}
    less = {name: value for name, value in features.items() if name != FIELD}
    log = journal.Journal(settings.load().journal.url)
    write_records(
        log,
        [
            journal.Record(key * 32, key, at, "1", "older", row, answer, label)
            for key, row in (("a", features), ("b", {**less, FIELD: [1]}))
        ],
    )
    log.close()
    assert len(data.snapshot(settings.load()).read()) == len(before.read()) + 1
    assert "1 rows of the journal do not fit" in capsys.readouterr().out


@pytest.mark.problem
def test_without_a_time_a_late_label_is_newer_and_moves_no_other_row(
    project: Path, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "TIME", None)
    late = [pd.Timestamp("2031-01-02"), pd.Timestamp("2031-01-01")]
    told = sample.iloc[:2].pipe(data.labelled, "rows").assign(**{data.ARRIVAL: late})
    monkeypatch.setattr(data, "from_journal", lambda *_: told)
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


@pytest.mark.problem
def test_without_a_time_labels_that_came_in_one_go_are_in_an_order(
    trained: Path, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "TIME", None)
    kept = settings.load(data={"uri": "rows.parquet", "journal": True})
    example = load_bundle(trained / "var/versions/1").examples[0]["features"]
    label = data.records(data.labelled(sample, "rows"))[0][target.TARGET]
    one = journal.Record("0", None, datetime(2030, 1, 1), "1", "?", example, {}, label)
    log = journal.Journal(kept.journal.url)
    write_records(log, [one._replace(id=str(i)) for i in range(20)])
    log.close()
    frame = data.snapshot(kept).read()
    assert data.later(frame, data.until(frame.iloc[: len(sample) + 15])).sum() == 5


def test_sources_that_cannot_be_read_are_named(project: Path) -> None:
    Path("torn.parquet").write_bytes(b"PAR1 torn")
    for uri, said in [
        ("nowhere.csv", "no such file"),
        ("torn.parquet", "cannot be read"),
        ("rows.xlsx", "is not a source"),
        ("sqlite:///none.db", "names no table"),
        ("sqlite:///none.db#none", "cannot be read"),
    ]:
        with pytest.raises(UserError, match=said):
            data.snapshot(settings_for(uri))


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
def test_a_command_ends_with_one_line_and_an_error(
    project: Path, name: str, content: bytes, said: str
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    command = [sys.executable, "-m", "flight_delays", "data"]
    done = subprocess.run(
        command, env=os.environ | {"DATA_URI": name}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {name}")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_keys_are_texts_whatever_the_source_makes_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY", "ID"):
        monkeypatch.setattr(data, name, "own_id")
    frames = [pd.DataFrame({"own_id": ids}) for ids in ([1, 2], [1.0, None], ["1", "x"])]
    first = [data.typed(frame, "rows")["own_id"].iloc[0] for frame in frames]
    assert first == ["1", "1", "1"]


BIG = [1_800_000_000_000_000_000 + 3 * i for i in range(200)]
"""Keys that float64 does not tell apart."""


def rows_with(**columns: Any) -> pd.DataFrame:
    """A table of 200 rows for a contract of one's own."""
    x = np.random.default_rng(0).normal(size=200)
    frame = pd.DataFrame({"id": [f"{i:08}" for i in range(200)], "x": x, "y": (x > 0).astype(int)})
    return frame.assign(**columns)


def test_a_key_is_what_the_source_has_even_beside_a_missing_one(another: Another) -> None:
    own = another("x: float")
    keys = pd.Series(BIG, dtype="Int64").where(np.arange(200) != 5)
    frame = rows_with(id=keys)
    frame.to_csv("rows.csv", index=False)
    frame.to_parquet("rows.pq", index=False)
    with sqlite3.connect("rows.db") as db:
        frame.to_sql("rows", db, index=False, dtype={"id": "bigint"})
    db.close()
    expected = [None if i == 5 else str(key) for i, key in enumerate(BIG)]
    own_settings = own("settings").load(journal={"url": ""})
    for uri in ("rows.csv", "rows.pq", "sqlite:///rows.db#rows"):
        own_settings.data.uri = uri
        made = own("training.snapshots").snapshot(own_settings).read()["id"]
        assert [None if pd.isna(key) else key for key in made] == expected, uri
        parts = [
            own("training.snapshots").typed(p, uri) for p in own("sources").partitions(uri, 70)
        ]
        assert [len(p) for p in parts] == [70, 70, 60]
        made = pd.concat(parts)["id"]
        assert [None if pd.isna(key) else key for key in made] == expected, uri
    rows_with().to_csv("rows.csv", index=False)
    own_settings.data.uri = "rows.csv"
    assert own("training.snapshots").snapshot(own_settings).read()["id"].tolist()[:2] == [
        "00000000",
        "00000001",
    ]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([1.0, 1.8e18], r"^rows: 1.8e\+18 in row 1 is a float"),
        ([1.0, float("inf")], r"inf in row 1 is a float"),
        (["a", ["b"]], r"\['b'\] in row 1 is no key"),
    ],
)
def test_a_key_that_lost_digits_is_refused(column: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        values.keys(pd.Series(column), "rows")
    given = pd.Series([1, 2.0, 0.5, "01", Decimal(10**20), True, None], dtype=object)
    made = values.keys(given, "rows")
    assert made.tolist()[:-1] == ["1", "2", "0.5", "01", "1" + "0" * 20, "true"]
    assert made.isna().tolist()[-1]


def test_a_key_that_repeats_keeps_its_rows(another: Another) -> None:
    own = another("x: float", **{"TIME = None": 'TIME = "at"'})
    at = pd.date_range("2024-01-01", periods=50).repeat(4)
    frame = rows_with(id=np.arange(200) % 4, at=at)
    pd.concat([frame, frame.iloc[:3]]).to_csv("rows.csv", index=False)
    journal = own("serving.journal.store")
    first, new = at[0].to_pydatetime(), datetime(2031, 1, 1)
    log = journal.Journal("sqlite:///var/journal.db")
    write_records(
        log,
        [
            journal.Record(str(i), key, when, "1", "?", {"x": 1.0}, {}, 1)
            for i, (key, when) in enumerate([("0", first), ("0", new), ("0", new), ("9", first)])
        ],
    )
    log.close()
    made = own("training.snapshots").snapshot(own("settings").load())
    table = made.read()
    assert made.counts == {
        "read": 203,
        "cleaned_away": 0,
        "unlabelled": 0,
        "duplicates_kept": 3,
        "journal": 4,
        "journal_unfit": 0,
        "journal_rare": 0,
        "journal_repeated": 2,
    }
    assert len(table) == 205
    assert table["id"].iloc[-1] == "0", "the newest is of the journal"
    assert (table["id"] == "9").sum() == 1


def test_a_key_that_is_a_feature_stays_one(another: Another) -> None:
    own = another("id: int\nx: float")
    rows_with(id=np.arange(200)).to_csv("rows.csv", index=False)
    journal = own("serving.journal.store")
    log = journal.Journal("sqlite:///var/journal.db")
    write_records(
        log,
        [
            journal.Record(name, key, datetime(2031, 1, 1), "1", "?", {"id": id, "x": 1.0}, {}, 1)
            for name, key, id in [("a", "their-own", 900), ("b", None, 901), ("c", None, 7)]
        ],
    )
    log.close()
    made = own("training.snapshots").snapshot(own("settings").load())
    table = made.read()
    assert table["id"].tolist() == [*range(200), 900, 901]
    assert table["_key"].tolist()[-3:] == ["199", "their-own", "901"]
    assert made.counts["journal_repeated"] == 1
    assert own("contract").from_frame(table)["id"].dtype == np.float64


def test_what_became_of_every_row_is_said(
    another: Another, capsys: pytest.CaptureFixture[str]
) -> None:
    own = another("x: float", **{"# HOOKS": "def clean(frame):\n    return frame[frame.x < 1]"})
    frame = rows_with(x=np.arange(200) / 190)
    frame["y"] = frame["y"].astype("Int64").where(np.arange(200) % 10 != 0)
    frame.to_csv("rows.csv", index=False)
    own("cli.lifecycle").data()
    kept = json.loads(Path("reports/data.json").read_text())
    assert (kept["read"], kept["cleaned_away"], kept["unlabelled"]) == (200, 10, 19)
    assert kept["rows"] == 171
    assert "10 cleaned away, 19 unlabelled; 171 rows are kept" in capsys.readouterr().out


def test_the_newest_rows_of_a_long_journal_are_read(
    another: Another, capsys: pytest.CaptureFixture[str]
) -> None:
    own = another("x: float")
    rows_with().to_csv("rows.csv", index=False)
    journal = own("serving.journal.store")
    log = journal.Journal("sqlite:///var/journal.db")
    write_records(
        log,
        [
            journal.Record(str(i), str(i), datetime(2031, 1, 1 + i), "1", "?", row, {}, label)
            for i, (row, label) in enumerate(
                [({"x": 1}, 1), ({"x": 2}, 1), ({"x": 3}, 0), ({"x": 4}, "no"), ({"x": "?"}, 1)]
            )
        ],
    )
    log.close()
    made = own("training.snapshots").snapshot(own("settings").load(data={"journal_rows": 4}))
    assert made.read()["x"].tolist()[-2:] == [2, 3]
    assert (made.counts["journal"], made.counts["journal_unfit"]) == (4, 2)
    said = capsys.readouterr().out
    assert "more than 4 labelled rows" in said
    assert "2 rows of the journal do not fit" in said


MOMENTS = [datetime(2024, 3, 31), datetime(2024, 10, 27, 1, 30)]


@pytest.mark.parametrize(
    "given",
    [
        ["2024-03-31T01:00:00+01:00", "2024-10-27T01:30:00+00:00"],  # a year of summer time
        ["2024-03-31T00:00:00.000000Z", "2024-10-27 01:30:00+0000"],
        ["2024-03-31", "2024-10-27T01:30:00.0000009"],
        [date(2024, 3, 31), datetime(2024, 10, 27, 1, 30)],
        pd.DatetimeIndex(MOMENTS).as_unit("s"),
        pd.DatetimeIndex(MOMENTS).tz_localize("UTC").tz_convert("Asia/Tokyo"),
        pd.Series(MOMENTS).astype("timestamp[ns][pyarrow]"),
        pd.Series([date(2024, 3, 31), None]).astype(pd.ArrowDtype(pa.date32())),
    ],
)
def test_times_are_utc_to_the_microsecond_whatever_wrote_them(given: Any) -> None:
    made = values.times(pd.Series(given), "rows: column at")
    assert made.dtype == "datetime64[us]"
    assert [e for e in made.tolist() if not pd.isna(e)] == MOMENTS[: made.notna().sum()]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([None, 1_700_000_000], "1700000000 in row 1 is not an ISO 8601 time"),
        ([20230514.0, 20230515.0], "20230514.0 in row 0 is not an ISO 8601 time"),
        (["20230514"], "'20230514' in row 0"),
        (["2013-01-01", "01/03/2023"], "'01/03/2023' in row 1"),
        (["2024-02-30"], "'2024-02-30' in row 0"),
        (["now"], "'now' in row 0"),
        ([True], "True in row 0"),
        (
            ["2013-01-01T00:00Z", "2013-01-01"],
            "T00:00Z' in row 0 has an offset .* row 1",
        ),
        ([datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 1)], "in row 0 has an offset"),
    ],
)
def test_a_time_that_would_be_guessed_is_refused(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"^rows: column at: .*{said}") as error:
        values.times(pd.Series(given, dtype=object), "rows: column at")
    assert "\n" not in str(error.value)
    assert "clean() of project/data.py" in str(error.value)


def test_the_api_takes_no_number_for_a_time(another: Another) -> None:
    own = another("at: datetime")
    asks = own("serving.schemas").PredictionRequest
    assert asks.model_validate_json('{"features": {"at": "2024-01-01T00:00:00+01:00"}}')
    for at in ("1700000000", '"1700000000"', '"20230514"'):
        for body in ('{"features": {"at": AT}}', '{"features": {"at": "2024-01-01"}, "time": AT}'):
            with pytest.raises(ValueError, match="not an ISO 8601 time"):
                asks.model_validate_json(body.replace("AT", at))


def test_a_row_without_a_time_has_no_place_in_order(another: Another) -> None:
    own = another("x: float", **{"TIME = None": 'TIME = "at"'})
    rows_with(at=["" if i == 7 else "2024-01-01" for i in range(200)]).to_csv("rows.csv")
    with pytest.raises(own("errors").UserError, match=r"1 rows have no time, .* row 7"):
        own("training.snapshots").snapshot(own("settings").load())


HOOKS = """
CSV = {"sep": ";", "decimal": ",", "encoding": "latin-1", "dtype": {"Código": str}}


def clean(frame):
    frame = frame.rename(columns={"Código": "id", "Preço": "x", "Alvo": "y"})
    return frame.assign(at=pd.to_datetime(frame["Dia"], format="%d/%m/%Y"))
"""


@pytest.mark.format
def test_scoring_reads_a_table_as_training_does(another: Another) -> None:
    own = another("x: float\nat: datetime", **{"# HOOKS": HOOKS})
    frame = rows_with(Dia="13/02/2024").rename(columns={"id": "Código", "x": "Preço", "y": "Alvo"})
    frame.loc[1:, "Dia"] = "01/03/2024"
    frame.to_csv("rows.csv", index=False, sep=";", decimal=",", encoding="latin-1")
    own_settings = own("settings").load(journal={"url": ""})
    made = own("training.snapshots").snapshot(own_settings).read()
    np.testing.assert_allclose(made["x"], rows_with()["x"])
    assert made["at"].dt.month.tolist() == [2] + [3] * 199
    registry = own("registry.store").connect(own_settings)
    own("training.train").train(own_settings, registry, own("training.snapshots").find(""))
    bundle = own("bundle").load(registry.pull("1", Path("var/versions")))
    own("batch.score").PARTITION = 70
    assert own("batch.score").score(bundle, "rows.csv", "out.parquet") == 200
    assert pd.read_parquet("out.parquet")["id"].tolist() == made["id"].tolist()
    frame.drop(columns="Preço").to_parquet("less.parquet")
    with pytest.raises(own("errors").UserError, match=r"no column x; it has id, y, Dia, at; what"):
        own("batch.score").score(bundle, "less.parquet", "out.csv")


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("def clean(frame):\n    return frame['nothing']", "no column 'nothing', which clean"),
        ("def clean(frame):\n    return 7", "must return a DataFrame"),
        ("def clean(frame):\n    return 1 / 0", "clean.. in project/data.py: division by zero"),
        (
            "def clean(f):\n    return f.set_axis(['id', 'x', 'x'], axis=1)",
            "more than one column x",
        ),
    ],
)
def test_a_clean_that_fails_is_one_line(another: Another, hook: str, said: str) -> None:
    own = another("x: float", **{"# HOOKS": hook})
    rows_with().to_csv("rows.csv", index=False)
    with pytest.raises(own("errors").UserError, match=said) as error:
        own("training.snapshots").snapshot(own("settings").load())
    assert "\n" not in str(error.value)


ODD_NAMES = """
price: float = Field(alias="Preço (R$)")
kind: str | None = Field(None, validation_alias="kind of it")
flag: bool | None = None
count: int | None = None
"""


@pytest.mark.format
def test_names_that_are_no_identifiers_and_truths_as_texts(another: Another) -> None:
    own = another(ODD_NAMES)
    truth = np.where(np.arange(200) % 3 == 0, "t", "f").astype(object)
    truth[7] = None
    frame = rows_with(flag=truth, count=pd.Series(range(200), dtype="Int64").where(truth != "t"))
    frame = frame.assign(**{"kind of it": "00a"}).rename(columns={"x": "Preço (R$)"})
    frame.to_csv("rows.csv", index=False)
    own_settings = own("settings").load(journal={"url": ""})
    table = own("training.snapshots").snapshot(own_settings).read()
    assert table["flag"].tolist()[:3] == [True, False, False]
    assert table["flag"].isna().sum() == 1
    registry = own("registry.store").connect(own_settings)
    own("training.train").train(own_settings, registry, own("training.snapshots").find(""))
    bundle = own("bundle").load(registry.pull("1", Path("var/versions")))
    names = ["Preço (R$)", "kind of it", "flag", "count"]
    features = bundle.examples[0]["features"]
    assert list(features) == names
    assert bundle.manifest.numbers == ["price", "flag", "count"]
    ask = own("serving.schemas").PredictionRequest.model_validate({"features": features})
    journal = json.loads(ask.features.model_dump_json(by_alias=True))
    assert own("contract").read([journal])[0].price == features["Preço (R$)"]
    assert own("batch.score").score(bundle, "rows.csv", "out.csv") == 200
    pd.DataFrame([e["features"] for e in bundle.examples]).to_csv("example.csv", index=False)
    assert own("batch.score").score(bundle, "example.csv", "out.csv") == len(bundle.examples)
    quick = own("contract").from_frame(table)
    again = own("training.snapshots").validated(table.assign(flag=truth), "the snapshot")
    for name, column in own("contract").from_frame(again).items():
        np.testing.assert_array_equal(quick[name], column)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("frame[['x', 'y']]", "gives no column for y; one target, one value a row"),
        ("frame[['x', 'y']].to_numpy()", "gives no column for y"),
        ("1", "gives no column for y"),
        ("[1, 2]", "cannot compute y: Length of values"),
        ("[[1]] * len(frame)", "gives no column for y"),
        ("frame['x'].map(lambda x: [x])", r"y: \\[.*\\] in row 0; one target, one value a row"),
        (
            "frame['y'].astype(object).where(frame.index > 0, 'late')",
            "y: [01] in row 1 beside 'late'",
        ),
        ("frame['y'].astype(object).where(frame.index > 0, True)", "beside True in row 0"),
        ("frame['y'] / 0", "in row [0-9]+; one target"),
        ("pd.to_datetime(frame['y'])", "in row 0; one target"),
        ("[10**30] * len(frame)", "integers of more than 64 bits"),
        ("frame['nothing']", "has no column 'nothing', which .* it has id, x, y"),
    ],
)
def test_labels_are_one_value_a_row_of_one_kind(another: Another, labels: Any, said: str) -> None:
    own = another("x: float", **{'return frame["y"]': f"import pandas as pd; return {labels}"})
    rows_with().to_csv("rows.csv", index=False)
    with pytest.raises(own("errors").UserError, match=said.replace("\\\\", "\\")) as error:
        own("training.snapshots").snapshot(own("settings").load(journal={"url": ""}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series([True, None, False], dtype="boolean"),
        pd.Series([True, None, np.bool_(False)], dtype=object),
        pd.Series([True, None, False], dtype="bool[pyarrow]"),
        pd.Series([1, None, 0], dtype="UInt8"),
        pd.Series([Decimal(1), None, Decimal(0)], dtype=pd.ArrowDtype(pa.decimal128(5))),
        pd.Series([1.0, None, 0.0], dtype="float32"),
        pd.Categorical(["a", None, "b"]),
    ],
)
def test_labels_are_plain_whatever_type_holds_them(labels: Any) -> None:
    made = values.labels(pd.Series(labels).dropna(), "rows")
    assert made.dtype.kind in "bif" or made.dtype == "str"
    assert made.tolist() in ([True, False], ["a", "b"])


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 10**30, str(10**30), 2**63])
def test_an_integer_that_float64_would_round_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=f"^rows: {value} in row 1 is more than float64 holds"):
        values.exact(pd.Series([1, value], dtype=object), "rows")
    values.exact(pd.Series([2**53, -(2**53), "0.5", 1e300], dtype=object), "rows")
    values.exact(pd.Series([2**53 + 2, 1]), "rows")
    with pytest.raises(UserError, match="in row 0"):
        values.exact(pd.Series([2**53 + 1, 1]), "rows")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,x,x,y\n1,2,3,0\n", "more than one column x"),
        (b"id,x,y\n1,2,0,\n", "more fields than its header"),
        (b"id,x,y\n1,2,0,4,5\n", "more fields than its header"),
        (b"id,x,y\n1,2\n1,2,3,4\n", "cannot be read: Error tokenizing"),
        (b"id,x,y\n\xe9,2,0\n", "so it is not UTF-8; name its encoding"),
        (b"", "cannot be read"),
        (b"id;x;y\n1;2;0\n", "no column 'y', .* it has id;x;y"),
    ],
)
def test_an_odd_csv_is_one_line_for_training_and_scoring(
    another: Another, content: bytes, said: str
) -> None:
    own = another("x: float")
    Path("rows.csv").write_bytes(content)
    with pytest.raises(own("errors").UserError, match=said) as error:
        own("training.snapshots").snapshot(own("settings").load(journal={"url": ""}))
    assert "\n" not in str(error.value)
    if "no column" not in said:
        with pytest.raises(own("errors").UserError, match=said):
            list(own("sources").partitions("rows.csv", 10))


def test_a_table_of_every_type_is_the_same_whole_and_in_parts(another: Another) -> None:
    own = another("x: float\nflag: bool\nat: datetime\nkind: str")
    kinds = pa.array(["a", "b"] * 100)
    tables = {
        "x": [
            pa.array([Decimal(1), Decimal("2.5")] * 100, pa.decimal128(9, 3)),
            pa.array(np.arange(200, dtype="float16")),
            pa.array(range(200), pa.uint8()),
        ],
        "at": [
            pa.array([date(2024, 1, 1)] * 200, pa.date32()),
            pa.array([datetime(2024, 1, 1)] * 200, pa.timestamp("ns", "Asia/Tokyo")),
            pa.array([datetime(2024, 1, 1)] * 200, pa.timestamp("s")),
        ],
        "kind": [kinds.dictionary_encode(), kinds.cast(pa.large_string()), kinds],
    }
    own("training.snapshots").TIMES[:] = ["at"]
    for i in range(3):
        made = {name: columns[i] for name, columns in tables.items()}
        keys = pa.array([1, None] * 100)
        pq.write_table(pa.table({"id": keys, "flag": [True] * 200, "y": keys, **made}), "t.parquet")
        whole = own("training.snapshots").typed(own("sources").read("t.parquet"), "t")
        parts = [
            own("training.snapshots").typed(p, "t")
            for p in own("sources").partitions("t.parquet", 70)
        ]
        columns, others = (
            own("contract").from_frame(own("training.snapshots").validated(table, "t"))
            for table in (whole, pd.concat(parts))
        )
        assert columns["at"][0] == np.datetime64("2024-01-01")
        assert whole["id"].tolist()[0] == "1"
        for name, column in others.items():
            np.testing.assert_array_equal(columns[name], column, err_msg=name)


def test_a_password_is_shown_to_nobody() -> None:
    assert errors.shown("postgresql+psycopg://me:secret@host/db#t") == (
        "postgresql+psycopg://me:***@host/db#t"
    )
    with pytest.raises(UserError) as error:
        sources.read("sqlite://me:secret@host/db#t")
    assert "secret" not in str(error.value)
