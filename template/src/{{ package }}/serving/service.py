"""From requests to answers: predicts, journals, and looks after what was predicted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import attrgetter
from time import perf_counter, sleep
from typing import Any, TypeVar

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from ..contract import KINDS, Columns, columns, utc
from ..errors import reason
from ..predict import answers
from ..project import features as project
from .candidate.shadow import Row, Shadow
from .gather import Gather
from .journal.queue import Writer
from .journal.store import Journal
from .journal.tables import line, outcome_line
from .live import Live, Served
from .metrics import Metrics
from .middleware import age, new_ids
from .schemas import PredictionRequest, StoredPrediction

_features = attrgetter("features")
T = TypeVar("T")
Requests = Sequence[PredictionRequest]
Answer = dict[str, Any]
"""`prediction`, and `probabilities` of a classification; `id` and `version` once it is recorded."""
TIME_FEATURE = project.TIME if KINDS.get(project.TIME or "") == "time" else None
SLOW = 0.02
"""Seconds of a run from which on it takes a thread, so that it holds up nobody. For a fast model a
thread costs more than it saves; in one it may wait some milliseconds for Python's lock, which must
not keep it there."""


class Unavailable(Exception):
    """There is no model yet, or no room in the journal: it may be tried again."""


class NotFound(LookupError):
    """There is no such prediction, or no journal."""


class Unanswerable(ValueError):
    """A row that fits the contract but that the model has no answer for."""


class Service:
    """What the routes answer with; all requests of an application share one."""

    def __init__(
        self,
        live: Live,
        writer: Writer | None,
        metrics: Metrics,
        environment: str = "",
        shadow: Shadow | None = None,
    ) -> None:
        self.live, self.writer, self.metrics, self.shadow = live, writer, metrics, shadow
        self.environment = environment
        self.elsewhere = 0.0
        """Seconds that a line may wait in other workers' queues; 0 where there are none."""
        self.one = Gather(self._gathered, self._slow)
        """Answers one row, in one run of the model with all that come with it."""

    @property
    def served(self) -> Served:
        """What is served now; raises Unavailable where it is nothing."""
        served = self.live.served
        if served is None:
            raise Unavailable(self.live.reason)
        return served

    def many(self, requests: Requests) -> list[Answer]:
        """Answers for all rows or for none; raises Unanswerable naming the row."""
        served = self.served
        found = self._answers(served, requests)
        for i, answer in enumerate(found):
            if isinstance(answer, Unanswerable):
                raise Unanswerable(f"rows.{i}: {answer}") from answer
            if isinstance(answer, Exception):
                raise answer
        return self._record(served, requests, found)  # type: ignore[arg-type]

    def _slow(self) -> bool:
        return self.live.served is not None and self.live.served.seconds > SLOW

    def _gathered(self, requests: Requests) -> list[Answer | Exception]:
        served, start = self.served, perf_counter()
        found = self._answers(served, requests)
        good = [i for i, answer in enumerate(found) if isinstance(answer, dict)]
        recorded = self._record(served, [requests[i] for i in good], [found[i] for i in good])  # type: ignore
        for i, answer in zip(good, recorded, strict=True):
            found[i] = answer
        served.took(perf_counter() - start)
        return found

    def _answers(self, served: Served, requests: Requests) -> list[Answer | Exception]:
        """The answer of each row without its id, or why there is none."""
        try:
            raw = columns([*map(_features, requests)])
            derived = served.bundle.derived(raw)
            scores = served.bundle.scores_of(derived)
        except Exception as error:
            if len(requests) > 1:  # one row must not spoil the others'
                return [self._answers(served, [row])[0] for row in requests]
            expected = isinstance(error, ArithmeticError | ValueError)
            return [Unanswerable(f"features: {reason(error)}") if expected else error]
        self._count_unseen(served, derived)
        found: list[Answer | Exception] = [*answers(served.bundle, scores)]
        finite = np.isfinite(scores.reshape(len(requests), -1)).all(axis=1)
        for i in np.flatnonzero(~finite):
            found[i] = Unanswerable("features: the model has no finite answer for these values")
        return found

    def _count_unseen(self, served: Served, derived: Columns) -> None:
        for name, known in served.known_categories.items():
            values = derived[name].tolist() if name in derived else ()
            if not known.issuperset(values):
                unseen = sum(value not in known for value in values)
                self.metrics.unseen.labels(name).inc(unseen)

    def _record(self, served: Served, requests: Requests, found: Sequence[Answer]) -> list[Answer]:
        """The answers with their ids, queued for the journal."""
        served.predictions.inc(len(requests))
        version, contract = served.bundle.version, served.bundle.manifest.contract
        now = datetime.now(UTC).replace(tzinfo=None)
        ids = new_ids(len(requests))
        if self.writer is not None:
            for id, row, answer in zip(ids, requests, found, strict=True):
                at = row.time or (TIME_FEATURE and row.features.__dict__[TIME_FEATURE])
                named = id, row.key, utc(at) if at else now, version, contract
                text = line(*named, row.features, answer, self.environment)
                if self.writer.add(text) and self.shadow is not None:
                    self.shadow.add(Row(id, version, row.features, answer), len(text))
        return [{"id": id, "version": version} | a for id, a in zip(ids, found, strict=True)]

    # What was predicted. All of it raises NotFound where no journal is kept, and Unavailable where
    # its database does not answer.

    def _writer(self) -> Writer:
        if self.writer is None:
            raise NotFound("this server keeps no journal (journal.url is empty)")
        return self.writer

    @contextmanager
    def _journal(self) -> Iterator[Journal]:
        """The journal, with all in it that was answered."""
        writer = self._writer()
        try:
            if writer.waiting:
                writer.flush()
            yield writer.journal
        except SQLAlchemyError as error:
            raise Unavailable("the journal does not answer; try again later") from error

    def stored(self, id: str) -> StoredPrediction:
        """A prediction with its features and its outcome; raises NotFound."""
        with self._journal() as journal:
            record = self._looked_for(id, lambda: journal.get(id))
        if record is None:
            raise NotFound(f"no prediction {id}")
        values = record._asdict() | record.prediction | {"time": record.at.replace(tzinfo=UTC)}
        return StoredPrediction(**values)

    def erase(self, id: str) -> None:
        """Erases a prediction and its outcomes; raises NotFound."""
        with self._journal() as journal:
            erased = self._looked_for(id, lambda: journal.erase(id))
        if not erased:
            raise NotFound(f"no prediction {id}")

    def erase_key(self, key: str) -> int:
        """Erases all predictions of a key, and their outcomes; says how many there were."""
        sleep(self.elsewhere)
        with self._journal() as journal:
            return journal.erase_key(key)

    def put_outcome(self, id: str, outcome: Any, time: datetime | None = None) -> None:
        """Queues an outcome: by the prediction's id or, with `time`, by the client's own key.

        Raises NotFound for an id that the journal does not know, Unavailable where it has no room.
        """
        if time is None and not self._known(id):
            raise NotFound(f"no prediction {id}")
        if not self._writer().add_outcome(outcome_line(id, outcome, time and utc(time))):
            raise Unavailable("the journal's queue is full; try again later")

    def _known(self, id: str) -> bool:
        """Whether there is such a prediction; yes if the journal cannot be asked."""
        writer = self._writer()
        try:
            found = self._looked_for(id, lambda: writer.holds(id) or writer.journal.get(id))
            return bool(found)
        except SQLAlchemyError:
            return True

    def _looked_for(self, id: str, look: Callable[[], T]) -> T:
        """What `look` finds, now or once another worker has written an id made just now."""
        while not (found := look()) and 0 <= age(id) < self.elsewhere:
            sleep(0.05)
        return found
