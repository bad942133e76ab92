"""The bundle in use: watches the pointer, loads beside the traffic, and swaps."""

import asyncio
import ctypes
import gc
import logging
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from ..bundle import POINTER, Bundle, load
from ..contract import columns, read
from ..errors import BundleError, Unreadable, passing, reason
from .metrics import CandidateMetrics, Metrics

logger = logging.getLogger(__name__)
REFUSED = "refused"
"""Beside the pointer: why the version that was fetched last is not the one that is served."""
LEASE = "canary"
"""Beside the pointer of a candidate: the version that may answer, see candidate/canary.py."""
GARBAGE = 20_000
"""Objects between two collections: what is under way is looked at in each, and cost a twentieth."""
LOOK = 0.5
"""Seconds between two looks at the pointer: one call of stat."""
SLOWEST = 10.0
"""Seconds between two tries to read what could not be read, at most."""


class Served:
    """A bundle with what a request needs of it, ready made."""

    def __init__(self, bundle: Bundle, metrics: Metrics | CandidateMetrics) -> None:
        self.bundle = bundle
        self.predictions = metrics.predictions.labels(bundle.version)
        self.known_categories = {
            name: frozenset(summary["counts"]) | {""}
            for name, summary in bundle.reference.get("columns", {}).items()
            if summary.get("kind") == "category"
            and sum(summary["counts"].values()) + summary["missing"] == summary["rows"] > 0
        }
        """The categories that training saw, of each derived column where all of them were kept."""
        self.seconds = 0.0
        """How long a run takes, of late: whether it may hold up others, see service.SLOW."""

    def took(self, seconds: float) -> None:
        """Takes in how long a run took; one that was held up by something else says little."""
        self.seconds += 0.1 * (seconds - self.seconds)

    def try_once(self) -> None:
        """Finds out how long a run takes, before the first request does."""
        for example in self.bundle.examples[:1]:
            row = columns(read([example["features"]]))
            start = perf_counter()
            self.bundle.scores_or_nan(row)
            self.seconds = perf_counter() - start


class Live:
    """What is served now; `reason` says why when it is nothing."""

    def __init__(
        self, bundles: Path, metrics: Metrics | CandidateMetrics, what: str = "serving"
    ) -> None:
        self.bundles, self.metrics, self.what = bundles, metrics, what
        self.served: Served | None = None
        self.reason = f"no model yet: nothing was promoted, or {bundles / POINTER} is not written"
        self._seen: tuple[int, Path] | None = None
        self._refused_at = 0

    async def watch(self) -> None:
        """Follows the pointer for as long as the application runs.

        What could not be read is logged once and tried again, ever less often.
        """
        delay, logged = LOOK, ""
        while True:
            try:
                await self.look()
            except Exception as error:
                if logged != (logged := reason(error)):
                    traced = not (isinstance(error, Unreadable) or passing(error))
                    logger.error("%s; what is served goes on", logged, exc_info=traced)
                delay = min(delay * 2, SLOWEST)
            else:
                delay, logged = LOOK, ""
            await asyncio.sleep(delay)

    async def look(self) -> None:
        """Loads what the pointer names if it moved; a refused bundle leaves the old one in use.

        Raises Unreadable, and OSError, for what may be tried again.
        """
        self._read_refusal(self.bundles / REFUSED)
        seen = self._pointer()
        if seen is None or seen == self._seen:
            return
        try:
            served = await asyncio.to_thread(self._load, seen[1])
        except BundleError as error:
            self._seen = seen
            self._refuse(str(error))
            return
        except Exception as error:
            self.metrics.refused.set(1)
            if self.served is None:
                self.reason = reason(error)
            raise
        self._seen = seen
        if self.served is not None:
            self.metrics.model.clear()
        else:
            # What lives as long as the process: no collection need look at it again, and a full
            # one would hold up all requests.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE)
        self.served = served
        self.metrics.model.labels(served.bundle.version, served.bundle.digest).set(1)
        self.metrics.served = served.bundle.version
        self.metrics.refused.set(0)
        logger.info("%s version %s", self.what, served.bundle.version)

    def _read_refusal(self, note: Path) -> None:
        """Refuses what the process that fetches bundles refused, for as long as its note is there.

        Example: version 3 does not reproduce its examples, so `follow` writes why into `refused`;
        once version 4 is promoted it removes that file, and all is well again.
        """
        try:
            changed, why = note.stat().st_mtime_ns, note.read_text()
        except FileNotFoundError:
            if self._refused_at:
                self.metrics.refused.set(0)
            self._refused_at = 0
            return
        if changed != self._refused_at:
            self._refused_at = changed
            self._refuse(why)

    def _refuse(self, why: str) -> None:
        self.metrics.refused.set(1)
        if self.served is None:
            self.reason = f"bundle refused: {why}"
        logger.error("bundle refused: %s", why)

    def _load(self, path: Path) -> Served:
        served = Served(load(path), self.metrics)
        served.try_once()
        # Reading a model leaves some 10 MB of holes that the C library would keep (glibc only).
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        return served

    def _pointer(self) -> tuple[int, Path] | None:
        """When the pointer was last written, and the bundle that it names."""
        pointer = self.bundles / POINTER
        try:
            changed, version = pointer.stat().st_mtime_ns, pointer.read_text().strip()
        except FileNotFoundError:
            return None
        return (changed, self.bundles / version) if version else None
