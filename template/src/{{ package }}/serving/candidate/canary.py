"""A canary: the candidate answers a share of the requests, until it is promoted or taken back.

Which ones, the request's key decides, so that what has a key is answered by one version for as long
as that is the canary; without a key, the request's id. A batch is one request, and has the key of
its first row. Only the process that follows the registry knows what was taken back, so it gives the
candidate a lease, a file that it renews at each look: without one, what is served answers alone.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from hashlib import sha256

from prometheus_client import Counter, Gauge

from ...errors import reason
from ...settings import Serving
from .. import live
from ..logs import REQUEST
from ..schemas import PredictionRequest
from ..service import Answer, Service, Unanswerable

logger = logging.getLogger(__name__)
SHORTEST = 60.0
"""Seconds that a lease counts, at least: three looks at the registry may take longer."""


class Canary:
    """Answers as `service` does, and a share of the requests as `candidate` does."""

    def __init__(self, settings: Serving, service: Service, candidate: Service) -> None:
        self.share, self.seconds = settings.canary, max(SHORTEST, 3 * settings.poll)
        self.service, self.candidate = service, candidate
        self.version = ""
        """The version that answers the share; empty if none does."""
        self._ended: set[str] = set()
        registry = service.metrics.registry
        text = "The share of the requests that the canary answers; 0 while there is none."
        share = Gauge("canary_share", text, registry=registry)
        share.set_function(lambda: self.share if self.version else 0.0)
        text = "Requests that the canary had no answer for, and what is served had one."
        self.failed = Counter("canary_failed", text, registry=registry)

    async def watch(self) -> None:
        """Follows the lease for as long as the application runs."""
        while True:
            if self.version != (version := self._leased()):
                logger.info("canary is %s", f"version {version}" if version else "none")
            self.version = version
            await asyncio.sleep(live.LOOK)

    def _leased(self) -> str:
        """The version that may answer: one that is loaded, and that this server never served."""
        held, served = self.candidate.live.served, self.service.live.served
        if held is None or served is None:
            return ""
        self._ended.add(served.bundle.version)
        try:
            lease = self.candidate.live.bundles / live.LEASE
            version = lease.read_text()
            current = time.time() - lease.stat().st_mtime < self.seconds
        except (OSError, ValueError):
            return ""
        known = held.bundle.version == version and version not in self._ended
        return version if current and known else ""

    def _draws(self, row: PredictionRequest) -> bool:
        """Whether the canary answers a request; each version draws other keys."""
        held = self.candidate.live.served
        if not self.version or held is None or held.bundle.version != self.version:
            return False
        drawn = sha256(f"{self.version} {row.key or REQUEST.get()}".encode()).digest()
        return int.from_bytes(drawn[:8]) < self.share * 2**64

    async def one(self, row: PredictionRequest) -> Answer:
        """The answer to one row, as Service.one."""
        if not self._draws(row):
            return await self.service.one(row)
        try:
            return await self.candidate.one(row)
        except Exception as error:
            answer = await self.service.one(row)
            self._count(error)
            return answer

    def many(self, rows: Sequence[PredictionRequest]) -> list[Answer]:
        """Answers to all rows, by one version; as Service.many."""
        if not self._draws(rows[0]):
            return self.service.many(rows)
        try:
            return self.candidate.many(rows)
        except Exception as error:
            answers = self.service.many(rows)
            self._count(error)
            return answers

    def _count(self, error: Exception) -> None:
        self.failed.inc()
        if not isinstance(error, Unanswerable):
            logger.error("canary: %s; what is served answered", reason(error), exc_info=error)
