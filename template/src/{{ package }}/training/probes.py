"""Rows that a model may meet and that its held-out rows need not hold."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from .. import contract
from ..contract import KINDS
from ..project.features import Features
from . import snapshots

MISSING = 16
"""Held-out rows in which a field goes missing; other changes are made in a quarter of them."""
KNOWN = 100
"""Categories of a field, out of those trained on, that are probed."""
MIXED = 200
"""Rows in which a random half of the fields are changed."""


@dataclass(frozen=True)
class Probe:
    """A held-out row with something changed."""

    row: Features
    field: str
    """What was changed; empty where more than one was."""
    kind: str
    """missing, or what the field holds: number, category, time; empty for some of each."""
    what: str
    """The change in words, after "where"."""


def probes(early: pd.DataFrame, late: pd.DataFrame) -> list[Probe]:
    """Held-out rows (`late`) with one field changed, then with several.

    Each field goes missing, takes the ends of its range in training (`early`) and values far out,
    or is a known, a new and an empty category. What the contract refuses is left out.
    """
    base = snapshots.records(late[snapshots.FIELDS].iloc[evenly(len(late), MISSING)])
    found: list[Probe] = []
    allowed: dict[str, list[Any]] = {name: [] for name in snapshots.FIELDS}
    for name in snapshots.FIELDS:
        for record, value in _changes(name, early[name], base):
            if row := _row(record | {name: value}):
                kind = "missing" if value is None else KINDS[name]
                found.append(Probe(row, name, kind, _in_words(name, value)))
                allowed[name].append(value)
    random = np.random.default_rng(0)
    several = [{name: None for name, values in allowed.items() if None in values}]
    for _ in range(MIXED):
        some = [name for name, values in allowed.items() if values and random.random() < 0.5]
        several.append({name: allowed[name][random.integers(len(allowed[name]))] for name in some})
    for i, changed in enumerate(several):
        row = _row(base[i % len(base)] | changed)
        if row and len(changed) > 1:
            kind = "missing" if all(value is None for value in changed.values()) else ""
            what = ", ".join(_in_words(*item) for item in changed.items())
            found.append(Probe(row, "", kind, what))
    return found


def evenly(n: int, wanted: int) -> np.ndarray:
    """At most `wanted` places out of `n`, evenly, the first and the last among them."""
    return np.linspace(0, n - 1, min(wanted, n)).round().astype(int)


def _changes(
    name: str, values: pd.Series, base: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Records, and the value that the field is to take in each."""
    yield from ((record, None) for record in base)
    kind = KINDS[name]
    known = _known(kind, values)
    for i, value in enumerate(known):
        yield base[i % len(base)], value
    for record in base[:: max(1, len(base) // 4)]:
        yield from ((record, value) for value in _far(kind, record[name], known))


def _known(kind: str, values: pd.Series) -> list[Any]:
    present = values.dropna()
    if kind == "category":
        return present.unique()[:KNOWN].tolist()
    ordered = present.sort_values()
    return ordered.iloc[evenly(len(ordered), 5)].tolist()


def _far(kind: str, value: Any, known: list[Any]) -> list[Any]:
    if kind == "category":
        return ["", "É è", "never seen"]
    if kind == "time":
        return [datetime(1970, 1, 1), datetime(2100, 1, 1)]
    if any(isinstance(v, str | bool | np.bool_) for v in known):
        return [0, 1]
    some = [v for v in (value, *known[:1], *known[-1:]) if v is not None]
    return [0, *(v * times for v in some for times in (-1, 10, 1000))]


def _row(record: dict[str, Any]) -> Features | None:
    try:
        (row,) = contract.read([record])
    except ValidationError:
        return None
    numbers = [row.__dict__[name] for name, kind in KINDS.items() if kind == "number"]
    return row if np.isfinite([n for n in numbers if n is not None]).all() else None


def _in_words(name: str, value: Any) -> str:
    if value is None:
        return f"{name} is missing"
    if isinstance(value, str):
        return f"{name} is {value[:40]!r}" if value else f"{name} is empty"
    return f"{name} is {value:.6g}" if isinstance(value, float) else f"{name} is {value}"
