"""The HTTP application: its parts, and what a refused request is told."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from fastapi_offline import FastAPIOffline
from starlette.routing import Match

from ..settings import CANDIDATE, Settings
from .access.tokens import access, describe
from .candidate.canary import Canary
from .candidate.shadow import Shadow
from .journal.queue import Writer
from .journal.store import Journal
from .live import Live
from .metrics import CandidateMetrics, Metrics
from .middleware import Edge
from .own_routes import add_own_routes
from .routes import outcomes, predictions, state, stored_predictions
from .service import NotFound, Service, Unanswerable, Unavailable
from .workers.meters import Meters

ERRORS_SHOWN = 20
"""Errors told of one request: a large batch may hold thousands."""
LONGEST = 5.0
"""Seconds that a request waits for a line that another worker may not have written, at most."""


def create_app(
    bundles: Path,
    journal: Journal | None,
    settings: Settings,
    environment: str = "",
    meters: Meters | None = None,
) -> FastAPI:
    """The application that serves `bundles`/`current` and writes to `journal` if there is one.

    `environment` is what the journal calls it; a row without one counts as production's. `meters`
    are given where this is one of several workers. Raises UserError where project/routes.py cannot
    be added, or the tokens are not what they should be.
    """
    tokens = access(settings.serving)
    writer = None if journal is None else _writer(journal, settings)
    metrics = Metrics(writer, workers=meters)
    live = Live(bundles, metrics)
    candidate = shadow = canary = None
    if settings.serving.candidate:
        candidate = Live(bundles.parent / CANDIDATE, CandidateMetrics(metrics), "candidate is")
        if settings.serving.shadow and writer is not None:
            shadow = Shadow(candidate, writer, metrics)
    service = Service(live, writer, metrics, environment, shadow)
    if meters is not None:
        service.elsewhere = min(settings.journal.flush_seconds + 0.5, LONGEST)
    if candidate is not None and settings.serving.canary:
        beside = Service(candidate, writer, metrics, environment)
        canary = Canary(settings.serving, service, beside)
    # A load test is answered and not kept, and what its texts hold is counted for nobody.
    load_test = Service(live, None, Metrics(None), environment)
    # Handed over as they are: a router that is included looks for the route twice, and 0.91 of
    # the predictions/s were left at 8 connections.
    routers = (
        predictions(canary or service, load_test, settings.serving.max_batch),
        outcomes(service),
        stored_predictions(service),
        state(service),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if writer is not None:
            writer.start()
        if meters is not None:
            meters.watch(metrics.registry)
            with suppress(Exception):  # whatever it is, it is tried again, and told
                await live.look()  # others answer meanwhile: no request gets a 503 here
        watched = [each for each in (live, candidate, canary) if each is not None]
        watching = [asyncio.create_task(each.watch()) for each in watched]
        if shadow is not None:
            shadow.start()
        if meters is not None:
            watching.append(asyncio.create_task(meters.keep()))
        yield
        for task in watching:
            task.cancel()
        if shadow is not None:
            await asyncio.to_thread(shadow.stop)
        if writer is not None:
            await asyncio.to_thread(writer.stop)
        if meters is not None:
            meters.leave()

    app = FastAPIOffline(  # its /docs needs nothing from another host
        title=settings.model.name,
        lifespan=lifespan,
        redoc_url=None,
        routes=[route for router in routers for route in router.routes],
        exception_handlers=HANDLERS,
        telemetry=None if _traced() else {"tracing": False, "metrics": False, "logs": False},
    )
    app.add_middleware(
        Edge,
        metrics=metrics,
        limit=round(settings.serving.max_body_mb * 1e6),
        access_log=settings.serving.access_log,
        root_path=settings.serving.root_path,
        access=tokens,
    )
    if tokens:
        describe(app)
    app.state.service, app.state.access = service, tokens
    add_own_routes(app)
    return app


def _writer(journal: Journal, settings: Settings) -> Writer:
    given = settings.journal
    keep = timedelta(given.retention_days) if given.retention_days else None
    return Writer(journal, given.flush_seconds, given.queue, keep, given.queue_mb * 1e6)


def _traced() -> bool:
    """Whether OpenTelemetry is set up; to look for it takes FastAPI a tenth of each request."""
    return any(name.startswith(("OTEL_", "FASTAPI_OTEL_")) for name in os.environ)


def _problem(status: int, detail: Any, headers: dict[str, str] | None = None) -> Response:
    # ASCII and no NaN, whatever the request held: a refusal must never fail itself.
    text = json.dumps({"detail": detail}, default=str)
    if status == 503:
        headers = {"retry-after": "5"}
    return Response(text, status, headers, media_type="application/json")


async def _not_allowed(request: Request, _: Exception) -> Response:
    """405 with all methods of the path, where the framework names those of its first route."""
    routes = [*iter_route_contexts(request.app.routes)]
    path = next((r.path for r in routes if r.matches(request.scope)[0] is Match.PARTIAL), None)
    found = [r.methods or () for r in routes if r.path == path]
    allowed = ", ".join(sorted({method for methods in found for method in methods}))
    return _problem(405, f"{request.method} is not possible here", {"allow": allowed})


async def _invalid(_: Request, error: Exception) -> Response:
    """422 with the place and the reason, without the input: it may be huge, private or no JSON.

    A body that did not come as JSON is a 415.
    """
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    unread = isinstance(error.body, bytes)
    # A decoder's error is a cycle that would keep the body until garbage is next collected.
    error.body = error.__cause__ = error.__context__ = None
    if unread:
        text = "body: send JSON, with the header content-type: application/json"
        return _problem(415, text, {"accept": "application/json"})
    listed = [
        {
            "loc": [part if isinstance(part, int) else part[:100] for part in e["loc"][:8]],
            "msg": str(e["msg"])[:300],
            "type": e.get("type", "value_error"),
        }
        for e in errors[:ERRORS_SHOWN]
    ]
    if len(errors) > ERRORS_SHOWN:
        more = f"and {len(errors) - ERRORS_SHOWN} more errors"
        listed.append({"loc": ["body"], "msg": more, "type": "too_many"})
    return _problem(422, listed)


HANDLERS: dict[Any, Any] = {
    405: _not_allowed,
    RequestValidationError: _invalid,
    Unanswerable: lambda _, error: _problem(422, str(error)),
    NotFound: lambda _, error: _problem(404, str(error)),
    Unavailable: lambda _, error: _problem(503, str(error)),
}
"""What a request is answered by each error; whatever else comes is a 500 (see middleware)."""
