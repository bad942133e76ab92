"""The journal's queue: requests leave lines here, and one thread writes them in batches.

A request is answered once its lines are queued. What a killed process loses is what was queued
since the last write: `journal.flush_seconds` and the write itself. A clean stop writes all. When
the database is down, predictions go on, lines wait up to `journal.queue` of them and
`journal.queue_mb`, and the write is tried again, ever less often; past that new lines are dropped,
counted and told.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic

from sqlalchemy.exc import DataError, IntegrityError

from ...errors import reason
from .store import Journal
from .tables import line_start

logger = logging.getLogger(__name__)
BATCH = 1000
BATCH_BYTES = 4_000_000
"""A line may hold megabytes, and a batch is in memory several times while it is written."""
SLOWEST = 30.0
"""Seconds between two tries, at most."""
DAY = 86_400


class Writer:
    """Queue and thread over a journal; `add` and `add_outcome` are for any thread.

    At most `max_lines` wait, and `max_bytes`.
    """

    def __init__(
        self,
        journal: Journal,
        interval: float,
        max_lines: int,
        retention: timedelta | None = None,
        max_bytes: float = 64e6,
    ) -> None:
        self.journal = journal
        self.interval, self.retention = interval, retention
        self.max_lines, self.max_bytes, self.bytes = max_lines, max_bytes, 0
        self.predictions: deque[bytes] = deque()
        self.outcomes: deque[bytes] = deque()
        self.shadows: deque[bytes] = deque()
        self.dropped = self.written = 0
        self.up = True
        self._full = False
        self._pruned = -DAY * 2.0
        self._lock = threading.Lock()
        self._counts = threading.Lock()
        self._delay = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    @property
    def waiting(self) -> int:
        """Lines not yet written."""
        return len(self.predictions) + len(self.outcomes) + len(self.shadows)

    def add(self, line: bytes) -> bool:
        """Queues a prediction (see tables.line); False when it was dropped."""
        return self._add(self.predictions, line)

    def add_outcome(self, line: bytes) -> bool:
        """Queues an outcome (see tables.outcome_line); False when there is no room."""
        return self._add(self.outcomes, line)

    def add_shadow(self, line: bytes) -> bool:
        """Queues what a shadow said (see tables.shadow_line); False when it was dropped, as it is
        while the database is down: it takes no room from predictions that wait."""
        return self.up and self._add(self.shadows, line)

    def _add(self, queue: deque[bytes], line: bytes) -> bool:
        with self._counts:
            fits = len(queue) < self.max_lines and self.bytes + len(line) <= self.max_bytes
            if fits:
                self.bytes += len(line)
                queue.append(line)
            else:
                self.dropped += 1
            said, self._full = self._full, self._full or not fits
        if not fits and not said:
            waits = f"{self.waiting} lines, {self.bytes / 1e6:.1f} MB"
            logger.error("journal: queue is full (%s), new lines are dropped", waits)
        return fits

    def holds(self, id: str) -> bool:
        """Whether a prediction waits to be written."""
        start = line_start(id)
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
        except Exception as error:
            logger.error("journal: %d lines were not written: %s", self.waiting, reason(error))
        self.journal.close()

    def flush(self) -> None:
        """Writes all that is queued now; raises SQLAlchemy's error and keeps it queued."""
        with self._lock:
            # Counted first, so that the prediction of each of them is written now, before it.
            shadows = len(self.shadows)
            for queue, insert in (
                (self.predictions, self.journal.insert_predictions),
                (self.outcomes, self.journal.insert_outcomes),
                (self.shadows, self.journal.insert_shadows),
            ):
                left = shadows if queue is self.shadows else len(queue)
                while left > 0:
                    # only this thread removes, and a line leaves once it is written: `holds`
                    # never misses one, and a kill between both writes it twice, which is harmless
                    lines = _batch(queue, left)
                    self._insert(lines, insert)
                    left -= len(lines)
                    with self._counts:
                        self.bytes -= sum(map(len, lines))
                        for _ in lines:
                            queue.popleft()
        if self._full and self.waiting < self.max_lines // 2 and self.bytes < self.max_bytes / 2:
            self._full = False
            logger.warning("journal: queue has room again, %d lines were dropped", self.dropped)

    def _insert(self, lines: Sequence[bytes], insert: Callable[[Sequence[bytes]], None]) -> None:
        try:
            insert(lines)
            self.written += len(lines)
        except (DataError, IntegrityError) as error:
            # A line the database will never take must not hold up the others: halve to find it.
            if len(lines) > 1:
                self._insert(lines[: len(lines) // 2], insert)
                self._insert(lines[len(lines) // 2 :], insert)
            else:
                with self._counts:
                    self.dropped += 1
                logger.error("journal: a line was refused and dropped: %s", reason(error))

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(Exception):  # this thread must live, even without memory for a log line
                if not self._stop.wait(self._delay):
                    self._turn()

    def _turn(self) -> None:
        up = self.up
        try:
            self.flush()
            self._prune()
        except Exception as error:  # whatever it is, it is tried again
            self._delay = min(max(self._delay, 0.5) * 2, SLOWEST)
            self.up = False
            if up:
                logger.error("journal: cannot be written, will be tried: %s", reason(error))
        else:
            self._delay, self.up = self.interval, True
            if not up:
                logger.warning("journal: written again, %d lines wait", self.waiting)

    def _prune(self) -> None:
        if self.retention and monotonic() - self._pruned > DAY:
            removed = self.journal.prune(datetime.now(UTC).replace(tzinfo=None) - self.retention)
            self._pruned = monotonic()
            if removed:
                logger.info("journal: %d predictions were past retention and removed", removed)


def _batch(queue: deque[bytes], most: int) -> list[bytes]:
    """The oldest lines, `most` of them, that are written at once: one, or as many as keep within
    both limits."""
    lines: list[bytes] = []
    size = 0
    for i in range(min(most, BATCH)):
        size += len(queue[i])
        if lines and size > BATCH_BYTES:
            break
        lines.append(queue[i])
    return lines
