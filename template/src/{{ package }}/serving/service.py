"""From rows to answers and journal lines, for one row or many."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter

import numpy as np
from pydantic_core import to_json

from ..contract import KINDS, Columns, columns, utc
from ..errors import reason
from ..predict import answers
from ..project import features as project
from .gather import Gather
from .journal.queue import Writer
from .journal.tables import line
from .live import Live, Served
from .metrics import Metrics
from .middleware import new_ids
from .schemas import Ask

logger = logging.getLogger(__name__)
_features = attrgetter("features")
TIME = project.TIME if KINDS.get(project.TIME or "") == "time" else None


class NotReady(Exception):
    """There is no model yet."""


class Unanswerable(ValueError):
    """A row that fits the contract but that the model has no answer for."""


class Service:
    """Predicts, counts and journals; all requests of an application share one."""

    def __init__(
        self, live: Live, writer: Writer | None, metrics: Metrics, environment: str = ""
    ) -> None:
        self.live, self.writer, self.metrics = live, writer, metrics
        self.environment = environment
        self.one = Gather(self._gathered)

    def many(self, asked: Sequence[Ask]) -> list[bytes]:
        """Answers (JSON) for all rows or for none; raises Unanswerable naming the row."""
        served = self._served()
        found = self._answers(served, asked)
        for i, answer in enumerate(found):
            if isinstance(answer, Unanswerable):
                raise Unanswerable(f"rows.{i}: {answer}") from answer
            if isinstance(answer, Exception):
                raise answer
        return self._record(served, asked, found)  # type: ignore[arg-type]

    def _gathered(self, asked: Sequence[Ask]) -> list[bytes | Exception]:
        served = self._served()
        found = self._answers(served, asked)
        good = [i for i, answer in enumerate(found) if isinstance(answer, bytes)]
        if len(good) == len(asked):
            return self._record(served, asked, found)  # type: ignore[arg-type,return-value]
        recorded = self._record(served, [asked[i] for i in good], [found[i] for i in good])  # type: ignore
        for i, answer in zip(good, recorded, strict=True):
            found[i] = answer
        return found

    def _served(self) -> Served:
        if self.live.served is None:
            raise NotReady(self.live.reason)
        return self.live.served

    def _answers(self, served: Served, asked: Sequence[Ask]) -> list[bytes | Exception]:
        """The answer of each row without its id, as JSON, or why there is none."""
        try:
            raw = columns([*map(_features, asked)])
            derived = served.bundle.derived(raw)
            scores = served.bundle.scores_of(derived)
        except Exception as error:
            if len(asked) > 1:  # one row must not spoil the others'
                return [self._answers(served, [row])[0] for row in asked]
            expected = isinstance(error, ArithmeticError | ValueError)
            return [Unanswerable(f"features: {reason(error)}") if expected else error]
        self._count_unseen(served, derived)
        if np.isfinite(scores).all():
            return [to_json(answer) for answer in answers(served.bundle, scores)]
        finite = np.isfinite(scores.reshape(len(asked), -1)).all(axis=1).tolist()
        none = Unanswerable("features: the model has no finite answer for these values")
        return [
            to_json(answers(served.bundle, scores[i : i + 1])[0]) if ok else none
            for i, ok in enumerate(finite)
        ]

    def _count_unseen(self, served: Served, derived: Columns) -> None:
        for name, known in served.known.items():
            values = derived[name].tolist() if name in derived else ()
            if not known.issuperset(values):
                unseen = sum(value not in known for value in values)
                self.metrics.unseen.labels(name).inc(unseen)

    def _record(self, served: Served, asked: Sequence[Ask], found: Sequence[bytes]) -> list[bytes]:
        """Completes the answers with their ids, and queues them for the journal."""
        served.predictions.inc(len(asked))
        version, contract = served.bundle.version, served.bundle.manifest.contract
        now = datetime.now(UTC).replace(tzinfo=None)
        ids = new_ids(len(asked))
        if self.writer is not None:
            for id, row, answer in zip(ids, asked, found, strict=True):
                at = row.time or (TIME and row.features.__dict__[TIME])
                features = row.features.model_dump_json(by_alias=True)
                when = utc(at) if at else now
                text = answer.decode()
                self.writer.add(
                    line(id, row.key, when, version, contract, features, text, self.environment)
                )
        start = b'{"id":"%s",' + served.start
        return [start % id.encode() + a[1:] for id, a in zip(ids, found, strict=True)]
