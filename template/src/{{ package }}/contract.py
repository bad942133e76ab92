"""From rows to columns to the model's input: the contract, read off `Features` in one place."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from numpy.typing import DTypeLike
from pydantic import AliasChoices, BaseModel, TypeAdapter

from .errors import UserError
from .project.features import Features
from .project.features import derive as derive  # others call it here

Columns = dict[str, np.ndarray]
"""One array a column, all of one length: numbers are float64 with NaN where missing, categories
are strings (object) with "" where missing, times are datetime64[us] with NaT where missing."""


def _types(annotation: Any) -> set[type]:
    """The Python types of a field's values, None apart."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _types(inner[0])
    if origin in (Union, UnionType):
        return {t for a in inner for t in _types(a)}
    return ({type(value) for value in inner} if origin is Literal else {annotation}) - {NoneType}


def _kind(annotation: Any) -> str:
    types = _types(annotation)
    for kind, classes in _CLASSES.items():
        if types and all(isinstance(t, type) and issubclass(t, classes) for t in types):
            return kind
    raise UserError(
        f"Features: a field cannot be {annotation}; use float, int, bool, str, "
        "Literal, an Enum of strings or datetime, with | None where it may be missing"
    )


_CLASSES = {"time": datetime, "category": str | Enum, "number": float | int}
KINDS: dict[str, str] = {name: _kind(f.annotation) for name, f in Features.model_fields.items()}
"""Of each raw field: number, category or time."""
ALIASES: dict[str, list[str]] = {
    name: [a for a in getattr(alias, "choices", [alias]) if isinstance(a, str)]
    for name, field in Features.model_fields.items()
    if isinstance(alias := field.validation_alias, str | AliasChoices)
}
"""What else a field is called, where rows come in: the aliases that pydantic takes."""
ROWS: TypeAdapter[list[Features]] = TypeAdapter(list[Features])
TYPES: dict[str, set[type]] = {n: _types(f.annotation) for n, f in Features.model_fields.items()}
"""Of each raw field: the Python types of its values, None apart."""
NUMBERS = [name for name, kind in KINDS.items() if kind == "number"]
LARGEST = np.finfo(np.float32).max
# A date alone, or with a time of day, and that with an offset from UTC or without.
ISO = (
    r"\d{4}-\d\d-\d\d"
    r"([Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(?P<offset> ?([Zz]|[+-]\d\d(:?\d\d)?))?)?"
)


def iso(value: Any) -> Any:
    """What comes in for a time, as it is; raises ValueError for a text or number that is no time.

    20230514 and 1700000000 are read one way by one library and another way by the next.
    """
    if isinstance(value, int | float | Decimal) or (
        isinstance(value, str | bytes) and not (isinstance(value, str) and re.fullmatch(ISO, value))
    ):
        raise ValueError("is not an ISO 8601 time, such as 2013-01-01T06:00:00Z")
    return value


def read(rows: Sequence[Mapping[str, Any]]) -> list[Features]:
    """Rows that were kept as JSON, validated: fields by their alias or by their name.

    Raises pydantic's ValidationError.
    """
    return ROWS.validate_python(rows, by_alias=True, by_name=True)


def sent(row: BaseModel) -> dict[str, Any]:
    """A row as JSON, as a client sends it: fields by their alias where they have one."""
    values = row.model_dump(mode="json").items()
    return {next(iter(ALIASES.get(name, ())), name): value for name, value in values}


def utc(time: datetime) -> datetime:
    """Without a zone, in UTC: a time that names no zone is taken as it stands."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def columns(rows: Sequence[BaseModel]) -> Columns:
    """The raw columns of validated rows: the one place where None turns into a missing value.

    Raises ValueError naming the field whose value has no place in a column, such as 10**400.
    """
    read = [row.__dict__ for row in rows]
    try:
        # one array for all numbers: a call for each costs more than a small forest
        numbers = [*np.array([[row[n] for row in read] for n in NUMBERS], dtype=np.float64)]
    except (ArithmeticError, ValueError):
        numbers = [_column(name, read) for name in NUMBERS]  # says which
    found = dict(zip(NUMBERS, numbers, strict=True))
    return {name: found[name] if name in found else _column(name, read) for name in KINDS}


def _column(name: str, rows: list[dict[str, Any]]) -> np.ndarray:
    values = [row[name] for row in rows]
    try:
        if KINDS[name] == "number":
            return np.array(values, dtype=np.float64)  # None becomes NaN
        if KINDS[name] == "time":
            return np.array([v and utc(v) for v in values], dtype="datetime64[us]")  # None: NaT
    except (ArithmeticError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
    column = np.empty(len(values), dtype=object)
    column[:] = ["" if v is None else v.value if isinstance(v, Enum) else v for v in values]
    return column


def from_frame(frame: Any) -> Columns:
    """The raw columns of a table (pandas) that holds validated values, as `columns` gives them."""
    found = {}
    for name, kind in KINDS.items():
        if kind == "number":
            found[name] = frame[name].to_numpy(np.float64, na_value=np.nan)
        elif kind == "time":
            found[name] = frame[name].to_numpy("datetime64[us]")
        else:
            found[name] = frame[name].astype(object).where(frame[name].notna(), "").to_numpy()
    return found


def names(derived: Columns, rows: int | None = None) -> tuple[list[str], list[str]]:
    """The model's number columns and its category columns, in the order `derive` gives them.

    Raises UserError naming the column that a model cannot take: one that is neither numbers nor
    strings, or that does not have a value for each of the `rows`.
    """
    where = "project/features.py: derive()"
    if not isinstance(derived, Mapping) or not derived:
        raise UserError(f"{where} gives no columns; give a dict of NumPy arrays")
    numbers, categories = [], []
    for name, column in derived.items():
        if not isinstance(column, np.ndarray) or column.ndim != 1:
            raise UserError(f"{where} must return a one-dimensional NumPy array for {name}")
        n = len(next(iter(derived.values()))) if rows is None else rows
        if len(column) != n:
            raise UserError(
                f"{where} gives {len(column):,} values of {name} for {n:,} rows; give one a row"
            )
        if column.dtype.kind in "biuf":
            numbers.append(name)
            continue
        if column.dtype.kind in "mM":
            raise UserError(
                f"{where} leaves {name} a time ({column.dtype}), which no model accepts; make "
                "numbers of it, such as the hour, or leave it out"
            )
        strange = [v for v in column if not isinstance(v, str)] if column.dtype != str else []
        if column.dtype.kind not in "OUT" or strange:
            value = f", such as {strange[0]!r}" if strange else ""
            raise UserError(
                f"{where} gives {name} as {column.dtype}{value}; a column holds numbers, or "
                'strings only ("" where missing)'
            )
        categories.append(name)
    return numbers, categories


def matrices(
    derived: Columns, numbers: Sequence[str], categories: Sequence[str], dtype: DTypeLike
) -> tuple[np.ndarray, np.ndarray]:
    """The model's input: numbers (n, a) as `dtype`, categories (n, b) as strings.

    Numbers are limited to what float32 holds, which is what scikit-learn's trees take.
    """
    n = len(next(iter(derived.values())))
    left = np.empty((n, len(numbers)), dtype=dtype)
    with np.errstate(over="ignore"):
        for i, name in enumerate(numbers):
            left[:, i] = derived[name]
    np.clip(left, -LARGEST, LARGEST, out=left)  # scikit-learn refuses infinity, ONNX does not
    right = np.empty((n, len(categories)), dtype=object)
    for i, name in enumerate(categories):
        right[:, i] = derived[name]
    return left, right


def stack(numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Both matrices side by side (n, a + b), as scikit-learn takes them."""
    if not categories.shape[1]:
        return numbers
    return np.hstack([numbers.astype(object), categories])


def digest(model: type[BaseModel] = Features) -> str:
    """Names the contract: the fields, their types, limits and defaults, not their texts.

    The description is our own: pydantic's schema would be another after an upgrade.
    """
    fields = {
        name: [
            field.validation_alias if isinstance(field.validation_alias, str) else None,
            _type(field.annotation),
            sorted(filter(None, map(_limit, field.metadata))),
            None if field.is_required() else _named_by(field.get_default()),
            field.is_required(),
        ]
        for name, field in model.model_fields.items()
    }
    config = {k: v for k, v in model.model_config.items() if k in _DEMANDS}
    text = json.dumps([fields, config], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def matches(other: str) -> bool:
    """Whether a bundle or a row follows this contract, by the digest it carries."""
    return other in (digest(), former())


_DEMANDS = {
    *("extra", "allow_inf_nan", "strict", "str_max_length", "str_min_length"),
    *("str_strip_whitespace", "str_to_lower", "str_to_upper", "coerce_numbers_to_str"),
}
"""The settings of a model that say what is taken."""


def _type(annotation: Any) -> Any:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return [_type(inner[0]), *sorted(filter(None, map(_limit, inner[1:])))]
    if origin in (Union, UnionType):
        return sorted((_type(a) for a in inner), key=repr)
    if origin is Literal:
        return ["one of", *sorted(map(repr, inner))]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ["one of", *sorted(repr(member.value) for member in annotation)]
    return annotation.__name__


def _limit(rule: Any) -> str:
    """A limit such as ge=0, or a pattern; a validator of one's own by its name."""
    names = getattr(rule, "__dataclass_fields__", None) or getattr(rule, "__dict__", {})
    values = {name: getattr(rule, name) for name in sorted(names)}
    return " ".join(f"{k}={_named_by(v)!r}" for k, v in values.items() if v is not None)


def _named_by(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else getattr(value, "__qualname__", value)


@cache
def former(model: type[BaseModel] = Features) -> str:
    """The digest that version 0.1.0 gave: bundles and journals of that time carry it."""

    def bare(schema: Any) -> Any:
        if isinstance(schema, dict):
            texts = ("title", "description", "examples")
            return {k: bare(v) for k, v in schema.items() if k not in texts or isinstance(v, dict)}
        return [bare(v) for v in schema] if isinstance(schema, list) else schema

    schema = json.dumps(bare(model.model_json_schema()), sort_keys=True)
    return hashlib.sha256(schema.encode()).hexdigest()[:12]
