"""What clients send and get: the bodies of the API, as /docs shows them."""

import json
from contextlib import suppress
from datetime import datetime
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
)

from ..bundle import Manifest
from ..contract import KINDS, iso, utc
from ..predict import label
from ..project.features import Features

ISO_TIMES = [name for name, kind in KINDS.items() if kind == "time"]
_SCHEMA = Features.model_json_schema(by_alias=False)["properties"]
NOT_BOOLEAN = [
    n for n, kind in KINDS.items() if kind == "number" and "boolean" not in str(_SCHEMA[n])
]
"""Fields that hold numbers and no booleans."""
CLASSES_SHOWN = 20
"""Classes named to who sends another."""
TEXT = 10_000
"""Characters of a text in a request; the limit also makes pydantic refuse half a character."""


def _storable(value: Any) -> Any:
    """A label as JSON has them, and as every database can keep them."""
    if isinstance(value, str):
        value.encode()  # raises for half a character, which JSON can spell
        fits = len(value) <= TEXT
    elif isinstance(value, int):  # true and false are ints too
        fits = -(2**63) <= value < 2**63
    else:
        fits = isinstance(value, float) and isfinite(value)
    if not fits:
        raise ValueError("should be true, false, a number or a text, as the target is")
    return value


def label_for(outcome: Any, classes: list[Any] | None, new: bool = False) -> Any:
    """The outcome as the target has it: 1 is true where the classes are true and false.

    `classes` are those of the model, None for a regression. With `new` one that the model does not
    know is taken too, if it is of their type. Raises ValueError saying what is wrong.
    """
    _storable(outcome)
    shown = json.dumps(outcome)[:50]
    if classes is None:
        if isinstance(outcome, str | bool):
            raise ValueError(f"{shown} should be a number")
        return outcome
    if outcome in classes:
        return classes[classes.index(outcome)]
    kind, fits = type(classes[0]), None
    with suppress(ValueError, OverflowError):  # "seven" is no int
        if bool not in (kind, type(outcome)) and kind(outcome) == outcome:
            fits = kind(outcome)
    if fits is None or not new:
        more = ", ..." if len(classes) > CLASSES_SHOWN else ""
        known = ", ".join(map(label, classes[:CLASSES_SHOWN])) + more
        hint = "" if fits is None else "; say new=true (make: NEW=1) if it is a new one"
        raise ValueError(f"{shown} is no class of the model ({known}){hint}")
    return fits


Label = Annotated[
    Any,
    AfterValidator(_storable),
    WithJsonSchema({"anyOf": [{"type": t} for t in ("boolean", "number", "string")]}),
]


def _utc(time: datetime) -> datetime:
    try:
        return utc(time)
    except OverflowError:
        raise ValueError("is out of range") from None


When = Annotated[datetime, BeforeValidator(iso), AfterValidator(_utc)]
"""A time in UTC without a zone; one that comes without a zone is taken as it stands."""
Key = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A client's own name for what is predicted; control characters would break a database or a log."""


def _no_boolean(value: Any) -> Any:
    """A number as it came; pydantic would take true for 1."""
    if value is True or value is False:
        raise ValueError("should be a number")
    return value


class RequestFeatures(Features):
    """The features; what no JSON or text can hold is refused, whatever the contract says of it."""

    model_config = ConfigDict(allow_inf_nan=False, str_max_length=TEXT)
    if NOT_BOOLEAN:
        _no_boolean = field_validator(*NOT_BOOLEAN, mode="before")(_no_boolean)
    if ISO_TIMES:
        _iso = field_validator(*ISO_TIMES, mode="before")(iso)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class PredictionRequest(_Closed):
    """One row to predict."""

    features: RequestFeatures
    key: Key | None = Field(None, description="Your own name for it; a late outcome can use it.")
    time: When | None = Field(None, description="When it happened, if not a feature; or now.")


class BatchRequest(_Closed):
    """Rows to predict."""

    rows: list[PredictionRequest] = Field(min_length=1)


class Prediction(BaseModel):
    """A prediction. `id` is its name at the other routes."""

    id: str
    version: str
    prediction: Label
    probabilities: dict[str, float] | None = Field(None, description="Classification only.")


class BatchPrediction(BaseModel):
    """Predictions in the order of the rows."""

    predictions: list[Prediction]


class OutcomeRequest(_Closed):
    """What really happened: a class that the model knows, or a number."""

    outcome: Label = Field(examples=[1])


class AcceptedOutcome(BaseModel):
    """An outcome that will be in the journal."""

    id: str
    outcome: Label


class StoredPrediction(Prediction):
    """A prediction as the journal has it."""

    key: str | None
    time: AwareDatetime = Field(description="When it happened, in UTC.")
    contract: str
    features: dict[str, Any]
    outcome: Label | None


class ErasedCount(BaseModel):
    """How many predictions were erased."""

    predictions: int


class Health(BaseModel):
    """The process lives."""

    status: Literal["live"] = "live"


class Readiness(BaseModel):
    """A model is served."""

    status: Literal["ready"] = "ready"
    version: str


class ServedModel(Manifest):
    """What is served: the version, the digest of its bundle, and what its manifest says."""

    version: str
    digest: str
    files: dict[str, str] = Field({}, exclude=True)


class RequestError(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int] = Field(description="Where: in the path, the query or the body.")
    msg: str
    type: str


class ErrorResponse(BaseModel):
    """Why a request was refused."""

    detail: str | list[RequestError]


_WHY = {
    400: "The body is no text in UTF-8, or nested too deeply.",
    404: "There is no such prediction, or the server keeps no journal.",
    413: "The body is too large.",
    415: "The body is no JSON, or compressed.",
    422: "The field and what is wrong with it.",
    503: "No model yet, or no journal at the moment; Retry-After says when to try again.",
}
BODY = (400, 413, 415, 422)
"""How an operation that takes a body may refuse it."""


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How an operation may refuse a request, as FastAPI takes it for /docs."""
    return {s: {"model": ErrorResponse, "description": _WHY[s]} for s in sorted(statuses)}
