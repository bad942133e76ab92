"""Batch scoring through the same code as the API: partition by partition, atomic, resumable.

The partitions are read here, scored wherever [engine] says, and written here, each under its own
name: a run that was killed goes on where it stopped, and no worker needs this disk. The result
takes its place only when it is whole.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from sqlalchemy.exc import SQLAlchemyError

from ..bundle import Bundle, packed, unpacked
from ..console import progress, say, step
from ..errors import UserError, reason, shown
from ..predict import predict
from ..project.features import KEY, TIME, Features
from ..serving.journal.store import Journal
from ..settings import Engine
from ..sources import count, engine, is_sql, partitions, split_sql
from ..training.snapshots import FIELDS, ID, clean, require, rows, typed
from . import engine as engines
from . import journalled

PARTITION = 50_000
WORK = Path("var/score")
_OPENED: dict[str, Bundle] = {}
"""Bundles by their digest: a worker opens one once, not for each partition."""
CLEAN = "; what load() in project/data.py does to columns belongs in clean(), which scoring shares"


@dataclass(frozen=True)
class _Scoring:
    """What all partitions share, as it is sent to workers."""

    version: str
    digest: str
    files: dict[str, bytes]
    """Of the bundle."""
    uri: str
    job: journalled.Job | None


class Scored(NamedTuple):
    """What comes of a partition."""

    table: pd.DataFrame
    lines: list[bytes]
    """For the journal, see journalled.py."""
    left: int
    """Rows that clean() of project/data.py left out."""


def score(
    bundle: Bundle,
    uri: str,
    out: str,
    journal: Journal | None = None,
    environment: str = "",
    engine: Engine | None = None,
) -> int:
    """Scores every row of `uri` into `out` (.parquet, .csv, URL#TABLE, or a folder of Parquet files
    that ends with /) on an engine, or else in this process; returns the rows.

    The output holds KEY and TIME where there are, the version, the prediction, and the
    probability of each class. With a journal all rows are kept there, too, as predictions of an
    environment, before the output takes its place, and the output has their ids.
    Raises UserError when a row breaks the contract.
    """
    if not is_sql(out) and ("://" in out or not out.endswith((".parquet", ".csv", "/"))):
        raise UserError(
            f"{shown(out)}: is no output; use a .parquet or .csv file, a folder/, or URL#TABLE"
        )
    if out.endswith("/"):
        _replaceable(Path(out))
    if uri == out or (Path(uri).exists() and Path(uri).resolve() == Path(out).resolve()):
        raise UserError(f"{shown(out)}: is the input; choose another file for the output")
    if not is_sql(out):  # what cannot be written is said before the work
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    what = [bundle.digest, uri, _state(uri), out, *([environment] if journal else [])]
    name = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    job = journalled.Job(name, environment) if journal else None
    folder = WORK / name[:16]
    if _state(uri) is None:  # a table may have changed since: nothing is taken over
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    total = 0

    def missing() -> Iterator[tuple[tuple[Path, int], tuple[pd.DataFrame, int]]]:
        nonlocal total
        for i, part in enumerate(partitions(uri, PARTITION)):
            path, start = folder / f"{i:06}.parquet", total
            total += len(part)
            if path.exists():
                advance(len(part))
            else:
                yield (path, len(part)), (part, start)

    _OPENED[bundle.digest] = bundle
    shared = _Scoring(bundle.version, bundle.digest, packed(bundle), shown(uri), job)
    results = engines.each(engine or Engine(workers=1), _score_one, shared, missing())
    with progress("rows", count(uri)) as advance, closing(results):
        for (path, rows), found in results:
            if found.left:
                say(f"{found.left:,} rows are left out by clean() in project/data.py")
            if job:
                path.with_suffix(".lines").write_bytes(b"\n".join(found.lines))
            draft = path.with_suffix(".tmp")
            found.table.to_parquet(draft, index=False)
            draft.rename(path)
            advance(rows)
    if not total:
        raise UserError(f"{shown(uri)}: holds no rows")
    if journal:
        with step("journal"):
            journalled.write(journal, sorted(folder.glob("*.lines")))
    _publish(sorted(folder.glob("*.parquet")), out)
    shutil.rmtree(folder)
    return total


def _score_one(shared: _Scoring, item: tuple[pd.DataFrame, int]) -> Scored:
    """One partition, wherever it is scored."""
    if shared.digest not in _OPENED:
        _OPENED[shared.digest] = unpacked(shared.version, shared.files)
    part, start = item
    return scored(_OPENED[shared.digest], part, shared.uri, start, shared.job)


def scored(
    bundle: Bundle,
    part: pd.DataFrame,
    uri: str,
    start: int = 0,
    job: journalled.Job | None = None,
) -> Scored:
    """One partition's predictions; and of a job its lines for the journal."""
    cleaned = clean(part, shown(uri), start)
    require(cleaned, FIELDS, shown(uri), CLEAN)
    left = len(part) - len(cleaned)
    part = typed(cleaned, shown(uri))
    valid: list[Features] = []
    answers: list[dict[str, Any]] = []
    for chunk in rows(part, shown(uri)):
        try:
            answers += predict(bundle, chunk)
        except ValueError as error:
            why = _refused(bundle, chunk, start + len(answers), error)
            raise UserError(f"{shown(uri)}: {why}") from None
        valid += chunk if job else []
    if KEY and KEY in part:
        part = part.assign(**{KEY: part[str(ID)]})
    keep = [name for name in (KEY, TIME) if name and name in part]
    table = part[keep].reset_index(drop=True)
    table = table.assign(version=bundle.version).join(pd.json_normalize(answers))
    lines = journalled.identified(table, bundle, valid, answers, job, start) if job else []
    return Scored(table, lines, left)


def _refused(bundle: Bundle, chunk: list[Features], start: int, error: ValueError) -> str:
    """Which of the rows the model has no answer for, and why."""
    for i, row in enumerate(chunk):
        try:
            predict(bundle, [row])
        except ValueError as alone:
            return f"row {start + i}: the model has no answer: {reason(alone)}"
    return reason(error)


def _state(uri: str) -> Any:
    path = Path(uri)
    if not path.exists():
        return None
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _replaceable(folder: Path) -> None:
    """Raises UserError for a folder that holds other things than an earlier output."""
    others = [path.name for path in folder.glob("*") if not path.name.endswith(".parquet")]
    if others or (folder.exists() and not folder.is_dir()):
        raise UserError(
            f"OUT={folder}/: holds other things than Parquet files "
            f"({min(others, default='it is a file')}); choose an empty folder"
        )


def _publish(parts: list[Path], out: str) -> None:
    frames = (pd.read_parquet(part) for part in parts)
    if is_sql(out):
        url, table = split_sql(out)
        try:
            with engine(url).begin() as connection:  # one transaction: all rows or none
                for i, frame in enumerate(frames):
                    how: Any = "append" if i else "replace"
                    frame.to_sql(table, connection, index=False, if_exists=how)
        except (SQLAlchemyError, ImportError) as error:
            raise UserError(f"{shown(out)}: cannot be written: {reason(error, out)}") from None
        return
    path = Path(out)
    draft = path.with_name(f".{path.name}.tmp")
    if out.endswith("/"):
        old = path.with_name(f".{path.name}.old")
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)
        draft.mkdir()
        for part in parts:
            shutil.copyfile(part, draft / part.name)
        if path.exists():
            path.rename(old)
        draft.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        return
    if out.endswith(".csv"):
        for i, frame in enumerate(frames):
            frame.to_csv(draft, mode="a" if i else "w", header=not i, index=False)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        first = pq.read_schema(parts[0])
        with pq.ParquetWriter(draft, first) as writer:
            for frame in frames:
                writer.write_table(pa.Table.from_pandas(frame, schema=first, preserve_index=False))
    draft.replace(path)
