"""What a registry is to the rest of the package: this Protocol, and three names of store.py.

They are `connect`; `credentials`, for `make doctor`; and `LOCAL_VARIABLES`, the environment
variables that keep a registry in the current folder, for `make reproduce`.

Versions of one registered model; which of them each environment holds, by an alias; notes on them;
and every move, for ever. It asks for the least that the registries known have in common: there is
no transaction and no compare-and-swap, so history.py makes do without. What one call wrote, the
next one reads, whichever process makes it.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..bundle import Bundle, intact
from ..errors import BundleError, UserError
from ..settings import how_to_fill
from . import signature

if TYPE_CHECKING:  # what follows a registry needs no table
    import pandas as pd


TICK = 1e-3
"""Seconds between two moves of which the later one's clock is behind."""


@dataclass(frozen=True)
class Training:
    """All there is to know of a training, as `register` keeps it."""

    bundle: Bundle
    frame: "pd.DataFrame"
    """A sample of rows as the contract takes them."""
    parameters: dict[str, Any]
    metrics: dict[str, float]
    artifacts: Path
    """A folder of pictures and the model card."""
    source: str
    """Where the rows came from."""
    requirements: list[str]
    """What loads the version elsewhere."""

    @property
    def tags(self) -> dict[str, str]:
        """What is said of a version beside its number."""
        m = self.bundle.manifest
        return {
            "bundle": self.bundle.digest,
            "commit": m.commit,
            "data": m.data,
            "trained_until": str(m.trained_until),
            "contract": m.contract,
            **{f"metric.{k}": f"{v:.6g}" for k, v in m.metrics.items()},
        }

    @property
    def description(self) -> str:
        """The version in a line."""
        m = self.bundle.manifest
        values = ", ".join(f"{name} {value:.4g}" for name, value in m.metrics.items())
        return f"{values}; trained until {m.trained_until}, at commit {m.commit[:8]}"


@dataclass(frozen=True)
class Trial:
    """One set of parameters of a search, and what came of it."""

    number: int
    parameters: dict[str, Any]
    metrics: dict[str, float]
    """Empty if it failed."""
    seconds: float
    error: str = ""
    """Why it failed; empty if it did not."""


@dataclass(frozen=True)
class Version:
    """A registered version."""

    version: str
    run: str
    created: float
    tags: dict[str, str]
    environments: list[str]


@dataclass
class Move:
    """One change of what an environment holds, as it is kept for ever."""

    environment: str
    kind: str
    """promote or rollback"""
    to: str
    back_from: str
    """The version that was there; empty if none was."""
    by: str
    commit: str
    gates: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    at: float = 0.0
    """When it was closed, seconds since 1970; 0 while it is only an intent."""


class Registry(Protocol):
    """The registered model of some settings.

    Every method raises RegistryUnavailable when the registry does not answer, and NotPermitted,
    which is one, when it does not let this user do it.
    """

    @property
    def name(self) -> str:
        """The registered model."""

    @property
    def address(self) -> str:
        """Where the registry is, for a person to read: without a password."""

    def run(self, name: str) -> AbstractContextManager[str]:
        """The id of a tracking run, for as long as a training takes.

        It ends as failed when what it holds raises, and one whose process was killed does not
        count as running for ever.
        """

    def register(self, run: str, training: Training) -> str:
        """Logs all there is to know of a training, then registers the version; returns it.

        The version is there whole, with its bundle and its tags, or not at all: nothing is
        registered when this is interrupted. Versions are numbers that grow.
        """

    def track(self, name: str, trials: Sequence[Trial], artifacts: Path) -> str:
        """Logs a search: a run with a folder of pictures, and a run of each trial below it or in
        one group with it, so that they are seen side by side; returns the search's run.

        A trial that failed is a run that failed. No version is registered.
        """

    def versions(self) -> list[Version]:
        """All versions, newest first."""

    def numbers(self) -> list[str]:
        """The versions, newest first, without what holds them, which not everyone may read."""

    def alias(self, environment: str) -> str | None:
        """The version that an environment holds; None if it holds none."""

    def copy_into(self, environment: str, version: str, digest: str) -> None:
        """Lets an environment keep the version whose bundle has that digest; `set_alias` follows.

        Where environments have registered models of their own it copies the version there, once.
        Raises BundleError when the environment keeps another bundle under that number.
        """

    def set_alias(self, environment: str, version: str) -> None:
        """Makes an environment hold a version that it keeps.

        Who reads meanwhile sees the version before or this one; of two who write, the last one
        counts. Raises UserError for a version that the environment does not keep.
        """

    def tag(self, version: str, key: str, value: str, environment: str = "test") -> None:
        """Writes a note on a version, where an environment keeps it; the last one counts."""

    def note(self, version: str, key: str, environment: str = "test") -> str:
        """What `tag` wrote on a version; empty if nothing."""

    def pull(self, version: str, to: Path, environment: str = "test") -> Path:
        """Puts a version's bundle at `to`/`version`, whole or not at all, and returns that.

        What is there already and intact is left as it is. Raises UserError when the environment
        keeps no such version, BundleError when it is not the bundle that was registered, or
        promoted into `environment`, or lacks the signature that is asked for.
        """

    def intend(self, move: Move) -> Move:
        """Writes down that a move begins, and gives it its `id`; `close` or `abandon` ends it."""

    def close(self, move: Move) -> None:
        """Writes down that a move was made, after all that were closed before, whatever the
        clocks say of those who made them. One that is closed already stays as it is.

        Two who close at once may get places in any order, the same one for every reader.
        """

    def abandon(self, move: Move) -> None:
        """Writes down that a move was not made."""

    def moves(self, environment: str, closed: bool = True) -> list[Move]:
        """The moves of an environment in the order they were closed; with closed=False, those
        that were begun and neither closed nor abandoned."""


def require(version: str, registry: Registry) -> None:
    """Raises UserError for a version that is not registered."""
    if version not in registry.numbers():
        raise UserError(
            f"version {version} of {registry.name} is not registered; see `make status`"
        )


def version_in(environment: str, registry: Registry) -> str:
    """The version that an environment holds; raises UserError if it holds none."""
    version = registry.alias(environment)
    if not version:
        raise UserError(f"{environment} holds no version; run `{how_to_fill(environment)}` first")
    return version


def place(move: Move, closed: list[Move]) -> bool:
    """Gives a move its time, after those that were closed before it, whatever the clocks say.

    False if it is one of them, since a repair was faster: it stays as it is.
    """
    if any(known.id == move.id for known in closed):
        return False
    move.at = max([time.time(), *(known.at + TICK for known in closed[-1:])])
    return True


def pulled(to: Path, version: str, digest: str, fetch: Callable[[Path], Path]) -> Path:
    """The bundle of a digest at `to`/`version`, put there whole or not at all.

    What is there already and intact is left as it is. `fetch` makes a draft's folder, and returns
    the bundle's within it; what it raises is passed on. Raises BundleError when it lacks the
    signature that is asked for.
    """
    trusted, target = signature.trusted(), to / version
    if target.exists():
        if intact(target, digest) and not signature.refusal(target, trusted):
            return target
        shutil.rmtree(target)  # damaged, or that number's of another registry
    to.mkdir(parents=True, exist_ok=True)
    draft = to / f".{version}.{os.getpid()}.tmp"
    try:
        bundle = fetch(draft)
        if why := signature.refusal(bundle, trusted):
            raise BundleError(f"version {version}: {why}; refused")
        try:
            bundle.rename(target)
        except OSError:  # another process put it there
            if not target.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target
