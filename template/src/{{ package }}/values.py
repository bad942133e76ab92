"""What a value of a table is: a time, a key, a label, a number, each read in one way or refused.

pandas would guess: the unit of a number, a day or a month first, a float in place of an integer.
"""

import re
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from .contract import ISO
from .errors import UserError
from .sources import EXACT

TRUTH = "true or false"
"""The kind of a label that is a bool."""


def plain(column: pd.Series) -> list[Any]:
    """Plain Python values, None where missing."""
    values = column.astype(object).where(column.notna(), None)
    return [v.item() if isinstance(v, np.generic) else v for v in values]


def cut(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def times(column: pd.Series, where: str) -> pd.Series:
    """Times in UTC without a zone, to the microsecond; those that name no zone as they stand.

    Taken are times, and texts as ISO 8601 writes them, all with an offset or all without. Raises
    UserError.
    """
    if isinstance(column.dtype, pd.ArrowDtype):
        column = column.astype(object)
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        values = plain(column)
        offsets: dict[bool, tuple[Any, Any]] = {}
        for i, (row, value) in enumerate(zip(column.index, values, strict=True)):
            if isinstance(value, str) and (written := re.fullmatch(ISO, value)):
                offsets.setdefault(written["offset"] is not None, (row, value))
                values[i] = re.sub(r"(\.\d{6})\d+", r"\1", value.upper())
            elif isinstance(value, datetime):
                offsets.setdefault(value.tzinfo is not None, (row, value))
            elif not isinstance(value, date | None):
                raise _no_time(where, row, value)
        if len(offsets) == 2:
            with_one, without = offsets[True], offsets[False]
            raise UserError(
                f"{where}: {cut(with_one[1])} in row {with_one[0]} has an offset from UTC and "
                f"{cut(without[1])} in row {without[0]} has none; write all with one or all "
                "without, in clean() of project/data.py"
            )
        texts = pd.Series(values, index=column.index, dtype=object)
        found = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
        for row, value in column[found.isna() & column.notna()].items():
            raise _no_time(where, row, value)
        column = found
    if column.dt.tz is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return column.dt.as_unit("us")


def _no_time(where: str, row: Any, value: Any) -> UserError:
    return UserError(
        f"{where}: {cut(value)} in row {row} is not an ISO 8601 time, such as "
        "2013-01-01T06:00:00Z; parse it in clean() of project/data.py, where "
        "pd.to_datetime(..., format=...) says what it means"
    )


def keys(column: pd.Series, where: str) -> pd.Series:
    """Keys as texts, as the source has them; raises UserError for one that has lost digits."""

    def text(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and abs(value) >= EXACT:
            raise ValueError
        if isinstance(value, float | Decimal) and value == int(value):
            return str(int(value))
        if not isinstance(value, str | int | float | Decimal | date | UUID):
            raise TypeError
        return value.isoformat() if isinstance(value, date) else str(value)

    if pd.api.types.is_integer_dtype(column.dtype):
        return column.astype("string")
    made = []
    for row, value in zip(column.index, plain(column), strict=True):
        try:
            made.append(None if value is None else text(value))
        except TypeError:
            raise UserError(
                f"{where}: {cut(value)} in row {row} is no key; make a text or an integer of "
                "it in clean() of project/data.py"
            ) from None
        except (ValueError, OverflowError):
            raise UserError(
                f"{where}: {value!r} in row {row} is a float, which does not hold every digit of "
                "so large a key; read the column as text or as integers"
            ) from None
    return pd.Series(made, index=column.index, dtype="string")


def exact(column: pd.Series, where: str) -> None:
    """Raises UserError for an integer that float64 would round."""
    if pd.api.types.is_float_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        return
    if pd.api.types.is_integer_dtype(column.dtype):
        column = column[(column > EXACT) | (column < -EXACT)]
    for row, value in zip(column.index, plain(column), strict=True):
        digits = isinstance(value, str) and re.fullmatch(r"[+-]?\d{16,}", value.strip())
        number = int(value) if digits else value
        if not isinstance(number, int) or abs(number) <= EXACT:
            continue
        if abs(number) >= 2**63 or float(number) != number:
            raise UserError(
                f"{where}: {number} in row {row} is more than float64 holds to the unit; make "
                "the field a str if it is an identifier, or subtract or divide in clean() of "
                "project/data.py"
            )


def kind(label: Any) -> str | None:
    """What a label is, in words; None for what can be none."""
    if isinstance(label, bool):
        return TRUTH
    if isinstance(label, int | float):
        return "a number" if isinstance(label, int) or isfinite(label) else None
    return "a text" if isinstance(label, str) else None


def labels(column: pd.Series, where: str) -> pd.Series:
    """Labels of a plain type; raises UserError where they are of several or of none."""
    values = [float(v) if isinstance(v, Decimal) else v for v in plain(column)]
    first, row = kind(values[0]), column.index[0]
    for i, value in zip(column.index, values, strict=True):
        if (own := kind(value)) is None or own != first:
            beside = f" beside {cut(values[0])} in row {row}" if first and own else ""
            raise UserError(
                f"{where}: {cut(value)} in row {i}{beside}; one target, one value a row, "
                "all texts, all numbers or all true and false"
            )
    made = pd.Series(values, index=column.index).infer_objects()
    if made.dtype == object:
        raise UserError(f"{where}: holds integers of more than 64 bits; make texts of them")
    return made
