"""Moves a version up through test, staging and production, by gates."""

from dataclasses import asdict
from functools import partial

from .. import bundle as bundles
from ..errors import UserError
from ..events import notify
from ..settings import ENVIRONMENTS, VERSIONS, Settings
from ..training.provenance import git, user
from .base import Move, Registry, require, version_in
from .gates import Candidate, Gate, gates
from .history import make, repair, rolled_back


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
    compared: Gate | None = None,
) -> Move | None:
    """Moves a version in; by default the newest for test, else what the environment before holds.

    `compared` is the comparison with what staging holds; without it staging's gate makes one on a
    snapshot of the newest labelled rows.
    Returns None when it is there already. Raises Refused when a gate says no, UserError when
    there is nothing to promote.
    """
    on_move = partial(notify.moved, settings)
    repair(environment, registry, on_move)
    version = version or _next(environment, registry)
    holder = registry.alias(environment)
    if version == holder:
        return None
    require(version, registry)
    if unattended and version in rolled_back(registry.moves(environment)):
        raise UserError(
            f"version {version} was rolled back from {environment}; it goes there again "
            f"only by hand: make promote ENV={environment} VERSION={version}"
        )
    bundle = bundles.load(registry.pull(version, VERSIONS))
    candidate = Candidate(bundle, version, holder, by, compared)
    said = gates(environment, candidate, settings, registry)
    if not all(gate.passed for gate in said):
        refusal = Refused(environment, version, said)
        notify.refused(settings, environment, version, by or user(), said, str(refusal))
        raise refusal
    registry.copy_into(environment, version, bundle.digest)
    move = Move(
        environment,
        "promote",
        version,
        holder or "",
        by or user(),
        git()[0],
        {g.name: asdict(g) for g in said},
    )
    return make(move, registry, on_move)


def _next(environment: str, registry: Registry) -> str:
    if environment == "test":
        versions = registry.numbers()
        if not versions:
            raise UserError("nothing is registered; run `make train`")
        return versions[0]
    return version_in(ENVIRONMENTS[ENVIRONMENTS.index(environment) - 1], registry)
