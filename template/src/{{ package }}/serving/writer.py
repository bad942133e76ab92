"""The journal's queue: requests leave lines here, and one thread writes them in batches.

A request is answered once its lines are queued. What a killed process loses is what was queued
since the last write: `journal.flush_seconds` and the write itself. A clean stop writes all. When
the database is down, predictions go on, lines wait up to `journal.queue` of them and the write is
tried again, ever less often; past that new lines are dropped, counted and told.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from .journal import Journal

logger = logging.getLogger(__name__)
BATCH = 1000
SLOWEST = 30.0
"""Seconds between two tries, at most."""
DAY = 86_400


class Writer:
    """Queue and thread over a journal; `add` and `add_outcome` are for the event loop."""

    def __init__(
        self, journal: Journal, interval: float, limit: int, retention: timedelta | None = None
    ) -> None:
        self.journal = journal
        self.interval, self.limit, self.retention = interval, limit, retention
        self.predictions: deque[bytes] = deque()
        self.outcomes: deque[bytes] = deque()
        self.dropped = self.written = 0
        self.up = True
        self._full = False
        self._pruned = -DAY * 2.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    @property
    def waiting(self) -> int:
        """Lines not yet written."""
        return len(self.predictions) + len(self.outcomes)

    def add(self, line: bytes) -> bool:
        """Queues a prediction (see journal.line); False when it was dropped."""
        if len(self.predictions) >= self.limit:
            return self._drop()
        self.predictions.append(line)
        return True

    def add_outcome(self, line: bytes) -> bool:
        """Queues an outcome (see journal.outcome_line); False when there is no room."""
        if len(self.outcomes) >= self.limit:
            return self._drop()
        self.outcomes.append(line)
        return True

    def _drop(self) -> bool:
        self.dropped += 1
        if not self._full:
            self._full = True
            logger.error("journal: queue of %d is full, new lines are dropped", self.limit)
        return False

    def holds(self, id: str) -> bool:
        """Whether a prediction waits to be written."""
        start = b'{"id":"%s"' % id.encode()
        return any(line.startswith(start) for line in list(self.predictions))

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def stop(self) -> None:
        """Writes what is queued and ends; says how much could not be written."""
        self._stop.set()
        self._thread.join()
        try:
            self.flush()
        except SQLAlchemyError as error:
            logger.error("journal: %d lines were not written: %s", self.waiting, _short(error))
        self.journal.close()

    def flush(self) -> None:
        """Writes all that is queued now; raises SQLAlchemy's error and keeps it queued."""
        with self._lock:
            for queue, kind in ((self.predictions, 0), (self.outcomes, 1)):
                for _ in range(len(queue) // BATCH + 1):
                    # only this thread removes, and a line leaves once it is written: `holds`
                    # never misses one, and a kill between both writes it twice, which is harmless
                    lines = [queue[i] for i in range(min(len(queue), BATCH))]
                    if lines:
                        self._insert(lines, kind)
                    for _ in lines:
                        queue.popleft()
        if self._full and self.waiting < self.limit // 2:
            self._full = False
            logger.warning("journal: queue has room again, %d lines were dropped", self.dropped)

    def _insert(self, lines: Sequence[bytes], kind: int) -> None:
        try:
            self.journal.insert(*((lines, ()) if kind == 0 else ((), lines)))
            self.written += len(lines)
        except (DataError, IntegrityError) as error:
            # A line the database will never take must not hold up the others: halve to find it.
            if len(lines) > 1:
                self._insert(lines[: len(lines) // 2], kind)
                self._insert(lines[len(lines) // 2 :], kind)
            else:
                self.dropped += 1
                logger.error("journal: a line was refused and dropped: %s", _short(error))

    def _run(self) -> None:
        delay = self.interval
        while not self._stop.wait(delay):
            try:
                self.flush()
                self._prune()
            except Exception as error:  # this thread must live: whatever happens, it tries again
                delay = min(max(delay, 0.5) * 2, SLOWEST)
                if self.up:
                    logger.error("journal: cannot be written, will be tried: %s", _short(error))
                self.up = False
            else:
                delay = self.interval
                if not self.up:
                    logger.warning("journal: written again, %d lines wait", self.waiting)
                self.up = True

    def _prune(self) -> None:
        if self.retention and monotonic() - self._pruned > DAY:
            removed = self.journal.prune(datetime.now(UTC).replace(tzinfo=None) - self.retention)
            self._pruned = monotonic()
            if removed:
                logger.info("journal: %d predictions were past retention and removed", removed)


def _short(error: Exception) -> str:
    return str(getattr(error, "orig", error)).splitlines()[0][:300] or type(error).__name__
