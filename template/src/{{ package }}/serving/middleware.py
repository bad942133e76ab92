"""The one layer round the application: request id, tokens, body limit, metrics and access log."""

import json
import logging
import math
import os
import re
from contextvars import ContextVar
from itertools import count
from time import perf_counter, time, time_ns

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access.tokens import Access
from .logs import REQUEST
from .metrics import Metrics

logger = logging.getLogger(__name__)
REQUEST_ID = re.compile(rb"[\w.:/+=-]{1,128}")
"""What is taken as an id: the rest could forge a line in somebody's log."""
ID = re.compile("[0-9a-f]{32}")
"""What new_ids makes."""
LOAD_TEST: ContextVar[bool] = ContextVar("load_test", default=False)
"""Whether the request being served says X-Load-Test: it is answered, and nothing of it is kept."""


def new_ids(n: int) -> list[str]:
    """Ids of 32 hex digits: milliseconds, so that an index grows at its end, then 80 random bits.

    Who knows an id may read and erase its prediction, so that they must not be guessed.
    """
    now, random = f"{time_ns() // 1_000_000:012x}", os.urandom(10 * n).hex()
    return [now + random[i : i + 20] for i in range(0, 20 * n, 20)]


def age(id: str) -> float:
    """Seconds since such an id was made; infinite for any other text."""
    return time() - int(id[:12], 16) / 1000 if ID.fullmatch(id) else math.inf


class Edge:
    """ASGI middleware; written without Starlette's base class, which costs a task a request."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        limit: int,
        access_log: bool,
        root_path: str,
        access: Access | None = None,
    ) -> None:
        self.app, self.metrics, self.limit, self.access_log = app, metrics, limit, access_log
        self.root_path, self.access = root_path, access
        self.prefix, self.serial = f"{os.urandom(6).hex()}-", count(1)  # workers share modules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start = perf_counter()
        request = coding = authorization = b""
        size: int | None = 0
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                size = int(value)
            elif name == b"transfer-encoding":
                size = None
            elif name == b"x-request-id" and REQUEST_ID.fullmatch(value):
                request = value
            elif name == b"authorization":
                authorization = value
            elif name == b"x-load-test":
                LOAD_TEST.set(True)
            elif name == b"content-encoding" and value.lower() != b"identity":
                coding = value
        if self.root_path:
            _add_prefix(self.root_path, scope)
        name = request.decode() if request else f"{self.prefix}{next(self.serial)}"
        REQUEST.set(name)  # each request runs in a context of its own
        status, started = 500, False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message["headers"].append((b"x-request-id", name.encode()))
            await send(message)

        refusal = None
        if self.access:  # before a byte of the body is read
            path = scope["path"].removeprefix(self.root_path) or "/"
            refusal = self.access.refusal(scope["method"], path, authorization)
        try:
            if refusal:
                challenge = (b"www-authenticate", refusal.challenge)
                await _reply(answer, refusal.status, refusal.detail, challenge)
            elif coding:
                plain = (b"accept-encoding", b"identity")
                await _reply(answer, 415, "body: send it as it is, not compressed", plain)
            elif size is None:
                await self.app(scope, self._counted(receive), answer)
            elif size > self.limit:
                await _reply(answer, 413, too_large(self.limit))
            else:
                await self.app(scope, receive, answer)
        except Exception:
            logger.exception("%s %s", scope["method"], scope["path"])
            if started:
                raise
            await _reply(answer, 500, "something went wrong here; the log has the request's id")
        finally:
            seconds = perf_counter() - start
            route = getattr(scope.get("route"), "path", "unknown")
            self.metrics.request(scope["method"], route, status, seconds)
            if self.access_log:
                details = {"status": status, "ms": round(seconds * 1e3, 3)}
                logger.info("%s %s", scope["method"], scope["path"], extra=details)

    def _counted(self, receive: Receive) -> Receive:
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self.limit:
                raise HTTPException(413, too_large(self.limit))
            return message

        return counted


def _add_prefix(root_path: str, scope: Scope) -> None:
    """Makes the path the whole one that the client asked for, whether a proxy cut it or not."""
    scope["root_path"] = root_path
    if not f"{scope['path']}/".startswith(f"{root_path}/"):
        scope["path"] = root_path + scope["path"]


async def _reply(send: Send, status: int, detail: str, *more: tuple[bytes, bytes]) -> None:
    body = json.dumps({"detail": detail}).encode()
    length = b"content-length", b"%d" % len(body)
    headers = [(b"content-type", b"application/json"), length, *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def too_large(limit: int) -> str:
    """What a client reads whose body is too large."""
    return f"body: more than {limit} bytes; send fewer rows (serving.max_body_mb)"
