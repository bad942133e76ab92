"""The routes of the API: routers made of the service whose answers they give."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json

from . import schemas
from .candidate.canary import Canary
from .middleware import LOAD_TEST
from .schemas import BODY, label_for, refusals
from .service import Service

Id = Annotated[schemas.Key, Path(description="The prediction's id.")]


def _router(tag: str) -> APIRouter:
    """A router whose operations are called as their functions are."""
    return APIRouter(tags=[tag], generate_unique_id_function=lambda route: route.name)


def _encoded(answer: dict[str, Any]) -> Response:
    """The answer as it was made: the tests hold it to its model.

    Where FastAPI did so at each request, 0.89 of the predictions/s were left at 8 connections.
    """
    return Response(to_json(answer), media_type="application/json")


def predictions(service: Service | Canary, load_test: Service, most: int) -> APIRouter:
    """Predicts, `most` rows at once; `load_test` answers load tests, and keeps nothing."""
    router = _router("predictions")
    refused = refusals(*BODY, 503)

    def chosen() -> Service | Canary:
        return load_test if LOAD_TEST.get() else service

    @router.post("/predictions", response_model=schemas.Prediction, responses=refused)
    async def predict(body: schemas.PredictionRequest) -> Response:
        """Predicts one row. With the header `X-Load-Test: 1` it is answered and not kept."""
        return _encoded(await chosen().one(body))

    @router.post("/predictions/batch", response_model=schemas.BatchPrediction, responses=refused)
    async def predict_batch(body: schemas.BatchRequest) -> Response:
        """Predicts many rows at once; all of them or none.

        With the header `X-Load-Test: 1` they are answered and not kept.
        """
        if len(body.rows) > most:
            text = f"{len(body.rows)} rows, at most {most} are taken (serving.max_batch)"
            raise RequestValidationError([{"loc": ("body", "rows"), "msg": text}])
        found = await asyncio.to_thread(chosen().many, body.rows)
        return _encoded({"predictions": found})

    return router


def outcomes(service: Service) -> APIRouter:
    """Takes what really happened."""
    router = _router("outcomes")

    @router.put(
        "/predictions/{id:path}/outcome", status_code=202, responses=refusals(*BODY, 404, 503)
    )
    def put_outcome(
        id: Id,
        body: schemas.OutcomeRequest,
        time: Annotated[
            schemas.When | None,
            Query(description="The event's time; {id} is then your own key, and may be early."),
        ] = None,
        new: Annotated[
            bool, Query(description="Whether a class that the model does not know is taken.")
        ] = False,
    ) -> schemas.AcceptedOutcome:
        """Tells what really happened, at any time later; putting it again replaces it.

        An id that the journal does not know is a 404, a label that is no class of the served model
        a 422, unless it is sent as `new`. With `time` the outcome is taken by your own key, also
        before its prediction. The next training learns from it: whoever reaches this server and
        guesses a key may set one.
        """
        try:
            outcome = label_for(body.outcome, service.served.bundle.manifest.classes, new)
        except ValueError as error:
            found = {"loc": ("body", "outcome"), "msg": str(error)}
            raise RequestValidationError([found]) from None
        if not LOAD_TEST.get():
            service.put_outcome(id, outcome, time)
        return schemas.AcceptedOutcome(id=id, outcome=outcome)

    return router


def stored_predictions(service: Service) -> APIRouter:
    """Looks up and erases what was predicted."""
    router = _router("predictions")
    refused = refusals(404, 422, 503)

    @router.get("/predictions/{id}", responses=refused)
    def get_prediction(id: Id) -> schemas.StoredPrediction:
        """A prediction with its features and its outcome, null until it is known."""
        return service.stored(id)

    @router.delete("/predictions", responses=refused)
    def erase_predictions(
        key: Annotated[schemas.Key, Query(description="Your own key, as a person's.")],
    ) -> schemas.ErasedCount:
        """Erases all predictions of your own key, and their outcomes, for good.

        Whoever reaches this server and guesses a key may do so: let only your own systems reach it.
        """
        return schemas.ErasedCount(predictions=service.erase_key(key))

    @router.delete("/predictions/{id}", status_code=204, responses=refused)
    def erase_prediction(id: Id) -> None:
        """Erases a prediction and its outcomes for good."""
        service.erase(id)

    return router


def state(service: Service) -> APIRouter:
    """Says how the process is, and what it serves."""
    router = _router("state")

    @router.get("/healthz")
    async def get_health() -> schemas.Health:
        """The process lives."""
        return schemas.Health()

    @router.get("/readyz", responses=refusals(503))
    async def get_readiness() -> schemas.Readiness:
        """A model is served; 503 with the reason until then."""
        return schemas.Readiness(version=service.served.bundle.version)

    @router.get("/version", responses=refusals(503))
    async def get_version() -> schemas.ServedModel:
        """What is served: the version, the bundle's digest, its manifest."""
        bundle = service.served.bundle
        manifest = bundle.manifest.model_dump(exclude={"files"})
        return schemas.ServedModel(version=bundle.version, digest=bundle.digest, **manifest)

    @router.get("/", include_in_schema=False)
    async def home(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")

    @router.get("/metrics", include_in_schema=False)
    def prometheus() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
