"""Late labels from a table, into the journal: what the API takes one at a time."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from .. import values
from ..errors import UserError, reason, shown
from ..project.features import KEY, TIME
from ..serving.journal.store import Journal
from ..serving.journal.tables import NEVER, OUTCOMES, PREDICTIONS, outcome_line
from ..serving.schemas import Key, Label, label_for
from ..sources import csv_options, read
from ..training import snapshots

ID = "prediction_id" if "id" in (KEY, TIME) else "id"
"""The column of a prediction's id, in what is scored and in what is told of it."""
OUTCOME = "outcome"
WHEN = TIME or "time"
BATCH = 1000
SHOWN = 5
_KEY, _LABEL = TypeAdapter(Key), TypeAdapter(Label)


@dataclass
class Written:
    """What became of a table of labels: all were written or, if one was refused, none."""

    labels: int = 0
    """Rows that have a label."""
    without: int = 0
    """Rows that have none yet; they are passed over."""
    matched: int = 0
    """Labels of predictions that the journal holds."""
    early: int = 0
    """Labels by key and time whose prediction may still come."""
    replaced: int = 0
    """Labels in place of one that was told before."""
    refused: list[str] = field(default_factory=list)
    """Which rows were refused, and why; rows are counted from 0."""


def write_outcomes(
    journal: Journal, classes: list[Any] | None, uri: str, new: bool = False
) -> Written:
    """Sets the outcomes of a CSV, Parquet or SQL table; writes all of them, or none.

    A row names its prediction by ID, or by KEY and TIME as the API does with `?time=`. Its label
    stands in a column `outcome`, or is what project/target.py makes of the raw columns. `classes`
    are the model's, None for a regression; with `new` others are taken, too. Raises UserError when
    the table cannot be read or lacks a column, or when the journal fails.
    """
    there = shown(uri)
    frame = _texts(read(uri), uri, classes)
    if OUTCOME not in frame:
        try:
            frame = snapshots.clean(frame, there)
            frame = frame.assign(**{OUTCOME: snapshots.labels(frame, there)})
        except UserError as error:
            raise UserError(f"{error}; or name the column of labels {OUTCOME}") from None
    labels = frame[OUTCOME]
    refs, times = _references(frame, there)
    written, lines = Written(without=int(labels.isna().sum())), []
    wanted: list[tuple[int, str, datetime]] = []
    rows = zip(labels.astype(object), labels.notna(), refs, times, strict=True)
    for row, (value, labelled, ref, at) in enumerate(rows):
        if not labelled:
            continue
        written.labels += 1
        try:
            name = _checked(_KEY, ID if at is NEVER else KEY, ref)
            if at is None:
                raise ValueError(f"{WHEN} is missing or no time")
            outcome = _label(value, classes, new)
        except ValueError as error:
            written.refused.append(f"row {row}: {error}")
            continue
        wanted.append((row, name, at))
        lines.append(outcome_line(name, outcome, None if at is NEVER else at))
    try:
        _match(journal, wanted, written)
        for part in [] if written.refused else chunks(lines):
            journal.insert_outcomes(part)
    except sa.exc.SQLAlchemyError as error:
        raise UserError(
            f"journal: {reason(error)}; run it again: a label that was written is overwritten"
        ) from None
    return written


def refusal(written: Written, uri: str) -> str:
    """A line that says what was refused and how the first rows would pass."""
    more = "; ..." if len(written.refused) > SHOWN else ""
    return (
        f"{shown(uri)}: {len(written.refused):,} of {written.labels:,} labels are refused, "
        f"so none is written: {'; '.join(written.refused[:SHOWN])}{more}"
    )


def _texts(frame: pd.DataFrame, uri: str, classes: list[Any] | None) -> pd.DataFrame:
    """The same table with ids, keys and texts as they stand in a CSV: 007 is no number there."""
    names = {ID, KEY, *([OUTCOME] if _are_texts(classes) else [])}
    if uri.endswith((".csv", ".csv.gz")) and (texts := [name for name in frame if name in names]):
        options = csv_options(uri) | {"dtype": str, "usecols": texts, "parse_dates": False}
        frame = frame.assign(**pd.read_csv(uri, **options))
    return frame


def _are_texts(classes: list[Any] | None) -> bool:
    return classes is not None and isinstance(classes[0], str)


def _references(frame: pd.DataFrame, uri: str) -> tuple[pd.Series, Sequence[datetime | None]]:
    """What each row names its prediction by, and the event's time, NEVER where it is by id."""
    if ID in frame:
        return frame[ID], [NEVER] * len(frame)
    if KEY is None or not {KEY, WHEN} <= set(frame):
        own = f" or {KEY} and {WHEN}" if KEY else ""
        raise UserError(
            f"{uri}: cannot match labels to predictions: it needs a column {ID} (the "
            f"prediction's){own}; it has {', '.join(map(str, frame))}"
        )
    times = values.times(frame[WHEN], f"{uri}: column {WHEN}")
    at = [None if pd.isna(t) else t.to_pydatetime() for t in times]
    return values.keys(frame[KEY], f"{uri}: column {KEY}"), at


def _checked(kind: TypeAdapter[Any], name: str | None, value: Any) -> Any:
    if value is pd.NA or value is None or value != value:  # as NaN
        raise ValueError(f"{name} is missing")
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{name} {value!r}: {said}") from None


def _label(value: Any, classes: list[Any] | None, new: bool) -> Any:
    value = _checked(_LABEL, OUTCOME, value)
    plain = value
    if isinstance(value, str) and not _are_texts(classes):
        with suppress(ValueError):  # one word among them, and a CSV's whole column is text
            plain = json.loads(value.lower())
    try:
        return label_for(plain, classes, new)
    except ValueError as error:
        raise ValueError(f"{OUTCOME} {error}") from None


def _match(journal: Journal, wanted: list[tuple[int, str, datetime]], written: Written) -> None:
    """Counts the labels, (row, id or key, time), by what the journal holds; an id that it does not
    know is refused."""
    predictions, outcomes = PREDICTIONS.c, OUTCOMES.c
    with journal.engine.connect() as connection:

        def found(name: Any, at: Any, pairs: Sequence[tuple[str, datetime]]) -> set[Any]:
            # by name first: SQLite looks up no pair in an index
            names = name.in_([ref for ref, _ in pairs])
            query = sa.select(name, at).where(names, sa.tuple_(name, at).in_(pairs))
            return {tuple(row) for row in connection.execute(query)}

        for part in chunks(wanted):
            by_id = [ref for _, ref, at in part if at is NEVER]
            by_key = [(ref, at) for _, ref, at in part if at is not NEVER]
            ids = sa.select(predictions.id).where(predictions.id.in_(by_id))
            known = {
                *connection.execute(ids).scalars(),
                *found(predictions.key, predictions.at, by_key),
            }
            written.replaced += len(
                found(outcomes.ref, outcomes.at, [(ref, at) for _, ref, at in part])
            )
            for row, ref, at in part:
                if (ref if at is NEVER else (ref, at)) in known:
                    written.matched += 1
                elif at is NEVER:
                    written.refused.append(f"row {row}: no prediction {ref}")
                else:
                    written.early += 1


def chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """At most BATCH of them at a time: what one statement of a database takes."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
