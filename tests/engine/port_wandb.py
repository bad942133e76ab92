"""What the port's test does to W&B beside the Protocol: as people, accidents and servers do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.sdk.lib.wbauth import unauthenticate_session

from flight_delays import settings
from flight_delays.registry.base import Registry
from flight_delays.registry.store import WandbRegistry, connect

from ..helpers import copied
from . import wandb_server
from .servers import free_port


class Port:
    """A stand-in server, and the real client."""

    variable = "WANDB_BASE_URL"
    interrupted = (wandb.Artifact, "link")
    """The last step of a registration."""

    def __init__(self, server: wandb_server.Server) -> None:
        self.server = server

    def connect(self) -> Registry:
        """The registry, as another process would see it."""
        return connect(settings.load())

    def api(self) -> WandbRegistry:
        found = self.connect()
        assert isinstance(found, WandbRegistry)
        return found

    def tracked(self, run: str) -> tuple[str, dict[str, str], dict[str, float]]:
        """How a run ended, its parameters and its metrics."""
        known = self.api()
        found = known.api.run(f"{known.entity}/{known.name}/{run}")
        return found.state, found.config, dict(found.summary)

    def trials(self, search: str) -> list[tuple[str, dict[str, str], dict[str, float]]]:
        """The same of the trials in the group of a search, in order."""
        known = self.api()
        project = f"{known.entity}/{known.name}"
        group = known.api.run(f"{project}/{search}").group
        runs = [run for run in known.api.runs(project) if run.group == group and run.id != search]
        return [self.tracked(run.id) for run in sorted(runs, key=lambda run: run.name)]

    def damage(self, version: str) -> None:
        """Cuts off the end of a registered file."""
        known = self.api()
        for name, entry in known._kept(version).manifest.entries.items():
            if name.startswith("bundle/model."):
                (kept,) = [k for k in self.server.stored if k.endswith(f"{name}/{entry.digest}")]
                self.server.stored[kept] = self.server.stored[kept][:-1]

    def delete(self, version: str) -> None:
        """As a person does it on the registry's pages."""
        self.api()._kept(version).unlink()

    def point(self, environment: str, version: str) -> None:
        """Sets an alias by hand."""
        kept = self.api()._kept(version)
        kept.aliases.append(environment)
        kept.save()

    @contextmanager
    def protected(self, environment: str) -> Iterator[None]:
        """Nobody here may change an environment."""
        self.server.protected = {environment}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WANDB_API_KEY", wandb_server.MEMBER)
            unauthenticate_session()
            yield
        unauthenticate_session()
        self.server.protected = set()

    @contextmanager
    def away(self) -> Iterator[str]:
        """The server does not answer; where it should be."""
        with pytest.MonkeyPatch.context() as patch:
            address = f"http://127.0.0.1:{free_port()}"
            patch.setenv("WANDB_BASE_URL", address)
            patch.setenv("WANDB__GRAPHQL_RETRY_MAX", "1")
            wandb.teardown()
            yield address
        wandb.teardown()


@contextmanager
def online(server: wandb_server.Server) -> Iterator[None]:
    """The environment of a person who has an account there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        patch.setenv("WANDB_BASE_URL", server.url)
        patch.setenv("WANDB_API_KEY", wandb_server.ADMIN)
        patch.setenv("WANDB_ENTITY", wandb_server.TEAM)
        yield


@contextmanager
def kept(
    home: Path, fill: Callable[[Registry], Any], folder: Path
) -> Iterator[Callable[[Path], Any]]:
    """Fills a registry once; gives what opens a copy of it for a test, in a folder of its own."""
    with wandb_server.running() as server:
        wandb.teardown()  # what an earlier test had set
        with copied(home, folder), online(server):
            fill(connect(settings.load()))
        saved = server.saved()

        @contextmanager
        def opened(to: Path) -> Iterator[Port]:
            server.restore(saved)
            with copied(home, to), online(server):
                yield Port(server)
            assert not server.refused, server.refused

        yield opened
        wandb.teardown()
