"""What several workers count, told by each as one server's.

Each leaves its meters as a text in a folder, every second and whenever it is asked, and tells its
own together with those of the others. A worker that is started again counts on from what the one
before it left, so no counter falls; what a killed one counted in its last second is lost.
"""

import asyncio
import logging
import operator
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ...errors import reason
from ...files import write

logger = logging.getLogger(__name__)
EVERY = 1.0
"""Seconds between two texts."""
COUNTS = {"journal_written", "journal_dropped"}
"""Gauges that count since the start."""
ADDED = COUNTS | {"journal_queue", "process_resident_memory_bytes"}
ADDED |= {"process_virtual_memory_bytes", "process_open_fds", "process_max_fds"}
LEAST = {"journal_up", "process_start_time_seconds"}


class Meters:
    """The meters of worker `number`, and by `folder` those of the others."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number

    def watch(self, registry: CollectorRegistry) -> None:
        """Takes in the registry of this worker, and what the one before it left."""
        self.registry, self._lock = registry, threading.Lock()
        self._said = ""
        self._mine = self.folder / f"{self.number}.prom"
        left = _families([self._mine.read_text()]) if self._mine.exists() else []
        left = [one for one in left if one.type in ("counter", "histogram") or one.name in COUNTS]
        self._before = generate_latest(_Told(left)).decode()

    def leave(self) -> str:
        """Writes what this worker counted, and returns it; a disk that is full is told once."""
        with self._lock:
            text = generate_latest(self.registry).decode()
            if self._before:
                text = generate_latest(_Told(_families([self._before, text]))).decode()
            try:
                if self.folder.exists():  # the parent may have ended
                    write(self._mine, text)
            except OSError as error:
                if self._said != (said := reason(error)):
                    logger.error("metrics: cannot be left for other workers: %s", said)
                self._said = said
            return text

    def text(self) -> bytes:
        """What all workers counted."""
        texts = {self._mine: self.leave()}
        for path in self.folder.glob("[0-9]*.prom"):
            texts[path] = texts.get(path) or path.read_text()
        return generate_latest(_Told(_families(texts[path] for path in sorted(texts))))

    async def keep(self) -> None:
        """Writes again and again, for as long as the application runs."""
        while True:
            await asyncio.to_thread(self.leave)
            await asyncio.sleep(EVERY)


class _Told(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def _families(texts: Iterable[str]) -> list[Metric]:
    """The families of all texts, each once, with values joined."""
    found: dict[str, Metric] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            first = found.setdefault(family.name, family)
            if first is family:
                continue
            join = _joined(family)
            samples = {(s.name, *sorted(s.labels.items())): s for s in first.samples}
            for s in family.samples:
                key = s.name, *sorted(s.labels.items())
                old = samples.get(key)
                samples[key] = s if old is None else old._replace(value=join(old.value, s.value))
            first.samples = [*samples.values()]
    return [*found.values()]


def _joined(family: Metric) -> Callable[[float, float], float]:
    """How the values of two workers become one."""
    if family.type != "gauge" or family.name in ADDED:
        return operator.add
    return min if family.name in LEAST or family.name.endswith("_created") else max
