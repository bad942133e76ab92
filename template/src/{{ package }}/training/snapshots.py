"""Rows to train on: loaded, validated against the contract, and kept as a snapshot.

A snapshot is a Parquet file named by what it holds, and training reads nothing else: the same
fingerprint is the same data, for ever.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from .. import contract, values
from ..console import say
from ..contract import ALIASES, KINDS, NUMBERS, ROWS, TYPES
from ..errors import UserError, reason, shown
from ..files import sha256
from ..project import data as project
from ..project.features import KEY, TIME, Features
from ..project.target import TARGET, target
from ..serving.journal.store import Record, opened
from ..settings import Settings
from ..sources import plain
from . import store as stored

SNAPSHOTS = Path("data/snapshots")
CHUNK = 10_000
RARE = 10
"""Rows of the journal that make a class of a label which the source does not have."""
SHOWN = 20
FIELDS = list(Features.model_fields)
ID = "_key" if KEY in KINDS else KEY
"""The column that holds a row's key as text, as the journal does: KEY itself unless that is a
feature, which stays as the contract reads it."""
ARRIVAL = "_arrival"
"""Without TIME, when a row came, so that a label that comes late moves no other row. The source's
rows count microseconds, 1970-01-01T00:00:00.000000, .000001 and so on; a row of the journal has the
time when it got its label."""
ROWS_END = pd.Timestamp("1971-01-01")
"""After the source's rows, before the journal's."""
TIMES = [name for name, kind in KINDS.items() if kind == "time"]


@dataclass(frozen=True)
class Snapshot:
    """An immutable table: ID, TIME or ARRIVAL, the contract's columns, TARGET; by time.

    The contract's columns hold what the contract made of the source: validated values.
    """

    path: Path
    fingerprint: str
    source: str
    counts: dict[str, int] = field(default_factory=dict)
    """What became of the rows that were read."""

    def read(self) -> pd.DataFrame:
        """The table; one of another contract is validated again, which raises UserError."""
        frame = pd.read_parquet(self.path)
        if frame.attrs.get("contract") != contract.digest():
            require(frame, FIELDS, "the snapshot", "; run `make data`")
            frame = validated(frame, "the snapshot")
        return frame


def snapshot(settings: Settings) -> Snapshot:
    """Loads, validates and stores the labelled rows of the source and of the journal.

    Raises UserError when the source cannot be read, breaks the contract or has too few rows.
    """
    uri = settings.data.uri or project.SOURCE
    loaded = project.load(uri)
    uri = shown(uri)
    cleaned = clean(loaded, uri)
    with_label = labelled(cleaned, uri)
    frame = validated(with_label, uri)
    counts = {
        "read": len(loaded),
        "cleaned_away": len(loaded) - len(cleaned),
        "unlabelled": len(cleaned) - len(with_label),
        "duplicates_kept": int(frame.duplicated().sum()),
    }
    if not TIME:
        frame[ARRIVAL] = pd.to_datetime(np.arange(len(frame)), unit="us").as_unit("us")
    if settings.data.journal and settings.journal.url:
        new = from_journal(settings, frame, counts)
        frame = pd.concat([frame, new], ignore_index=True) if len(new) else frame
    said = [f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items() if n]
    if len(said) > 1:
        say(f"{uri}: {', '.join(said)}; {len(frame):,} rows are kept")
    if len(frame) < settings.train.min_rows:
        raise UserError(
            f"{uri}: {len(frame)} labelled rows are too few to train on; at least "
            f"{settings.train.min_rows} are needed (train.min_rows)"
        )
    frame = frame.sort_values(TIME or ARRIVAL, kind="stable", ignore_index=True)
    frame.attrs = {"contract": contract.digest()}
    return store(frame, uri, counts)


def clean(frame: pd.DataFrame, uri: str, start: int = 0) -> pd.DataFrame:
    """A table as it came, after `clean` of project/data.py where there is one.

    Columns that are called by an alias of the contract can be found by the field's name, too; the
    index says which row of the source it is, from `start` on. Raises UserError.
    """
    if not isinstance(frame, pd.DataFrame):
        raise UserError(f"{uri}: load() in project/data.py must return a DataFrame")
    frame = frame.set_axis(pd.RangeIndex(start, start + len(frame)))
    if hook := getattr(project, "clean", None):
        before = list(frame.columns)
        try:
            frame = hook(frame)
        except KeyError as error:
            raise UserError(
                f"{uri}: has no column {error}, which clean() in project/data.py reads; it has "
                f"{_listed(before)}"
            ) from None
        except Exception as error:
            raise UserError(f"{uri}: clean() in project/data.py: {reason(error)}") from None
        if not isinstance(frame, pd.DataFrame):
            raise UserError(f"{uri}: clean() in project/data.py must return a DataFrame")
        if not frame.index.is_unique:
            frame = frame.reset_index(drop=True)
    names = list(frame.columns)
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise UserError(f"{uri}: has more than one column {', '.join(twice)}; rename or drop one")
    called = {
        name: next(filter(names.__contains__, aliases), name) for name, aliases in ALIASES.items()
    }
    return frame.assign(**{name: frame[alias] for name, alias in called.items() if alias in names})


def require(frame: pd.DataFrame, wanted: list[str], uri: str, advice: str = "") -> None:
    """Raises UserError when columns lack, which lists those that are there."""
    if missing := [name for name in wanted if name not in frame]:
        called = [ALIASES.get(name, [name])[0] for name in missing]
        raise UserError(
            f"{uri}: has no column {', '.join(called)}; it has {_listed(frame.columns)}{advice}"
        )


def _listed(names: Any) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" * (len(names) > SHOWN))


def labelled(frame: pd.DataFrame, uri: str) -> pd.DataFrame:
    """The columns that matter of the rows that have a label; raises UserError for what lacks."""
    frame = frame.assign(**{TARGET: labels(frame, uri)})
    wanted = list(dict.fromkeys([*filter(None, [KEY, TIME]), *FIELDS, TARGET]))
    require(frame, wanted, uri)
    frame = frame[wanted].dropna(subset=[TARGET]).infer_objects()
    if frame.empty:
        raise UserError(f"{uri}: no row has a {TARGET}")
    if empty := [name for name in wanted if frame[name].isna().all()]:
        raise UserError(f"{uri}: column {', '.join(empty)} holds no value in any row")
    frame[TARGET] = values.labels(frame[TARGET], f"{uri}: {TARGET}")
    frame = typed(frame, uri)
    if TIME and (lacking := frame.index[frame[TIME].isna()]).size:
        raise UserError(
            f"{uri}: column {TIME}: {lacking.size:,} rows have no time, the first is row "
            f"{lacking[0]}; drop or fill them in clean() of project/data.py"
        )
    return frame


def labels(frame: pd.DataFrame, uri: str) -> pd.Series:
    """What project/target.py gives: one value a row; raises UserError where it does not."""
    try:
        found = target(frame)
        if isinstance(found, pd.DataFrame) or (
            not isinstance(found, pd.Series) and (not np.iterable(found) or np.ndim(found) > 1)
        ):
            raise UserError(
                f"{uri}: project/target.py gives no column for {TARGET}; one target, one value a "
                "row, is what a model here predicts"
            )
        if not isinstance(found, pd.Series):
            found = pd.Series(found, index=frame.index)
        return found.reindex(frame.index)
    except UserError:
        raise
    except KeyError as error:
        raise UserError(
            f"{uri}: has no column {error}, which project/target.py reads; it has "
            f"{_listed(frame.columns)}"
        ) from None
    except Exception as error:
        raise UserError(
            f"{uri}: project/target.py cannot compute {TARGET}: {reason(error)}"
        ) from None


def typed(frame: pd.DataFrame, uri: str) -> pd.DataFrame:
    """The same table whatever source it came from: times without a zone, in UTC, and keys as texts.

    Raises UserError naming column, row and value: of a time that is not ISO 8601, an integer that
    float64 cannot hold, or a key that has lost digits.
    """
    if TIME and KINDS.get(TIME, "time") != "time":
        raise UserError(
            f"project/features.py: TIME is {TIME}, which is a {KINDS[TIME]} of Features; make it a "
            "datetime, or name another column"
        )
    frame = frame.copy(deep=False)
    if KEY and KEY in frame:  # before the feature of that name gets the contract's type
        frame[ID] = values.keys(frame[KEY], f"{uri}: column {KEY}")
    for name in {*TIMES, *filter(None, [TIME])} & {*frame.columns}:
        frame[name] = values.times(frame[name], f"{uri}: column {name}")
    for name in {*NUMBERS} & {*frame.columns}:
        values.exact(frame[name], f"{uri}: column {name}")
    return frame


def from_journal(settings: Settings, frame: pd.DataFrame, counts: dict[str, int]) -> pd.DataFrame:
    """The newest labelled rows of the journal that are not in `frame`, which holds the source's.

    Those of every environment: an outcome is what really happened, whatever served the prediction.
    Left out are rows that do not fit the contract, whose label is of another kind than the source's
    or of a class that is too rare; `counts` gets how many there are of each.
    """
    from .fitting import classifies  # which a loaded model does not need

    most = settings.data.journal_rows
    with opened(settings.journal.url) as journal:
        records = journal.rows(labelled=True, limit=most + 1) if journal else []
    if len(records) > most:
        records = records[-most:]
        say(
            f"the journal holds more than {most:,} labelled rows; the newest {most:,} of them are "
            "read (data.journal_rows)"
        )
    kind = values.kind(frame[TARGET].iloc[:1].item())
    parts, fitting = [], []
    for start in range(0, len(records), CHUNK):
        rows = []
        for record in records[start : start + CHUNK]:
            if (row := _fitting(record, kind)) is not None:
                rows.append(row)
                fitting.append(record)
        parts.append(table(rows))
    unfit = len(records) - len(fitting)
    counts |= {"journal": len(records), "journal_unfit": unfit}
    counts |= {"journal_repeated": 0, "journal_rare": 0}
    if unfit:
        say(f"{unfit:,} rows of the journal do not fit the contract and are left out")
    if not fitting:
        return pd.DataFrame()
    read = _identified(plain(pd.concat(parts, ignore_index=True)), fitting)
    outcomes = pd.Series([record.outcome for record in fitting])
    read[TARGET] = outcomes.astype(bool) if kind == values.TRUTH else outcomes.infer_objects()
    new = not_in_source(read, frame)
    counts["journal_repeated"] = len(read) - len(new)
    if classifies():
        odd = rare(new[TARGET], frame[TARGET])
        counts["journal_rare"] = int(odd.sum())
        new = new[~odd]
    return new


def _identified(frame: pd.DataFrame, records: list[Record]) -> pd.DataFrame:
    """The rows of these records with their ID, and TIME or ARRIVAL."""
    if ID:
        frame[ID] = pd.Series([record.key or None for record in records], dtype="string")
        if KEY in KINDS:
            frame[ID] = frame[ID].fillna(values.keys(frame[KEY], "the journal"))
        frame[ID] = frame[ID].fillna(pd.Series([record.id for record in records]))
    at = [record.at if TIME else record.labelled_at for record in records]
    frame[TIME or ARRIVAL] = pd.Series(at, dtype="datetime64[us]")
    if not TIME:  # labels that were written in one go came one after the other all the same
        frame[ARRIVAL] += pd.to_timedelta(frame.groupby(ARRIVAL).cumcount(), unit="us")
    return frame


def _fitting(record: Record, kind: str | None) -> Features | None:
    """A row of the journal as the contract reads it; None if it does not, or its label is of
    another kind."""
    truth = kind == values.TRUTH and record.outcome in (0, 1)  # JSON may say 1 for true
    if not truth and values.kind(record.outcome) != kind:
        return None
    try:
        (row,) = contract.read([record.features])
    except ValidationError:
        return None
    return row


def rare(new: pd.Series, known: pd.Series) -> np.ndarray:
    """Which labels of the journal, (n,), are of a class that fewer than RARE rows have.

    A class that the source does not have may be a mistyped one: it is left out, and said, until it
    comes more often.
    """
    counts = new.value_counts()
    odd = [c for c in counts.index[counts < RARE] if c not in set(known.unique())]
    if odd:
        say(
            f"{TARGET}: {', '.join(map(str, odd[:5]))} is no class of the source, and fewer than "
            f"{RARE} rows of the journal have it: they are left out"
        )
    return new.isin(odd).to_numpy()


def not_in_source(new: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the journal that the source does not have.

    A row is known by its key and its time; where there is no time, by its key alone. The same key
    and time twice in the journal is one row, too.
    """
    if not ID:
        return new
    identity = [ID, *filter(None, [TIME])]
    new = new.drop_duplicates(identity) if TIME else new
    have = pd.MultiIndex.from_frame(frame[identity])
    return new[~pd.MultiIndex.from_frame(new[identity]).isin(have)]


def validated(frame: pd.DataFrame, uri: str) -> pd.DataFrame:
    """The same table with the contract's columns as the contract reads them; raises UserError."""
    made = pd.concat([table(part) for part in rows(frame, uri)], ignore_index=True)
    return frame.reset_index(drop=True).assign(**plain(made))


def table(rows: list[Features]) -> pd.DataFrame:
    """Validated rows as a table; ints stay ints beside missing values, so parts can be joined."""
    made = {}
    for name, kind in KINDS.items():
        column = [row.__dict__[name] for row in rows]
        if kind == "time":
            column, dtype = [v and contract.utc(v) for v in column], "datetime64[us]"
        elif kind == "category":
            column, dtype = [v.value if isinstance(v, Enum) else v for v in column], "str"
        elif TYPES[name] == {bool}:
            dtype = "boolean"
        else:
            dtype = "Int64" if TYPES[name] <= {int, bool} else "float64"
        made[name] = pd.Series(column, dtype=dtype)
    return pd.DataFrame(made)


def rows(frame: pd.DataFrame, uri: str) -> Iterator[list[Features]]:
    """The rows as the contract reads them, a chunk at a time.

    Raises UserError that counts every row that breaks the contract and shows the first 20.
    """
    bad: dict[int, str] = {}
    for start in range(0, len(frame), CHUNK):
        part = records(frame[FIELDS].iloc[start : start + CHUNK])
        try:
            yield ROWS.validate_python(part, by_alias=False, by_name=True)
        except ValidationError as error:
            for e in error.errors(include_url=False):
                i, *where = e["loc"]
                text = f"{'.'.join(map(str, where))}: {e['msg']} (got {values.cut(e['input'])})"
                bad.setdefault(start + int(i), text)
    if bad:
        shown = [f"  row {frame.index[i]}: {text}" for i, text in sorted(bad.items())[:SHOWN]]
        raise UserError(
            f"{uri}: {len(bad):,} of {len(frame):,} rows break the contract in "
            f"project/features.py; the first {len(shown)}:\n" + "\n".join(shown)
        )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values, None where missing."""
    columns = [values.plain(frame[name]) for name in frame.columns]
    return [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def until(frame: pd.DataFrame) -> str | int:
    """When the newest row came, as a manifest keeps it and `later` takes it."""
    newest = frame[TIME or ARRIVAL].max()
    if TIME or newest > ROWS_END:
        return newest.isoformat(timespec="microseconds")
    return newest.value // 1000  # the number of a row of the source


def later(frame: pd.DataFrame, until: str | int | None) -> np.ndarray:
    """Which rows came after `until`, as a manifest gives it."""
    if until is None:
        return np.ones(len(frame), dtype=bool)
    return frame[TIME or ARRIVAL].to_numpy("datetime64[us]") > np.datetime64(until, "us")


def path_of(digest: str) -> Path:
    """Where a snapshot is, or would be."""
    return SNAPSHOTS / f"{digest}.parquet"


def store(frame: pd.DataFrame, source: str, counts: dict[str, int] | None = None) -> Snapshot:
    """Writes the table under the name of its content; a table that is there is left as it is."""
    SNAPSHOTS.mkdir(parents=True, exist_ok=True)
    draft = SNAPSHOTS / f".{os.getpid()}.tmp"
    try:
        frame.to_parquet(draft, index=False)
        fingerprint = sha256(draft)[:32]
        path = path_of(fingerprint)
        if not path.exists():
            draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    return Snapshot(path, fingerprint, source, counts or {})


def find(fingerprint: str, url: str = "") -> Snapshot:
    """An earlier snapshot by its fingerprint, or the beginning of it; its content is checked.

    If it is not here, it is fetched from the store at `url`, if one is given. Raises UserError.
    """
    found = {path.stem for path in SNAPSHOTS.glob(f"{fingerprint}*.parquet")}
    if fetched := not found and bool(url):
        found = {digest for digest in stored.digests(url) if digest.startswith(fingerprint)}
    if len(found) != 1:
        where = f"{SNAPSHOTS} and {shown(url)}" if url else f"{SNAPSHOTS} (no [data] store is set)"
        raise UserError(
            f"{fingerprint}: names {len(found) or 'no'} snapshots in {where}; `make data` stores "
            "one of the current data"
        )
    (digest,) = found
    path = path_of(digest)
    if fetched:
        stored.fetch(digest, url, path)
        say(f"fetched snapshot {digest[:12]} from {shown(url)}")
    elif not sha256(path).startswith(digest):
        raise UserError(f"{path}: was changed or cut short: its digest does not match; delete it")
    return Snapshot(path, digest, str(path))
