"""Which snapshots may go: those that no registered version was trained on."""

import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..registry.base import Registry
from ..settings import ENVIRONMENTS, Settings
from . import store
from .snapshots import SNAPSHOTS


@dataclass(frozen=True)
class Unneeded:
    """Snapshots that no version of a registry was trained on, by their digests."""

    here: list[str]
    stored: list[str]
    """In the store; none where there is no store."""


def unneeded(settings: Settings, registry: Registry) -> Unneeded:
    """What may go; of the last day nothing, since a training may be about to register a version.

    Raises UserError where a version does not say what it was trained on.
    """
    # Snapshots are listed before versions: a version registered meanwhile is one of those seen.
    here, url = _here(), settings.data.store
    stored = store.digests(url, store.SPARED) if url else []
    needed = _needed(registry)
    return Unneeded(
        [digest for digest in here if digest not in needed],
        [digest for digest in stored if digest not in needed],
    )


def delete(found: Unneeded, url: str = "") -> None:
    """Deletes those that are here, and with the address of the store those that are there.

    What was written anew since it was found stays: a version may be about to need it.
    """
    for digest in set(found.here) & set(_here()):  # not what a training took up since then
        _path(digest).unlink(missing_ok=True)
    for digest in found.stored if url else []:
        store.remove(digest, url)


def _here() -> list[str]:
    old = time.time() - store.SPARED
    return sorted(p.stem for p in SNAPSHOTS.glob("*.parquet") if p.stat().st_mtime <= old)


def _path(digest: str) -> Path:
    return SNAPSHOTS / f"{digest}.parquet"


def _needed(registry: Registry) -> set[str]:
    """The snapshots of all versions, and of those that environments keep as copies."""
    found = {v.version: v.tags.get("data", "") for v in registry.versions()}
    for environment in ENVIRONMENTS:
        if version := registry.alias(environment):
            found[f"{version} in {environment}"] = registry.note(version, "data", environment)
    if unsaid := [version for version, digest in found.items() if not digest]:
        raise UserError(
            f"version {unsaid[0]} of {registry.name} does not say which snapshot it was trained "
            "on, so nothing is known to be unneeded; delete that version, or tag it: data = DIGEST"
        )
    return set(found.values())
