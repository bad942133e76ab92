"""A shadow: the candidate predicts the rows that were answered, in the background.

What it says is in no answer: it goes to the journal, to /metrics and to the monitor's report. Rows
wait in a queue for a thread that takes many at a time, ten times a second; what does not fit is
dropped and counted.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from prometheus_client import Counter

from ...bundle import Bundle
from ...contract import columns
from ...errors import reason
from ...predict import answers
from ...project.features import Features
from ..journal.queue import Writer
from ..journal.tables import shadow_line
from ..live import Live
from ..metrics import Metrics

logger = logging.getLogger(__name__)
EVERY = 0.1
"""Seconds between two runs. A thread that each request woke would take Python's lock from the next
one."""
MOST = 128
"""Rows in one run of the model."""
ROWS, BYTES = 5_000, 32e6
"""Rows that may wait, and how long their lines in the journal may be together."""


class Row(NamedTuple):
    """A row that was answered."""

    id: str
    version: str
    """The version that answered."""
    features: Features
    answer: dict[str, Any]


class Shadow:
    """Predicts with what `candidate` holds what others answered."""

    def __init__(self, candidate: Live, writer: Writer, metrics: Metrics) -> None:
        self.candidate, self.writer, registry = candidate, writer, metrics.registry
        text = "Rows that the shadow predicted."
        self.predictions = Counter("shadow_predictions", text, ("version",), registry=registry)
        text = "Rows that the shadow had no answer for."
        self.failed = Counter("shadow_failed", text, ("version",), registry=registry)
        text = "Rows of another class than was answered; of values, the sum of the differences."
        self.difference = Counter("shadow_difference", text, ("version",), registry=registry)
        text = "Rows not shown to the shadow, or whose line was lost: queue full, or a stop."
        self.dropped = Counter("shadow_dropped", text, registry=registry)
        self._rows: deque[tuple[Row, int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._said = ""

    def add(self, row: Row, size: int) -> None:
        """Queues a row whose line in the journal has so many bytes; for any thread."""
        if self.candidate.served is None:
            return
        with self._lock:
            fits = len(self._rows) < ROWS and self._bytes + size <= BYTES
            if fits:
                self._rows.append((row, size))
                self._bytes += size
        if not fits:
            self.dropped.inc()

    def start(self) -> None:
        """Begins to predict."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the run under way; rows that wait are dropped."""
        self._stop.set()
        self._thread.join()
        self.dropped.inc(len(self._rows))

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                self._turn()
            except Exception as error:  # whatever it is, what is served goes on, and so does this
                if self._said != (said := reason(error)):
                    logger.error("shadow: %s; what is served goes on", said, exc_info=True)
                self._said = said

    def _turn(self) -> None:
        while not self._stop.is_set() and (rows := self._take()):
            if served := self.candidate.served:
                self._predict(served.bundle, rows)

    def _take(self) -> list[Row]:
        with self._lock:
            taken = [self._rows.popleft() for _ in range(min(MOST, len(self._rows)))]
            self._bytes -= sum(size for _, size in taken)
        return [row for row, _ in taken]

    def _predict(self, bundle: Bundle, rows: Sequence[Row]) -> None:
        # Just promoted, the candidate is what is served: nothing to compare.
        rows = [row for row in rows if row.version != bundle.version]
        if not rows:
            return
        scores = bundle.scores_or_nan(columns([row.features for row in rows]))
        there = np.isfinite(scores.reshape(len(rows), -1)).all(axis=1).tolist()
        difference = 0.0
        for row, answer, known in zip(rows, answers(bundle, scores), there, strict=True):
            said = answer if known else {}
            line = shadow_line(row.id, bundle.version, bundle.digest, said)
            if not self.writer.add_shadow(line):
                self.dropped.inc()
            if known:
                mine, other = answer["prediction"], row.answer["prediction"]
                classifies = bundle.manifest.classes is not None
                difference += mine != other if classifies else abs(mine - other)
        self.predictions.labels(bundle.version).inc(sum(there))
        self.failed.labels(bundle.version).inc(len(rows) - sum(there))
        self.difference.labels(bundle.version).inc(difference)
