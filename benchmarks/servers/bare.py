"""A bare FastAPI route with the bodies of a project, and no model: bare.py PACKAGE PORT."""

import sys
from importlib import import_module
from typing import Any

import uvicorn
from fastapi import FastAPI


def bare(schemas: Any) -> FastAPI:
    """The application, with the request and the response of a project's `serving.schemas`."""
    # As ours: what FastAPI looks for at each request where nobody traces is no part of the
    # comparison.
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})
    answer = schemas.Prediction(
        id="0" * 32,
        version="1",
        prediction=True,
        probabilities={"false": 0.7512345678901234, "true": 0.2487654321098766},
    )

    @app.post("/predictions")
    async def predict(body: schemas.PredictionRequest) -> schemas.Prediction:  # type: ignore[name-defined]  # noqa: ARG001
        return answer

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {}

    return app


if __name__ == "__main__":
    package, port = sys.argv[1:]
    app = bare(import_module(f"{package}.serving.schemas"))
    uvicorn.run(app, port=int(port), access_log=False, log_level="warning")
