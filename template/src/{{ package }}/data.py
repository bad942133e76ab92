"""Rows to train on: loaded, validated against the contract, and kept as a snapshot.

A snapshot is a Parquet file named by what it holds, and training reads nothing else: the same
fingerprint is the same data, for ever.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from . import contract
from .bundle import ROWS, sha256
from .contract import KINDS, Columns
from .errors import UserError, reason, shown
from .progress import console
from .project import data as project
from .project.features import KEY, TIME, Features
from .project.target import TARGET, target
from .serving.journal import opened
from .settings import Settings

SNAPSHOTS = Path("data/snapshots")
CHUNK = 10_000
SHOWN = 20
FIELDS = list(Features.model_fields)
ARRIVAL = "_arrival"
"""Without TIME, when a row came: a row of the journal when it got its label, before that those of
the source, a microsecond each from 1970 on. A label that comes late moves no other row."""
ROWS_END = pd.Timestamp("1971-01-01")
TIMES = [name for name, kind in KINDS.items() if kind == "time"]


@dataclass(frozen=True)
class Snapshot:
    """An immutable table: KEY, TIME or ARRIVAL, the contract's columns, TARGET; by time."""

    path: Path
    fingerprint: str
    source: str

    def read(self) -> pd.DataFrame:
        """The table."""
        return pd.read_parquet(self.path)


def snapshot(settings: Settings) -> Snapshot:
    """Loads, validates and stores the labelled rows of the source and of the journal.

    Raises UserError when the source cannot be read, breaks the contract or has too few rows.
    """
    uri = settings.data.uri or project.SOURCE
    frame = project.load(uri)
    uri = shown(uri)
    frame = labelled(frame, uri)
    if not TIME:
        frame[ARRIVAL] = pd.to_datetime(np.arange(len(frame)), unit="us").as_unit("us")
    if settings.data.journal and settings.journal.url:
        frame = pd.concat([frame, journalled(settings.journal.url)], ignore_index=True)
        if KEY:
            frame = frame[frame[KEY].isna() | ~frame.duplicated(KEY)].reset_index(drop=True)
    for _ in rows(frame, uri):
        pass
    if len(frame) < settings.train.min_rows:
        raise UserError(
            f"{uri}: {len(frame)} labelled rows are too few to train on; at least "
            f"{settings.train.min_rows} are needed (train.min_rows)"
        )
    frame = frame.sort_values(TIME or ARRIVAL, kind="stable", ignore_index=True)
    return store(frame, uri)


def labelled(frame: pd.DataFrame, uri: str) -> pd.DataFrame:
    """The columns that matter of the rows that have a label; raises UserError for what lacks."""
    try:
        frame = frame.assign(**{TARGET: target(frame)})
    except KeyError as error:
        raise UserError(f"{uri}: has no column {error}, which project/target.py reads") from None
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{uri}: project/target.py cannot compute {TARGET}: {reason(error)}"
        ) from None
    wanted = list(dict.fromkeys([*filter(None, [KEY, TIME]), *FIELDS, TARGET]))
    if missing := [name for name in wanted if name not in frame]:
        raise UserError(
            f"{uri}: has no column {', '.join(missing)}; it has {', '.join(frame.columns)}"
        )
    frame = frame[wanted].dropna(subset=[TARGET], ignore_index=True).infer_objects()
    if frame.empty:
        raise UserError(f"{uri}: no row has a {TARGET}")
    if empty := [name for name in wanted if frame[name].isna().all()]:
        raise UserError(f"{uri}: column {', '.join(empty)} holds no value in any row")
    return typed(frame, uri)


def typed(frame: pd.DataFrame, uri: str) -> pd.DataFrame:
    """The same table whatever source it came from: a CSV knows no times, a database no floats."""
    for name in {*TIMES, *([TIME] if TIME else [])}:
        if name in frame and not pd.api.types.is_datetime64_any_dtype(frame[name]):
            try:
                frame[name] = pd.to_datetime(frame[name])
            except ValueError as error:  # pandas goes on with advice on its own arguments
                raise UserError(f"{uri}: column {name}: {str(error).partition('. ')[0]}") from None
        if name in frame and getattr(frame[name].dt, "tz", None) is not None:
            frame[name] = frame[name].dt.tz_convert("UTC").dt.tz_localize(None)
    if KEY and KEY in frame and KEY not in KINDS:  # the journal's keys are texts
        frame[KEY] = frame[KEY].convert_dtypes().astype("string")
    return frame


def journalled(url: str) -> pd.DataFrame:
    """The labelled rows of the journal, as the source would give them.

    Rows that were served under another contract and do not fit this one are left out, and told.
    """
    with opened(url) as journal:
        records = journal.rows(labelled=True) if journal else []
    table, own = [], contract.digest()
    for record in records:
        if record.contract != own and not _fits(record.features):
            continue
        row = {**record.features, TARGET: record.outcome}
        for name in TIMES:  # each client writes them as it likes
            row[name] = row.get(name) and contract.utc(datetime.fromisoformat(row[name]))
        if KEY:
            row[KEY] = record.key or record.id
        row[TIME or ARRIVAL] = record.at if TIME else record.told
        table.append(row)
    if left := len(records) - len(table):
        console.print(f"{left:,} rows of the journal do not fit the contract and are left out")
    if not table:
        return pd.DataFrame()
    frame = typed(pd.DataFrame(table), "the journal")
    if not TIME:  # labels that were written in one go came one after the other all the same
        frame[ARRIVAL] += pd.to_timedelta(frame.groupby(ARRIVAL).cumcount(), unit="us")
    return frame


def _fits(features: dict[str, Any]) -> bool:
    try:
        ROWS.validate_python([features])
    except ValidationError:
        return False
    return True


def rows(frame: pd.DataFrame, uri: str) -> Iterator[list[Features]]:
    """The rows as the contract reads them, a chunk at a time.

    Raises UserError that counts every row that breaks the contract and shows the first 20.
    """
    bad: dict[int, str] = {}
    for start in range(0, len(frame), CHUNK):
        part = records(frame[FIELDS].iloc[start : start + CHUNK])
        try:
            yield ROWS.validate_python(part)
        except ValidationError as error:
            for e in error.errors(include_url=False):
                i, *where = e["loc"]
                text = f"{'.'.join(map(str, where))}: {e['msg']} (got {e['input']!r})"
                bad.setdefault(start + int(i), text)
    if bad:
        shown = [f"  row {i}: {text}" for i, text in sorted(bad.items())[:SHOWN]]
        raise UserError(
            f"{uri}: {len(bad):,} of {len(frame):,} rows break the contract in "
            f"project/features.py; the first {len(shown)}:\n" + "\n".join(shown)
        )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values, None where missing."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [dict(zip(plain.columns, row, strict=True)) for row in plain.itertuples(index=False)]


def columns(frame: pd.DataFrame, uri: str = "the snapshot") -> Columns:
    """The raw columns of a table, through the contract."""
    parts = [contract.columns(part) for part in rows(frame, uri)]
    return {name: np.concatenate([part[name] for part in parts]) for name in KINDS}


def until(frame: pd.DataFrame) -> str | int:
    """When the newest row came, as a manifest keeps it and `later` takes it."""
    newest = frame[TIME or ARRIVAL].max()
    if TIME or newest > ROWS_END:
        return newest.isoformat(timespec="microseconds")
    return newest.value // 1000


def later(frame: pd.DataFrame, until: str | int | None) -> np.ndarray:
    """Which rows came after `until`, as a manifest gives it."""
    if until is None:
        return np.ones(len(frame), dtype=bool)
    return frame[TIME or ARRIVAL].to_numpy("datetime64[us]") > np.datetime64(until, "us")


def store(frame: pd.DataFrame, source: str) -> Snapshot:
    """Writes the table under the name of its content; a table that is there is left as it is."""
    SNAPSHOTS.mkdir(parents=True, exist_ok=True)
    draft = SNAPSHOTS / f".{os.getpid()}.tmp"
    try:
        frame.to_parquet(draft, index=False)
        fingerprint = sha256(draft)[:32]
        path = SNAPSHOTS / f"{fingerprint}.parquet"
        if not path.exists():
            draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    return Snapshot(path, fingerprint, source)


def find(fingerprint: str) -> Snapshot:
    """An earlier snapshot by its fingerprint, or the beginning of it; raises UserError."""
    found = sorted(SNAPSHOTS.glob(f"{fingerprint}*.parquet"))
    if len(found) != 1:
        raise UserError(
            f"{fingerprint}: names {len(found) or 'no'} snapshots in {SNAPSHOTS}; run `make data`"
        )
    return Snapshot(found[0], found[0].stem, str(found[0]))
