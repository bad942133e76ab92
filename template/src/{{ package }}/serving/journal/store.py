"""The journal: every prediction with its features, and the outcome when it comes, late or early."""

import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from ...errors import UserError, reason, shown
from . import tables
from .tables import ENVIRONMENT, INSERT, JOINED, KNOWN_OUTCOME, LABELLED_AT, SERIAL, stamp
from .tables import OUTCOMES as _O
from .tables import PREDICTIONS as _P
from .tables import SHADOWS as _S


class Record(NamedTuple):
    """One prediction. Times are UTC, without a zone."""

    id: str
    key: str | None
    at: datetime
    """When the event was."""
    version: str
    contract: str
    features: dict[str, Any]
    prediction: dict[str, Any]
    outcome: Any = None
    """None until it is known."""
    labelled_at: datetime | None = None
    """When the outcome came, the last time if it was changed."""
    environment: str = ""
    """The one that was served; empty where that is not known."""
    written: datetime | None = None
    """When the prediction was written."""


class Shadowed(NamedTuple):
    """One prediction, and what a shadow said of the same row."""

    key: str | None
    at: datetime
    served: dict[str, Any]
    """The answer that the client got."""
    shadow: dict[str, Any]
    """The shadow's; empty where it had none."""
    outcome: Any = None


BATCH = 1000
"""Rows that are fetched at once, so that the driver does not hold all of them, too."""


class Journal:
    """The journal's database: `sqlite:///path` or `postgresql+psycopg://...`.

    Its first use makes or upgrades the tables, so that a server can start while the database is
    down. Methods raise SQLAlchemy's errors, are safe to call from several threads and processes,
    and each is one transaction.
    """

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self.dialect = parsed.get_backend_name()
        if self.dialect not in SERIAL:
            raise ValueError(f"{self.dialect} is not supported")
        if self.dialect == "sqlite":
            self._engine = sa.create_engine(parsed, connect_args={"timeout": tables.WAIT})
            sa.event.listen(self._engine, "connect", tables.prepare_sqlite)
            sa.event.listen(self._engine, "begin", tables.begin_sqlite)
        else:
            arguments = {"connect_timeout": 5}
            self._engine = sa.create_engine(parsed, pool_pre_ping=True, connect_args=arguments)
        self._lock = threading.Lock()
        self._ready = False

    @property
    def engine(self) -> sa.Engine:
        """The database, with its tables up to date."""
        with self._lock:
            if not self._ready:
                self._migrate()
                self._ready = True
        return self._engine

    def _migrate(self) -> None:
        if self.dialect == "sqlite" and self._engine.url.database:
            Path(self._engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        at_once = self._engine.connect().execution_options(begin="BEGIN IMMEDIATE")
        with at_once as connection, connection.begin():
            tables.migrate(connection)

    def close(self) -> None:
        """Lets the connections go."""
        self._engine.dispose()

    def insert_predictions(self, lines: Collection[bytes]) -> None:
        """Writes lines made by `tables.line`; an id that is there already stays as it is."""
        self._insert("predictions", lines)

    def insert_outcomes(self, lines: Collection[bytes]) -> None:
        """Writes lines made by `tables.outcome_line`; of two for one prediction the last counts.

        The prediction may come later.
        """
        last = {(row := json.loads(line))["ref"] + row["at"]: line for line in lines}
        self._insert("outcomes", last.values())

    def insert_shadows(self, lines: Collection[bytes]) -> None:
        """Writes lines made by `tables.shadow_line`; one of a prediction that is not there is
        left out."""
        self._insert("shadows", lines)

    def _insert(self, table: str, lines: Collection[bytes]) -> None:
        if not lines:
            return
        now = stamp(datetime.now(UTC).replace(tzinfo=None))
        batch = {"batch": (b"[%s]" % b",".join(lines)).decode(), "now": now}
        # One statement is a transaction by itself: each step more hands Python's lock to and fro.
        alone = self.engine.connect().execution_options(begin=None)
        with alone as connection, connection.begin():
            connection.execute(sa.text(INSERT[self.dialect][table]), batch)

    def get(self, id: str) -> Record | None:
        """One prediction by its id."""
        found = self._read(self._select().where(_P.c.id == id))
        return found[0] if found else None

    def rows(
        self,
        version: str | None = None,
        labelled: bool | None = None,
        limit: int | None = None,
        since: datetime | None = None,
        environment: str | None = None,
        every: int = 1,
    ) -> list[Record]:
        """The newest `limit` by event time, from `since` on, oldest first; ties as they came.

        With `every` one row of so many is read, spread evenly over all.

        `labelled`: True for those with an outcome only, False for those without, None for all.
        Rows that name no environment, as those of 0.1, count as production's.
        """
        where = _within(version, labelled, since, environment)
        where += [_P.c.seq % every == 0] if every > 1 else []
        newest = (_P.c.at.desc(), _P.c.seq.desc())
        return self._read(self._select().where(*where).order_by(*newest).limit(limit))[::-1]

    def count(
        self,
        version: str | None = None,
        labelled: bool | None = None,
        since: datetime | None = None,
        environment: str | None = None,
    ) -> int:
        """How many rows there are; the arguments are those of `rows`."""
        where = _within(version, labelled, since, environment)
        tables = _P if labelled is None else JOINED
        query = sa.select(sa.func.count()).select_from(tables).where(*where)
        with self.engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def shadowed(
        self,
        shadow: tuple[str, str],
        beside: str,
        labelled: bool | None = None,
        limit: int | None = None,
    ) -> list[Shadowed]:
        """Predictions of production's version `beside` that a shadow, version and bundle, was
        shown; `labelled`, `limit` and the order are those of `rows`."""
        where = _within(beside, labelled, None, "production")
        where += [_S.c.version == shadow[0], _S.c.bundle == shadow[1]]
        kept = _P.c.key, _P.c.at, _P.c.prediction, _S.c.prediction, KNOWN_OUTCOME
        query = sa.select(*kept).select_from(JOINED.join(_S, _S.c.id == _P.c.id)).where(*where)
        newest = query.order_by(_P.c.at.desc(), _P.c.seq.desc()).limit(limit)
        with self.engine.connect().execution_options(yield_per=BATCH) as connection:
            found = [
                Shadowed(*row[:2], *(text and json.loads(text) for text in row[2:]))
                for row in connection.execute(newest)
            ]
        return found[::-1]

    def _select(self) -> Any:
        kept = [_P.c[name] for name in Record._fields[:7]]
        later = KNOWN_OUTCOME, LABELLED_AT, ENVIRONMENT, _P.c.written
        return sa.select(*kept, *later).select_from(JOINED)

    def _read(self, query: Any) -> list[Record]:
        read = json.loads
        with self.engine.connect().execution_options(yield_per=BATCH) as connection:
            return [
                Record._make(
                    [*row[:5], read(row[5]), read(row[6]), row[7] and read(row[7]), *row[8:]]
                )
                for row in connection.execute(query)
            ]

    def erase(self, id: str) -> bool:
        """Removes a prediction and its outcomes; False when there is no such prediction."""
        return self._erase(_P.c.id == id) > 0

    def erase_key(self, key: str) -> int:
        """Removes all predictions and outcomes of an own key; how many predictions there were."""
        return self._erase(_P.c.key == key, _O.c.ref == key)

    def prune(self, before: datetime) -> int:
        """Removes what was written before a time (UTC), whatever its event's; how many.

        Of every environment: where servers that share a database differ, the shortest time counts.
        """
        return self._erase(_P.c.written < before, _O.c.written < before)

    def _erase(self, predictions: Any, outcomes: Any = None) -> int:
        ids = sa.select(_P.c.id).where(predictions)
        keyed = sa.exists().where(predictions, _P.c.key == _O.c.ref, _P.c.at == _O.c.at)
        with self.engine.begin() as connection:
            mine = _O.c.ref.in_(ids) | keyed | (sa.false() if outcomes is None else outcomes)
            connection.execute(sa.delete(_O).where(mine))
            return connection.execute(sa.delete(_P).where(predictions)).rowcount


def _within(
    version: str | None,
    labelled: bool | None,
    since: datetime | None,
    environment: str | None,
) -> list[Any]:
    """The conditions of `rows` and `count`."""
    labels = KNOWN_OUTCOME.is_not(None) if labelled else KNOWN_OUTCOME.is_(None)
    tests = [
        version is None or _P.c.version == version,
        since is None or _P.c.at >= since,
        environment is None or tables.served_in(environment),
        labelled is None or labels,
    ]
    return [test for test in tests if test is not True]


def journal_at(url: str) -> Journal:
    """The journal at a setting's URL, not yet asked; raises UserError when it can be none."""
    try:
        return Journal(url)
    except (ValueError, ImportError, sa.exc.SQLAlchemyError) as error:
        raise UserError(
            f"journal.url: {reason(error, url)}; use sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME"
        ) from None


@contextmanager
def opened(url: str) -> Iterator[Journal | None]:
    """The journal at a setting's URL, closed in the end; None where the URL is empty.

    Raises UserError when the URL is no journal's or its database does not answer.
    """
    if not url:
        yield None
        return
    journal = journal_at(url)
    try:
        journal.engine  # noqa: B018 its first use connects
    except (OSError, sa.exc.SQLAlchemyError) as error:
        said = f"journal {shown(url)}: {reason(error, url)}; check JOURNAL_URL"
        raise UserError(said) from None
    try:
        yield journal
    finally:
        journal.close()
