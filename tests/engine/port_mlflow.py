"""What the port's test does to MLflow beside the Protocol: as people, accidents and servers do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from flight_delays import settings
from flight_delays.registry.base import Registry
from flight_delays.registry.store import ARTIFACTS, connect

from ..helpers import copied
from .servers import free_port


class Port:
    """MLflow in a file of the test's own."""

    variable = "MLFLOW_TRACKING_URI"
    interrupted = (mlflow.MlflowClient, "create_model_version")
    """The last step of a registration."""

    def connect(self) -> Registry:
        """The registry, as another process would see it."""
        return connect(settings.load())

    def tracked(self, run: str) -> tuple[str, dict[str, str], dict[str, float]]:
        """How a run ended, its parameters and its metrics."""
        found = mlflow.MlflowClient().get_run(run)
        ended = {"FINISHED": "finished", "FAILED": "failed"}
        return ended[found.info.status], found.data.params, found.data.metrics

    def trials(self, search: str) -> list[tuple[str, dict[str, str], dict[str, float]]]:
        """The same of the trials below a search, in order."""
        client = mlflow.MlflowClient()
        experiment = client.get_run(search).info.experiment_id
        below = f"tags.mlflow.parentRunId = '{search}'"
        found = client.search_runs([experiment], below, order_by=["attributes.run_name"])
        return [self.tracked(run.info.run_id) for run in found]

    def damage(self, version: str) -> None:
        """Cuts off the end of a registered file."""
        name = settings.load().model.name
        run = mlflow.MlflowClient().get_model_version(name, version).run_id
        for path in ARTIFACTS.glob("models/*/artifacts/data/*/model.*"):
            if f'"run":"{run}"' in (path.parent / "manifest.json").read_text().replace(" ", ""):
                path.write_bytes(path.read_bytes()[:-1])

    def delete(self, version: str) -> None:
        """As a person does it on the registry's pages."""
        mlflow.MlflowClient().delete_model_version(settings.load().model.name, version)

    def point(self, environment: str, version: str) -> None:
        """Sets an alias by hand."""
        name = settings.load().model.name
        mlflow.MlflowClient().set_registered_model_alias(name, environment, version)

    @contextmanager
    def protected(self, environment: str) -> Iterator[None]:
        """Nobody here may change an environment."""

        def refuse(*_: object, **__: object) -> None:
            raise MlflowException("permission denied", error_code=PERMISSION_DENIED)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", refuse)
            yield

    @contextmanager
    def away(self) -> Iterator[str]:
        """The server does not answer; where it should be."""
        with pytest.MonkeyPatch.context() as patch:
            address = f"http://127.0.0.1:{free_port()}"
            patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            patch.setenv("MLFLOW_TRACKING_URI", address)
            yield address


@contextmanager
def kept(
    home: Path, fill: Callable[[Registry], Any], folder: Path
) -> Iterator[Callable[[Path], Any]]:
    """Fills a registry once; gives what opens a copy of it for a test, in a folder of its own."""
    with copied(home, folder) as filled:
        fill(connect(settings.load()))

    @contextmanager
    def opened(to: Path) -> Iterator[Port]:
        with copied(filled, to):
            yield Port()

    yield opened
