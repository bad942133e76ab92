"""The HTTP application: its routes, and what a refused request is told."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.routing import Match

from ..settings import Settings
from .docs import add_docs
from .journal.queue import Writer
from .journal.store import Journal
from .live import Live
from .metrics import Metrics
from .middleware import Edge
from .routes import add_journal, add_predictions
from .schemas import refusals
from .service import NotReady, Service, Unanswerable

SHOWN = 20
"""Errors told of one request: a large batch may hold thousands."""


def create_app(
    bundles: Path, journal: Journal | None, settings: Settings, environment: str = ""
) -> FastAPI:
    """The application that serves `bundles`/`current` and writes to `journal` if there is one.

    `environment` is what the journal calls it; a row without one counts as production's.
    """
    days = settings.journal.retention_days
    keep = timedelta(days) if days else None
    writer = None
    if journal is not None:
        limits = settings.journal.flush_seconds, settings.journal.queue
        most = settings.journal.queue_mb * 1e6
        writer = Writer(journal, *limits, retention=keep, most=most)
    metrics = Metrics(writer)
    live = Live(bundles, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if writer is not None:
            writer.start()
        watch = asyncio.create_task(live.watch())
        yield
        watch.cancel()
        if writer is not None:
            await asyncio.to_thread(writer.stop)

    app = FastAPI(
        title=settings.model.name,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=None if _traced() else {"tracing": False, "metrics": False, "logs": False},
    )
    app.add_middleware(
        Edge,
        metrics=metrics,
        limit=round(settings.serving.max_body_mb * 1e6),
        access_log=settings.serving.access_log,
        root_path=settings.serving.root_path,
    )
    app.add_exception_handler(405, _not_allowed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Unanswerable, lambda _, e: _problem(422, str(e)))
    app.add_exception_handler(NotReady, lambda _, e: _problem(503, str(e)))
    app.add_exception_handler(
        SQLAlchemyError, lambda *_: _problem(503, "the journal does not answer; try again later")
    )
    app.state.live, app.state.writer, app.state.metrics = live, writer, metrics
    service = Service(live, writer, metrics, environment)
    # A load test is answered and not kept, and what its texts hold is counted for nobody.
    trial = Service(live, None, Metrics(None), environment)
    add_predictions(app, service, trial, settings.serving.max_batch)
    add_journal(app, live, writer)
    _state(app, live, metrics)
    add_docs(app)
    return app


def _traced() -> bool:
    """Whether OpenTelemetry is set up; to look for it takes FastAPI a tenth of each request."""
    return any(name.startswith(("OTEL_", "FASTAPI_OTEL_")) for name in os.environ)


def _state(app: FastAPI, live: Live, metrics: Metrics) -> None:
    @app.get("/healthz", tags=["state"])
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "live"}

    @app.get("/readyz", tags=["state"], responses=refusals(503))
    async def readyz() -> dict[str, str]:
        """A model is served; 503 with the reason until then."""
        if live.served is None:
            raise NotReady(live.reason)
        return {"status": "ready", "version": live.served.bundle.version}

    @app.get("/version", tags=["state"], responses=refusals(503))
    async def version() -> dict[str, Any]:
        """What is served: the version, the bundle's digest, its manifest."""
        if live.served is None:
            raise NotReady(live.reason)
        bundle = live.served.bundle
        return {
            "version": bundle.version,
            "digest": bundle.digest,
            **bundle.manifest.model_dump(exclude={"files"}),
        }

    @app.get("/", include_in_schema=False)
    async def home(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")

    @app.get("/metrics", include_in_schema=False)
    def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _problem(status: int, detail: Any, headers: dict[str, str] | None = None) -> Response:
    # ASCII and no NaN, whatever the request held: a refusal must never fail itself.
    text = json.dumps({"detail": detail}, default=str)
    if status == 503:
        headers = {"retry-after": "5"}
    return Response(text, status, headers, media_type="application/json")


async def _not_allowed(request: Request, _: Exception) -> Response:
    """405 with all methods of the path, where the framework names those of its first route."""
    routes = [r for r in request.app.routes if r.matches(request.scope)[0] is Match.PARTIAL]
    path = getattr(routes[0], "path", None) if routes else None
    found = [getattr(r, "methods", None) or () for r in routes if getattr(r, "path", None) == path]
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
    told = [
        {
            "loc": [part if isinstance(part, int) else part[:100] for part in e["loc"][:8]],
            "msg": str(e["msg"])[:300],
            "type": e.get("type", "value_error"),
        }
        for e in errors[:SHOWN]
    ]
    if len(errors) > SHOWN:
        more = f"and {len(errors) - SHOWN} more errors"
        told.append({"loc": ["body"], "msg": more, "type": "too_many"})
    return _problem(422, told)
