"""Moves between environments, whichever the registry: made, gone back from, and repaired.

Each move is written down as an intent, then the alias is set, then the move is closed. The alias
follows the last closed move; `repair` finishes what a crash left half done. `on_move` is called
before a move is closed: a kill loses no event, but may cause the same event twice.
"""

from collections.abc import Callable

from ..errors import UserError
from ..settings import VERSIONS
from ..training.provenance import git, user
from . import signature
from .base import Move, Registry

OnMove = Callable[[Move], None]
"""Called with each move, after the alias is set and before the move is closed."""


def do_nothing(_: Move) -> None:
    """The default: no event is made of a move."""


class Overtaken(UserError):
    """Another move was made at the same time, and the alias follows that one."""


def rollback(
    environment: str, registry: Registry, by: str = "", on_move: OnMove = do_nothing
) -> Move:
    """Goes back to the version before, again and again; raises UserError at the first one, and
    BundleError for one without the signature that is asked for."""
    repair(environment, registry, on_move)
    held = rollback_path(registry.moves(environment))
    if len(held) < 2:
        raise UserError(f"{environment}: there is no earlier version to go back to")
    if signature.trusted():  # else nobody would serve it, and what is to go would stay
        registry.pull(held[-2], VERSIONS, environment)
    move = Move(environment, "rollback", held[-2], held[-1], by or user(), git()[0])
    return make(move, registry, on_move)


def rollback_path(moves: list[Move]) -> list[str]:
    """The versions an environment can go back through, the one it holds last."""
    held: list[str] = []
    for move in moves:
        if move.kind == "rollback" and move.to in held:
            while held[-1] != move.to:  # two at once went back to the same: that is one step
                held.pop()
        elif held[-1:] != [move.to]:
            held.append(move.to)
    return held


def rolled_back(moves: list[Move]) -> set[str]:
    """The versions that someone went back from."""
    return {move.back_from for move in moves if move.kind == "rollback"}


def make(move: Move, registry: Registry, on_move: OnMove = do_nothing) -> Move:
    """Makes a move; a kill at any point leaves what `repair` finishes or drops.

    Raises Overtaken when another move was made at the same time and the alias follows that one.
    """
    registry.intend(move)
    registry.set_alias(move.environment, move.to)
    on_move(move)
    registry.close(move)
    last = _settle(move.environment, registry)
    if last and last.to != move.to:
        raise Overtaken(
            f"{move.environment}: the {move.kind} to version {move.to} was overtaken by {last.by}, "
            f"whose {last.kind} to version {last.to} counts; see `make status`"
        )
    return move


def _settle(environment: str, registry: Registry) -> Move | None:
    """Two movers at once: both are in the history, and the alias follows the last one closed.

    Returns that one; None if nothing was ever moved there.
    """
    moves = registry.moves(environment)
    while moves and registry.alias(environment) != moves[-1].to:
        registry.set_alias(environment, moves[-1].to)
        moves = registry.moves(environment)  # who closed one meanwhile may have settled before
    return moves[-1] if moves else None


def repair(environment: str, registry: Registry, on_move: OnMove = do_nothing) -> list[str]:
    """Finishes moves that were killed half way; returns what was done, a line each."""
    done = []
    for move in registry.moves(environment, closed=False):
        if registry.alias(environment) == move.to:
            on_move(move)
            registry.close(move)
            done.append(f"{environment}: closed the {move.kind} to version {move.to}")
        else:
            registry.abandon(move)
            done.append(f"{environment}: dropped a {move.kind} to version {move.to} that never was")
    _settle(environment, registry)
    return done
