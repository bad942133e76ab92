"""What the port's test does to W&B's registry in var/, which WANDB_MODE=offline has.

It has no server that could be away or refuse somebody, and the client alone reads its runs.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import wandb

from flight_delays import settings
from flight_delays.registry.base import Registry
from flight_delays.registry.folder import FolderRegistry
from flight_delays.registry.store import connect

from ..helpers import copied


class Port:
    """A folder of the test's own."""

    variable = ""
    interrupted = (FolderRegistry, "numbers")
    """What is asked for before the last step of a registration."""

    def connect(self) -> Registry:
        """The registry, as another process would see it."""
        return connect(settings.load())

    def folder(self) -> Path:
        found = self.connect()
        assert isinstance(found, FolderRegistry)
        return found.root

    def tracked(self, _: str) -> NoReturn:
        pytest.skip("what is tracked offline, only `wandb sync` reads")

    def damage(self, version: str) -> None:
        """Cuts off the end of a registered file."""
        for path in self.folder().glob(f"versions/{version}/bundle/model.*"):
            path.write_bytes(path.read_bytes()[:-1])

    def delete(self, version: str) -> None:
        """As a person does it, by hand."""
        shutil.rmtree(self.folder() / "versions" / version)

    def point(self, environment: str, version: str) -> None:
        """Sets an alias by hand."""
        (self.folder() / "aliases" / environment).write_text(version)

    def protected(self, _: str) -> AbstractContextManager[None]:
        pytest.skip("a folder has no rights of its own")

    def away(self) -> AbstractContextManager[str]:
        pytest.skip("a folder is never away")


@contextmanager
def offline() -> Iterator[None]:
    """The environment of a person without an account."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_API_KEY", raising=False)
        yield


@contextmanager
def kept(
    home: Path, fill: Callable[[Registry], Any], folder: Path
) -> Iterator[Callable[[Path], Any]]:
    """Fills a registry once; gives what opens a copy of it for a test, in a folder of its own."""
    wandb.teardown()  # what an earlier test had set
    with copied(home, folder) as filled, offline():
        fill(connect(settings.load()))

    @contextmanager
    def opened(to: Path) -> Iterator[Port]:
        with copied(filled, to), offline():
            yield Port()

    yield opened
    wandb.teardown()
