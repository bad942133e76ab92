"""Which snapshots may be deleted: those that no registered version was trained on."""

import time
from dataclasses import dataclass

from ..errors import RegistryUnavailable, UserError
from ..registry.base import Registry
from ..settings import ENVIRONMENTS, Settings
from . import store
from .snapshots import SNAPSHOTS, path_of


@dataclass(frozen=True)
class Unneeded:
    """Snapshots that no version of a registry was trained on, by their digests."""

    here: list[str]
    stored: list[str]
    """Those in the store; empty if there is no store."""


def unneeded(settings: Settings, registry: Registry) -> Unneeded:
    """What may be deleted: nothing younger than a day, since a training may be about to register.

    Raises UserError if a version does not say which snapshot it was trained on.
    """
    # Snapshots are listed before versions, so that a version registered in between is seen.
    here, url = _here(), settings.data.store
    stored = store.digests(url, store.MIN_AGE) if url else []
    needed = _needed(registry)
    return Unneeded(
        [digest for digest in here if digest not in needed],
        [digest for digest in stored if digest not in needed],
    )


def delete(found: Unneeded, url: str = "") -> None:
    """Deletes those on this machine and, with the address of the store, those in the store.

    A snapshot that was written again since it was found stays: a version may be about to need it.
    """
    for digest in set(found.here) & set(_here()):
        path_of(digest).unlink(missing_ok=True)
    for digest in found.stored if url else []:
        store.remove(digest, url)


def _here() -> list[str]:
    old = time.time() - store.MIN_AGE
    return sorted(p.stem for p in SNAPSHOTS.glob("*.parquet") if p.stat().st_mtime <= old)


def _needed(registry: Registry) -> set[str]:
    """The snapshots of all versions, and of the copies that environments hold or ever held."""
    found = {v.version: v.tags.get("data", "") for v in registry.versions()}
    for environment in ENVIRONMENTS:
        held = {move.to for move in registry.moves(environment)} - found.keys()
        for version in held | {*filter(None, [registry.alias(environment)])}:
            try:
                found[f"{version} in {environment}"] = registry.note(version, "data", environment)
            except RegistryUnavailable:  # then nothing is safe to delete
                raise
            except UserError:  # deleted there, too
                continue
    if unsaid := [version for version, digest in found.items() if not digest]:
        raise UserError(
            f"version {unsaid[0]} of {registry.name} does not say which snapshot it was trained "
            "on, so no snapshot is safe to delete; delete that version, or tag it: data = DIGEST"
        )
    return set(found.values())
