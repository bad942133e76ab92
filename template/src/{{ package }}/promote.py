"""Moves a version through test, staging and production, by gates, and back.

Each move is written down as an intent, then the alias is set, then the move is closed. The alias
follows the last closed move; `repair` finishes what a crash left half done.
"""

import getpass
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from . import bundle as bundles
from . import data
from .bundle import Bundle
from .errors import BundleError, UserError
from .evaluate import MAIN, codes
from .project.metrics import GREATER_IS_BETTER, METRICS
from .project.target import TARGET
from .registry import Move, Registry
from .settings import ENVIRONMENTS, Settings
from .train import git

VERSIONS = Path("var/versions")
DRAWS, ROWS = 200, 50_000


@dataclass(frozen=True)
class Gate:
    """One demand, and whether it is met."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Candidate:
    """What the gates look at."""

    bundle: Bundle
    version: str
    holder: str | None
    """The version that the environment holds."""
    by: str


class Refused(UserError):
    """A gate said no; `gates` holds what each said."""

    def __init__(self, environment: str, version: str, gates: list[Gate]) -> None:
        self.gates = gates
        failed = "; ".join(f"{g.name}: {g.detail}" for g in gates if not g.passed)
        super().__init__(f"version {version} is not promoted to {environment}: {failed}")


def gates(
    environment: str, candidate: Candidate, settings: Settings, registry: Registry
) -> list[Gate]:
    """What each gate of an environment says of a candidate."""
    limits, manifest = settings.gates, candidate.bundle.manifest
    if environment == "test":
        size = sum(f.stat().st_size for f in candidate.bundle.path.iterdir()) / 1e6
        return [
            Gate("bundle", True, "checksums, contract and examples hold"),
            Gate(
                "parity",
                manifest.parity <= limits.parity,
                f"export differs by {manifest.parity:.1g}, limit {limits.parity:.1g}",
            ),
            Gate(
                "size",
                size <= limits.max_bundle_mb,
                f"{size:.1f} MB, limit {limits.max_bundle_mb:.0f} MB (gates.max_bundle_mb)",
            ),
        ]
    if environment == "staging":
        return [compare(candidate, settings, registry)]
    found = []
    if limits.load:
        found.append(_load_gate(candidate, registry))
    if limits.approval:
        found.append(Gate("approval", bool(candidate.by), candidate.by or "say who: BY=name"))
    return found


def _load_gate(candidate: Candidate, registry: Registry) -> Gate:
    tags = next(v.tags for v in registry.versions() if v.version == candidate.version)
    report = json.loads(tags.get("load", "{}"))
    if report.get("bundle") != candidate.bundle.digest:
        return Gate("load", False, "no load report of this bundle; run `make load ENV=staging`")
    return Gate("load", report["passed"], report["summary"])


def compare(candidate: Candidate, settings: Settings, registry: Registry) -> Gate:
    """Candidate against holder, both scored now on the same rows, newer than either has seen.

    The gate is the lower bound of the paired bootstrap's 95 % interval of the gain (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993) on at most the 50,000 newest rows.
    """
    frame = data.snapshot(settings).read()
    manifest = candidate.bundle.manifest
    newer = data.later(frame, manifest.trained_until)
    holder = None
    if candidate.holder:
        path = registry.pull(candidate.holder, VERSIONS)
        holder = bundles.load(path, any_contract=True)
        newer &= data.later(frame, holder.manifest.trained_until)
    frame = frame[newer].iloc[-ROWS:]
    if len(frame) < settings.gates.min_rows:
        return Gate(
            MAIN,
            False,
            f"{len(frame)} labelled rows are newer than the models; at least "
            f"{settings.gates.min_rows} are needed (gates.min_rows)",
        )
    actual = codes(frame[TARGET], manifest.classes)
    columns = data.columns(frame)
    metric = METRICS[MAIN]
    own = candidate.bundle.scores(columns)
    value = metric(actual, own)
    if holder is None:
        return Gate(
            MAIN, bool(np.isfinite(value)), f"{value:.4f} on {len(frame):,} rows; the first here"
        )
    if holder.manifest.classes != manifest.classes:
        return Gate(
            MAIN, False, f"version {holder.version} knows other classes; they do not compare"
        )
    try:
        other = holder.scores(columns)
    except BundleError as error:
        return Gate(
            MAIN, False, f"{error}; clear the way with `make rollback` or a fresh model.name"
        )
    low, high = bootstrap(metric, actual, own, other, settings.train.seed)
    text = (
        f"{value:.4f} against {metric(actual, other):.4f} of version {holder.version} on "
        f"{len(frame):,} rows; gain {low:+.4f} to {high:+.4f}, needed {settings.gates.margin:+.4f}"
    )
    return Gate(MAIN, low >= settings.gates.margin, text)


def bootstrap(
    metric: Callable[[np.ndarray, np.ndarray], float],
    actual: np.ndarray,
    own: np.ndarray,
    other: np.ndarray,
    seed: int,
) -> tuple[float, float]:
    """The 95 % interval of the gain of `own` over `other`; a gain is above zero."""
    random = np.random.default_rng(seed)
    sign = 1 if GREATER_IS_BETTER else -1
    gains = []
    for _ in range(DRAWS):
        rows = random.integers(0, len(actual), len(actual))
        gains.append(sign * (metric(actual[rows], own[rows]) - metric(actual[rows], other[rows])))
    low, high = np.nanpercentile(gains, [2.5, 97.5])
    return float(low), float(high)


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
