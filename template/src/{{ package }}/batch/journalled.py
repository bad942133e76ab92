"""Keeps what is scored in batches in the journal, as what is served is kept.

The lines are made with the predictions, wait beside them, and are written once all rows are scored.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from .. import contract
from ..bundle import Bundle
from ..errors import UserError, reason
from ..project.features import KEY, TIME, Features
from ..serving.journal.store import Journal
from ..serving.journal.tables import line
from ..serving.schemas import Key
from .outcomes import ID, chunks

_KEY = TypeAdapter(Key)


@dataclass(frozen=True)
class Job:
    """A scoring whose rows are kept."""

    name: str
    """Of what is read by which bundle and written where: a digest."""
    environment: str


def identified(
    table: pd.DataFrame,
    bundle: Bundle,
    rows: Sequence[Features],
    answers: Sequence[dict[str, Any]],
    job: Job,
    start: int,
) -> list[bytes]:
    """Puts each prediction's ID into its table, and returns the lines for the journal.

    `table` holds KEY and TIME where there are. An id is made of the job, the row's number and what
    it holds: the same row of the same source, scored again by the same version, is no second
    prediction. As in the API, a row without a finite answer is no prediction: it has no id.
    Raises UserError for a KEY that no journal takes.
    """
    now = datetime.now(UTC).replace(tzinfo=None)
    version, own = bundle.version, contract.digest()
    ids: list[str | None] = []
    lines: list[bytes] = []
    keys = table[KEY] if KEY in table else [None] * len(table)
    times = table[TIME] if TIME in table else [None] * len(table)
    for i, (row, answer, key, at) in enumerate(zip(rows, answers, keys, times, strict=True), start):
        if not _finite(answer):
            ids.append(None)
            continue
        name, when = None if pd.isna(key) else _name(key, i), None if pd.isna(at) else at
        features = row.model_dump_json(by_alias=True)
        seed = f"{job.name}\n{i}\n{name}\n{when}\n{features}"
        made = hashlib.sha256(seed.encode()).hexdigest()[:32]
        ids.append(made)
        lines.append(line(made, name, when or now, version, own, row, answer, job.environment))
    table.insert(0, ID, pd.Series(ids, dtype=object))
    return lines


def _finite(answer: dict[str, Any]) -> bool:
    numbers = answer.get("probabilities", answer).values()
    return all(isfinite(number) for number in numbers)


def _name(key: Any, row: int) -> str:
    try:
        return _KEY.validate_python(str(key))
    except ValidationError as error:
        raise UserError(f"row {row}: {KEY} {key!r}: {error.errors()[0]['msg']}") from None


def write(journal: Journal, paths: Sequence[Path]) -> None:
    """Writes the lines of files; what the journal holds already stays as it is.

    Raises UserError when the database fails.
    """
    try:
        for path in paths:
            for part in chunks(path.read_bytes().splitlines()):  # within a line they are escaped
                journal.insert_predictions(part)
    except sa.exc.SQLAlchemyError as error:
        raise UserError(
            f"journal: {reason(error)}; run it again: what is written is not written twice"
        ) from None
