"""Rows that a model may meet and that its held-out rows need not hold."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from . import contract, data
from .contract import KINDS
from .project.features import Features

MISSING = 16
"""Held-out rows in which a field goes missing; other changes are made in a quarter of them."""
KNOWN = 100
"""Categories of a field, out of those trained on, that are probed."""
MIXED = 50
"""Rows in which a random half of what may be missing is missing."""


@dataclass(frozen=True)
class Probe:
    """A held-out row with something changed."""

    row: Features
    field: str
    """What was changed; empty for more than one."""
    kind: str
    """missing, or the kind of the field: number, category, time."""
    what: str
    """The change in words, after "where"."""


def probes(early: pd.DataFrame, late: pd.DataFrame) -> list[Probe]:
    """Held-out rows (`late`) with one field changed, or with several missing.

    Each field goes missing, takes the ends of its range in training (`early`) and values far out,
    or is a known, a new and an empty category. What the contract refuses is left out.
    """
    base = data.records(late[data.FIELDS].iloc[spread(len(late), MISSING)])
    found = [probe for name in data.FIELDS for probe in _of(name, early[name], base)]
    gone = sorted({probe.field for probe in found if probe.kind == "missing"})
    if len(gone) > 1:
        random = np.random.default_rng(0)
        chosen = [gone, *([n for n in gone if random.random() < 0.5] for _ in range(MIXED))]
        for i, names in enumerate(chosen):
            row = _row(base[i % len(base)] | dict.fromkeys(names))
            if row and len(names) > 1:
                words = f"{', '.join(names)} are missing"
                found.append(Probe(row, "", "missing", words))
    return found


def spread(n: int, wanted: int) -> np.ndarray:
    """At most `wanted` places out of `n`, evenly, the first and the last among them."""
    return np.linspace(0, n - 1, min(wanted, n)).round().astype(int)


def _of(name: str, values: pd.Series, base: list[dict[str, Any]]) -> Iterator[Probe]:
    for record in base:
        if row := _row(record | {name: None}):
            yield Probe(row, name, "missing", f"{name} is missing")
    kind = KINDS[name]
    for i, value in enumerate(_known(kind, values)):
        if row := _row(base[i % len(base)] | {name: value}):
            yield Probe(row, name, kind, f"{name} is {_shown(value)}")
    for record in base[:: max(1, len(base) // 4)]:
        for value in _far(kind, record[name]):
            if row := _row(record | {name: value}):
                yield Probe(row, name, kind, f"{name} is {_shown(value)}")


def _known(kind: str, values: pd.Series) -> list[Any]:
    present = values.dropna()
    if kind == "category":
        return present.unique()[:KNOWN].tolist()
    ordered = present.sort_values()
    return ordered.iloc[spread(len(ordered), 5)].tolist()


def _far(kind: str, value: Any) -> list[Any]:
    if kind == "category":
        return ["", "É è", "never seen"]
    if kind == "time":
        return [datetime(1970, 1, 1), datetime(2100, 1, 1)]
    if value is None or isinstance(value, str | bool | np.bool_):
        return [0, 1]
    return [0, -value, value * 10, value * 1000]


def _row(record: dict[str, Any]) -> Features | None:
    try:
        (row,) = contract.read([record])
    except ValidationError:
        return None
    numbers = [row.__dict__[name] for name, kind in KINDS.items() if kind == "number"]
    return row if np.isfinite([n for n in numbers if n is not None]).all() else None


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value[:40]) if value else "empty"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
