"""From rows to columns to the model's input: the contract, read off `Features` in one place."""

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from numpy.typing import DTypeLike
from pydantic import BaseModel

from .errors import UserError
from .project.features import Features, derive

Columns = dict[str, np.ndarray]
"""One array a column, all of one length: numbers are float64 with NaN where missing, categories
are strings (object) with "" where missing, times are datetime64[us] with NaT where missing."""


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        kinds = {_kind(a) for a in get_args(annotation) if a is not NoneType}
        if len(kinds) == 1:
            return kinds.pop()
    elif get_origin(annotation) is Literal:
        return "category" if isinstance(get_args(annotation)[0], str) else "number"
    elif isinstance(annotation, type):
        if issubclass(annotation, datetime):
            return "time"
        if issubclass(annotation, str | Enum):
            return "category"
        if issubclass(annotation, float | int):
            return "number"
    raise UserError(
        f"Features: a field cannot be {annotation}; use float, int, bool, str, "
        "Literal, an Enum of strings or datetime, with | None where it may be missing"
    )


KINDS: dict[str, str] = {name: _kind(f.annotation) for name, f in Features.model_fields.items()}
"""Of each raw field: number, category or time."""
LARGEST = np.finfo(np.float32).max
NUMBERS = [name for name, kind in KINDS.items() if kind == "number"]
OTHERS = {name: kind for name, kind in KINDS.items() if kind != "number"}


def utc(time: datetime) -> datetime:
    """Without a zone, in UTC: a time that names no zone is taken as it stands."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def _number(values: list) -> np.ndarray:
    return np.array(values, dtype=np.float64)  # None becomes NaN


def _category(values: list) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = ["" if v is None else v.value if isinstance(v, Enum) else v for v in values]
    return column


def _time(values: list) -> np.ndarray:
    return np.array([v and utc(v) for v in values], dtype="datetime64[us]")  # None becomes NaT


_READ: dict[str, Callable[[list], np.ndarray]] = {
    "number": _number,
    "category": _category,
    "time": _time,
}


def columns(rows: Sequence[BaseModel]) -> Columns:
    """The raw columns of validated rows: the one place where None turns into a missing value.

    Raises ValueError naming the field whose value has no place in a column, such as 10**400.
    """
    read = [row.__dict__ for row in rows]
    try:
        # one array for all numbers: a call for each costs more than a small forest
        block = np.array([[row[name] for row in read] for name in NUMBERS], dtype=np.float64)
        found = dict(zip(NUMBERS, block, strict=True))
        for name, kind in OTHERS.items():
            found[name] = _READ[kind]([row[name] for row in read])
    except (ArithmeticError, ValueError):
        found = {name: _named(name, [row[name] for row in read]) for name in KINDS}
    return {name: found[name] for name in KINDS}


def _named(name: str, values: list) -> np.ndarray:
    try:
        return _READ[KINDS[name]](values)
    except (ArithmeticError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def names(derived: Columns) -> tuple[list[str], list[str]]:
    """The model's number columns and its category columns, in the order `derive` gives them."""
    numbers = [name for name, column in derived.items() if column.dtype != object]
    return numbers, [name for name in derived if name not in numbers]


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


def digest() -> str:
    """Names the contract: the fields, their types and what may be missing, not their texts."""

    def bare(schema: Any) -> Any:
        if isinstance(schema, dict):
            texts = ("title", "description", "examples")
            return {k: bare(v) for k, v in schema.items() if k not in texts or isinstance(v, dict)}
        return [bare(v) for v in schema] if isinstance(schema, list) else schema

    schema = json.dumps(bare(Features.model_json_schema()), sort_keys=True)
    return hashlib.sha256(schema.encode()).hexdigest()[:12]


__all__ = ["KINDS", "Columns", "columns", "derive", "digest", "matrices", "names", "stack", "utc"]
