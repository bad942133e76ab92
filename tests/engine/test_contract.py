"""The contract reads rows in one way, and names itself by what it demands."""

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from flight_delays import contract
from flight_delays.errors import UserError


def test_times_with_a_zone_become_utc() -> None:
    zone = timezone(timedelta(hours=-5))
    assert contract.utc(datetime(2013, 1, 1, 6, tzinfo=zone)) == datetime(2013, 1, 1, 11)
    assert contract.utc(datetime(2013, 1, 1, 6, tzinfo=UTC)) == datetime(2013, 1, 1, 6)
    assert contract.utc(datetime(2013, 1, 1, 6)) == datetime(2013, 1, 1, 6)


class Flight(BaseModel):
    """The contract that version 0.1.0 seeded."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    scheduled_departure: datetime = Field(examples=["2013-01-01T06:00:00"])
    carrier: str = Field(examples=["EV"], description="IATA code of the airline")
    origin: str = Field(examples=["LGA"])
    destination: str = Field(examples=["IAD"])
    distance: float = Field(examples=[229], description="miles")
    plane_year: float | None = Field(None, examples=[1998], description="year built")
    seats: float | None = Field(None, examples=[55])
    temperature: float | None = Field(None, examples=[39.9], description="degrees Fahrenheit")
    humidity: float | None = Field(None, examples=[54.8], description="percent")
    wind_speed: float | None = Field(None, examples=[16.1], description="mph")
    precipitation: float | None = Field(None, examples=[0.0], description="inches")
    pressure: float | None = Field(None, examples=[1011.7], description="millibars")
    visibility: float | None = Field(None, examples=[10.0], description="miles")


def test_a_bundle_of_the_first_version_follows_its_contract_still() -> None:
    assert contract.former(Flight) == "423804d492f6"
    assert contract.digest(Flight) == "0c31f7df3c78", "bundles carry it: it is for ever"
    assert contract.matches(contract.former())
    assert contract.matches(contract.digest())
    assert not contract.matches(contract.digest(Flight) + "0")


def digest(annotation: Any, field: Any = ..., **config: Any) -> str:
    rules: Any = config
    made = create_model("Features", __config__=rules, x=(annotation, field))
    return contract.digest(made)


def test_digest_changes_with_demands_and_not_with_texts() -> None:
    before = digest(float)
    assert digest(float, Field(title="X", description="a text", examples=[1])) == before
    others = {
        digest(int),
        digest(float | None),
        digest(float | None, None),
        digest(float, 1.0),
        digest(float, Field(ge=7)),
        digest(float, Field(le=7)),
        digest(Annotated[float, Field(ge=8)]),
        digest(float, Field(alias="X")),
        digest(float, extra="forbid"),
        digest(str),
        digest(str, Field(max_length=3)),
        digest(str, Field(pattern="a.*")),
        digest(Literal["a", "b"]),
        digest(Literal["a", "c"]),
        digest(Enum("E", {"x": "a"})),
        digest(Enum("E", {"x": "b"})),
        digest(datetime),
    }
    assert len(others - {before}) == 17
    assert digest(Literal["b", "a"]) == digest(Literal["a", "b"])
    assert digest(float | None) == digest(None | float)


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (float | None, "number"),
        (Annotated[int, Field(ge=0)] | None, "number"),
        (bool, "number"),
        (Literal[1, 2], "number"),
        (Literal["a", None], "category"),
        (Literal["a"] | None, "category"),
        (Enum("E", {"x": "a"}), "category"),
        (datetime | None, "time"),
    ],
)
def test_a_field_is_a_number_a_category_or_a_time(annotation: Any, kind: str) -> None:
    assert contract._kind(annotation) == kind


@pytest.mark.parametrize("annotation", [Literal["a", 1], str | float, list[str], bytes, None, Any])
def test_a_field_of_no_kind_is_refused_by_name(annotation: Any) -> None:
    with pytest.raises(UserError, match=r"a field cannot be .*; use float"):
        contract._kind(annotation)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (np.array(["2013-01-01"], "datetime64[us]"), r"leaves x a time"),
        (np.array([1], "timedelta64[s]"), r"leaves x a time"),
        (np.array(["a", None], object), r"gives x as object, such as None"),
        (np.array([datetime(2013, 1, 1)], object), r"such as datetime"),
        (np.array([1j]), r"gives x as complex128"),
        (np.array([[1.0]]), r"one-dimensional NumPy array for x"),
        ([1.0], r"one-dimensional NumPy array for x"),
        (np.array([1.0, 2.0]), r"gives 2 values of x for 1 rows"),
    ],
)
def test_what_no_model_can_take_is_refused_by_name(column: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        contract.names({"x": column}, None if "2 values" not in said else 1)
    assert "\n" not in str(error.value)


def test_numbers_truths_and_texts_are_columns() -> None:
    given = {"a": np.array([True]), "b": np.array([1]), "c": np.array(["x"]), "d": np.array([1.0])}
    assert contract.names(given, 1) == (["a", "b", "d"], ["c"])
    with pytest.raises(UserError, match="gives no columns"):
        contract.names({})


@pytest.mark.parametrize("value", [1_700_000_000, 1.5, "20230514", "1700000000", "14/05/2023"])
def test_a_time_that_would_be_guessed_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match="not an ISO 8601 time"):
        contract.iso(value)
    assert contract.iso("2023-05-14T06:00:00+01:00")
    assert contract.iso(datetime(2023, 5, 14))
