"""The contract reads rows in one way, and names itself by what it demands."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from . import package

contract = package("contract")
ROWS = package("bundle").ROWS


def test_columns_have_the_kind_of_their_field(bundle_dir: Path) -> None:
    rows = [e["features"] for e in json.loads((bundle_dir / "examples.json").read_text())]
    columns = contract.columns(ROWS.validate_python(rows))
    kinds = {"number": "f", "category": "O", "time": "M"}
    assert {n: c.dtype.kind for n, c in columns.items()} == {
        n: kinds[k] for n, k in contract.KINDS.items()
    }


def test_missing_is_nan_empty_or_nat() -> None:
    class Row:
        def __init__(self, **values: object) -> None:
            self.__dict__.update(values)

    row = Row(**dict.fromkeys(contract.KINDS))
    for name, column in contract.columns([row]).items():  # type: ignore[list-item]
        kind = contract.KINDS[name]
        assert (
            column[0] == ""
            if kind == "category"
            else np.isnat(column[0])
            if kind == "time"
            else np.isnan(column[0])
        )


def test_times_with_a_zone_become_utc() -> None:
    zone = timezone(timedelta(hours=-5))
    assert contract.utc(datetime(2013, 1, 1, 6, tzinfo=zone)) == datetime(2013, 1, 1, 11)
    assert contract.utc(datetime(2013, 1, 1, 6, tzinfo=UTC)) == datetime(2013, 1, 1, 6)
    assert contract.utc(datetime(2013, 1, 1, 6)) == datetime(2013, 1, 1, 6)


def test_digest_changes_with_demands_and_not_with_texts(monkeypatch) -> None:
    schema = contract.Features.model_json_schema()
    before = contract.digest()
    name = next(iter(schema["properties"]))
    schema["properties"][name]["description"] = "other words"
    monkeypatch.setattr(contract.Features, "model_json_schema", lambda: schema)
    assert contract.digest() == before
    schema["properties"][name]["minimum"] = 7
    assert contract.digest() != before
