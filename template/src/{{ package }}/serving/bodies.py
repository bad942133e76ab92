"""What clients send and get: the bodies of the API, as /docs shows them."""

from datetime import datetime
from math import isfinite
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
)

from ..contract import KINDS, iso, utc
from ..project.features import Features

TIMES = [name for name, kind in KINDS.items() if kind == "time"]
TEXT = 10_000
"""Characters of a text in a request; the limit also makes pydantic refuse half a character."""


def _label(value: Any) -> Any:
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


Label = Annotated[
    Any,
    AfterValidator(_label),
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


class Row(Features):
    """The features; what no JSON or text can hold is refused, whatever the contract says of it."""

    model_config = ConfigDict(allow_inf_nan=False, str_max_length=TEXT, title="Features")
    if TIMES:
        _iso = field_validator(*TIMES, mode="before")(iso)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Ask(_Closed):
    """One row to predict."""

    features: Row
    key: Key | None = Field(None, description="Your own name for it; a late outcome can use it.")
    time: When | None = Field(None, description="When it happened, if not a feature; or now.")


class AskMany(_Closed):
    """Rows to predict."""

    rows: list[Ask] = Field(min_length=1)


class Answer(BaseModel):
    """A prediction. `id` is its name at the other routes."""

    id: str
    version: str
    prediction: Label
    probabilities: dict[str, float] | None = Field(None, description="Classification only.")


class AnswerMany(BaseModel):
    """Predictions in the order of the rows."""

    predictions: list[Answer]


class Outcome(_Closed):
    """What really happened: a label, or a number."""

    outcome: Label = Field(examples=[1])


class Accepted(BaseModel):
    """An outcome that will be in the journal."""

    id: str
    outcome: Label


class Kept(Answer):
    """A prediction as the journal has it."""

    key: str | None
    time: datetime
    contract: str
    features: dict[str, Any]
    outcome: Any


class Erased(BaseModel):
    """How many predictions there were."""

    predictions: int


class Problem(BaseModel):
    """Why a request was refused."""

    detail: Any
