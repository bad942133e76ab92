"""Moves a version through test, staging and production, by gates, and back.

Each move is written down as an intent, then the alias is set, then the move is closed. The alias
follows the last closed move; `repair` finishes what a crash left half done.
"""

import getpass
from dataclasses import asdict

from . import bundle as bundles
from .errors import UserError
from .gates import Candidate, Gate, gates
from .history import Move
from .provenance import git
from .registry import Registry
from .settings import ENVIRONMENTS, VERSIONS, Settings


class Refused(UserError):
    """A gate said no; `gates` holds what each said."""

    def __init__(self, environment: str, version: str, gates: list[Gate]) -> None:
        self.gates = gates
        failed = "; ".join(f"{g.name}: {g.detail}" for g in gates if not g.passed)
        super().__init__(f"version {version} is not promoted to {environment}: {failed}")


def promote(
    environment: str,
    settings: Settings,
    registry: Registry,
    version: str = "",
    by: str = "",
    unattended: bool = False,
) -> Move | None:
    """Moves a version in; by default the newest for test, else what the environment before holds.

    Returns None when it is there already. Raises Refused when a gate says no, UserError when
    there is nothing to promote.
    """
    repair(environment, registry)
    version = version or _next(environment, registry)
    holder = registry.alias(environment)
    if version == holder:
        return None
    if version not in {v.version for v in registry.versions()}:
        raise UserError(
            f"version {version} of {settings.model.name} is not registered; see `make status`"
        )
    if unattended and version in rolled_back(registry.moves(environment)):
        raise UserError(
            f"version {version} was rolled back from {environment}; it goes there again "
            f"only by hand: make promote ENV={environment} VERSION={version}"
        )
    bundle = bundles.load(registry.pull(version, VERSIONS))
    said = gates(environment, Candidate(bundle, version, holder, by), settings, registry)
    if not all(gate.passed for gate in said):
        raise Refused(environment, version, said)
    move = Move(
        environment,
        "promote",
        version,
        holder or "",
        by or getpass.getuser(),
        git()[0],
        {g.name: asdict(g) for g in said},
    )
    return _make(move, registry)


def _next(environment: str, registry: Registry) -> str:
    if environment == "test":
        versions = registry.versions()
        if not versions:
            raise UserError("nothing is registered; run `make train`")
        return versions[0].version
    before = ENVIRONMENTS[ENVIRONMENTS.index(environment) - 1]
    version = registry.alias(before)
    if not version:
        raise UserError(f"{before} holds no version; run `make promote ENV={before}` first")
    return version


def rollback(environment: str, registry: Registry, by: str = "") -> Move:
    """Goes back to the version before, again and again; raises UserError at the first one."""
    repair(environment, registry)
    held = stack(registry.moves(environment))
    if len(held) < 2:
        raise UserError(f"{environment}: there is no earlier version to go back to")
    move = Move(environment, "rollback", held[-2], held[-1], by or getpass.getuser(), git()[0])
    return _make(move, registry)


def stack(moves: list[Move]) -> list[str]:
    """The versions an environment can go back through, the one it holds last."""
    held: list[str] = []
    for move in moves:
        if move.kind == "rollback" and held:
            held.pop()
        else:
            held.append(move.to)
    return held


def rolled_back(moves: list[Move]) -> set[str]:
    """The versions that someone went back from."""
    return {move.back_from for move in moves if move.kind == "rollback"}


def _make(move: Move, registry: Registry) -> Move:
    registry.intend(move)
    registry.set_alias(move.environment, move.to)
    registry.close(move)
    _settle(move.environment, registry)
    return move


def _settle(environment: str, registry: Registry) -> None:
    """Two movers at once: both are in the history, and the alias follows the last one closed."""
    moves = registry.moves(environment)
    if moves and registry.alias(environment) != moves[-1].to:
        registry.set_alias(environment, moves[-1].to)


def repair(environment: str, registry: Registry) -> list[str]:
    """Finishes moves that were killed half way; returns what was done, a line each."""
    done = []
    for move in registry.moves(environment, closed=False):
        if registry.alias(environment) == move.to:
            registry.close(move)
            done.append(f"{environment}: closed the {move.kind} to version {move.to}")
        else:
            registry.abandon(move)
            done.append(f"{environment}: dropped a {move.kind} to version {move.to} that never was")
    _settle(environment, registry)
    return done
