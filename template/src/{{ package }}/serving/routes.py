"""The routes of predictions and of what became of them."""

import asyncio
from datetime import UTC
from typing import Annotated

from fastapi import FastAPI, HTTPException, Path, Query, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError

from ..contract import utc
from . import schemas
from .journal.queue import Writer
from .journal.tables import outcome_line
from .live import Live
from .middleware import LOAD_TEST
from .schemas import BODY, Ask, AskMany, label_for, refusals
from .service import NotReady, Service

Id = Annotated[schemas.Key, Path(description="The prediction's id.")]


def add_predictions(app: FastAPI, service: Service, trial: Service, most: int) -> None:
    """Adds the routes that predict; `most` rows are taken at once. `trial` answers load tests."""
    refused = refusals(*BODY, 503)

    # Answers leave as the JSON they were journalled as; the models are for /docs.
    @app.post(
        "/predictions", response_model=schemas.Answer, responses=refused, tags=["predictions"]
    )
    async def predict(body: Ask) -> Response:
        """Predicts one row. With the header `X-Load-Test: 1` it is answered and not kept."""
        chosen = trial if LOAD_TEST.get() else service
        return Response(await chosen.one(body), media_type="application/json")

    @app.post(
        "/predictions/batch",
        response_model=schemas.AnswerMany,
        responses=refused,
        tags=["predictions"],
    )
    async def predict_many(body: AskMany) -> Response:
        """Predicts many rows at once; all of them or none.

        With the header `X-Load-Test: 1` they are answered and not kept.
        """
        if len(body.rows) > most:
            text = f"{len(body.rows)} rows, at most {most} are taken (serving.max_batch)"
            raise RequestValidationError([{"loc": ("body", "rows"), "msg": text}])
        chosen = trial if LOAD_TEST.get() else service
        found = await asyncio.to_thread(chosen.many, body.rows)
        content = b'{"predictions":[%s]}' % b",".join(found)
        return Response(content, media_type="application/json")


def add_journal(app: FastAPI, live: Live, writer: Writer | None) -> None:
    """Adds the routes of what was predicted: look up, erase, and tell what really happened."""

    def kept() -> Writer:
        if writer is None:
            raise HTTPException(404, "this server keeps no journal (journal.url is empty)")
        return writer

    def known(id: str) -> bool:
        """Whether there is such a prediction; yes if the journal cannot be asked."""
        try:
            return kept().holds(id) or kept().journal.get(id) is not None
        except SQLAlchemyError:
            return True

    @app.put(
        "/predictions/{id:path}/outcome",
        status_code=202,
        responses=refusals(*BODY, 404, 503),
        tags=["outcomes"],
    )
    async def put_outcome(
        id: Id,
        body: schemas.Outcome,
        time: Annotated[
            schemas.When | None,
            Query(description="The event's time; {id} is then your own key, and may be early."),
        ] = None,
        new: Annotated[
            bool, Query(description="Whether a class that the model does not know is taken.")
        ] = False,
    ) -> schemas.Accepted:
        """Tells what really happened, at any time later; putting it again replaces it.

        An id that the journal does not know is a 404, a label that is no class of the served model
        a 422, unless it is sent as `new`. With `time` the outcome is taken by your own key, also
        before its prediction. The next training learns from it: whoever reaches this server and
        guesses a key may set one.
        """
        if live.served is None:
            raise NotReady(live.reason)
        try:
            outcome = label_for(body.outcome, live.served.bundle.manifest.classes, new)
        except ValueError as error:
            found = {"loc": ("body", "outcome"), "msg": str(error)}
            raise RequestValidationError([found]) from None
        if LOAD_TEST.get():
            return schemas.Accepted(id=id, outcome=outcome)
        if time is None and not await asyncio.to_thread(known, id):
            raise HTTPException(404, f"no prediction {id}")
        if not kept().add_outcome(outcome_line(id, outcome, time and utc(time))):
            raise HTTPException(503, "the journal's queue is full; try again later")
        return schemas.Accepted(id=id, outcome=outcome)

    refused = refusals(404, 422, 503)

    @app.get("/predictions/{id}", responses=refused, tags=["predictions"])
    def get(id: Id) -> schemas.Kept:
        """A prediction with its features and its outcome, None until it is known."""
        if kept().waiting:
            kept().flush()
        record = kept().journal.get(id)
        if record is None:
            raise HTTPException(404, f"no prediction {id}")
        told = {k: v for k, v in record._asdict().items() if k not in ("at", "prediction")}
        return schemas.Kept(time=record.at.replace(tzinfo=UTC), **told, **record.prediction)

    @app.delete("/predictions", responses=refused, tags=["predictions"])
    def erase_key(
        key: Annotated[schemas.Key, Query(description="Your own key, as a person's.")],
    ) -> schemas.Erased:
        """Erases all predictions of your own key, and their outcomes, for good.

        Whoever reaches this server and guesses a key may do so: let only your own systems reach it.
        """
        if kept().waiting:
            kept().flush()
        return schemas.Erased(predictions=kept().journal.erase_key(key))

    @app.delete("/predictions/{id}", status_code=204, responses=refused, tags=["predictions"])
    def erase(id: Id) -> None:
        """Erases a prediction and its outcomes for good."""
        if kept().waiting:
            kept().flush()
        if not kept().journal.erase(id):
            raise HTTPException(404, f"no prediction {id}")
