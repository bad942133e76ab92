"""What the port's test does to a team's MLflow: port_mlflow.py over a real server."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flight_delays import settings
from flight_delays.registry.base import Registry
from flight_delays.registry.store import connect

from ..helpers import copied
from .port_mlflow import Port
from .team import Team, team

FILLED = "filled"


class TeamPort(Port):
    """A registered model of the test's own on a server that all tests share."""

    def __init__(self, team: Team, ends: ExitStack) -> None:
        self.team, self.ends = team, ends

    def damage(self, version: str) -> None:
        """Cuts off the end of a registered file, until the test ends: others have it too."""
        client = mlflow.MlflowClient()
        found = client.get_model_version(settings.load().model.name, version)
        model = str(found.source).removeprefix("models:/")
        experiment = client.get_run(str(found.run_id)).info.experiment_id
        folder = f"{experiment}/models/{model}/artifacts/data"
        self.ends.enter_context(self.team.damaged(folder, "model."))

    @contextmanager
    def protected(self, environment: str) -> Iterator[None]:
        """Only who may write the moves, and only read the model, is there."""
        user = f"user-{uuid.uuid4().hex[:8]}"
        moves = self.team.experiment(f"{settings.load().model.name}-moves")
        self.team.user(user)
        self.team.grant(user, "experiment", moves, "EDIT")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.team.login(user).items():
                patch.setenv(name, value)
            yield


@contextmanager
def kept(
    home: Path, fill: Callable[[Registry], Any], folder: Path
) -> Iterator[Callable[[Path], Any]]:
    """Fills a model of a server once; gives what makes the same versions of another model."""
    with team(folder) as server:
        with copied(home, folder), pytest.MonkeyPatch.context() as patch:
            for name, value in {**server.login(), "MODEL_NAME": FILLED}.items():
                patch.setenv(name, value)
            fill(connect(settings.load()))

        @contextmanager
        def opened(to: Path) -> Iterator[TeamPort]:
            own = f"own-{uuid.uuid4().hex[:8]}"
            with copied(home, to), pytest.MonkeyPatch.context() as patch, ExitStack() as ends:
                for name, value in {**server.login(), "MODEL_NAME": own}.items():
                    patch.setenv(name, value)
                _same_versions(own)
                yield TeamPort(server, ends)

        yield opened


def _same_versions(to: str) -> None:
    """Registers what FILLED has: its artifacts are there already."""
    connect(settings.load())
    client = mlflow.MlflowClient()
    client.create_registered_model(to)
    for version in reversed(client.search_model_versions(f"name = '{FILLED}'")):
        model = str(version.source).removeprefix("models:/")
        client.create_model_version(
            to, f"models:/{model}", version.run_id,
            tags=version.tags, description=version.description, model_id=model,
        )  # fmt: skip
