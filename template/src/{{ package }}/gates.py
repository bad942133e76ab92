"""What a version must show before an environment holds it; each gate can say no."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import bundle as bundles
from . import data
from .bundle import Bundle
from .errors import BundleError
from .evaluate import MAIN, codes
from .project.metrics import GREATER_IS_BETTER, METRICS
from .project.target import TARGET
from .registry import Registry
from .settings import VERSIONS, Settings

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
    snapshot: data.Snapshot | None = None
    """The newest labelled rows, where the caller just took them."""


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
    if limits.approval == "name":
        found.append(Gate("approval", bool(candidate.by), candidate.by or "say who: BY=name"))
    return found


def _load_gate(candidate: Candidate, registry: Registry) -> Gate:
    report = json.loads(registry.note(candidate.version, "load", "staging") or "{}")
    if report.get("bundle") != candidate.bundle.digest:
        return Gate("load", False, "no load report of this bundle; run `make load ENV=staging`")
    return Gate("load", report["passed"], report["summary"])


def compare(candidate: Candidate, settings: Settings, registry: Registry) -> Gate:
    """Candidate against holder, both scored now on the same rows, newer than either has seen.

    The gate is the lower bound of the paired bootstrap's 95 % interval of the gain (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993) on at most the 50,000 newest rows.
    """
    frame = (candidate.snapshot or data.snapshot(settings)).read()
    manifest = candidate.bundle.manifest
    newer = data.later(frame, manifest.trained_until)
    holder = None
    if candidate.holder:
        path = registry.pull(candidate.holder, VERSIONS, "staging")
        try:
            holder = bundles.load(path, any_contract=True)
        except BundleError as error:
            return Gate(MAIN, False, f"{error}; the way out is a new name: [model] name")
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
