"""What a version must show before an environment holds it; each gate can say no."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .. import bundle as bundles
from ..bundle import Bundle
from ..errors import BundleError
from ..evaluation import metric, unseen
from ..evaluation.metric import MAIN, METRIC, codes
from ..evaluation.resampling import groups_of
from ..project.target import TARGET
from ..settings import VERSIONS, Gates, Settings
from ..training import snapshots
from ..training.fitting import aligned
from .base import Registry

ROWS = 50_000
"""Rows that two versions are compared on, the newest ones, at most."""


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
    snapshot: snapshots.Snapshot | None = None
    """The newest labelled rows, where the caller just took them."""
    confidence: float | None = None
    """Instead of `gates.confidence`: after a fall less is asked for."""


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
    """Candidate against holder, on the newest labelled rows that neither had seen.

    Rows that came after a version was trained are scored now; those that judged its procedure
    were scored then. The candidate must do no worse than a guess that knows no row, and better
    than the holder with a confidence of `gates.confidence`.
    """
    frame = (candidate.snapshot or snapshots.snapshot(settings)).read()
    bundle = candidate.bundle
    own = unseen.scores(bundle, frame)
    other = None
    if candidate.holder:
        path = registry.pull(candidate.holder, VERSIONS, "staging")
        try:
            holder = bundles.load(path, any_contract=True)
            scores = unseen.scores(holder, frame)
        except BundleError as error:
            return Gate(
                MAIN,
                False,
                f"{error}; clear the way with `make rollback`, or with a new name: [model] name",
            )
        other = Scored(f"version {holder.version}", scores, holder.manifest.classes)
    mine = Scored(f"version {candidate.version}", own, bundle.manifest.classes)
    return compare_scores(mine, other, frame, settings.gates, candidate.confidence)


@dataclass(frozen=True)
class Scored:
    """What a model says of rows, NaN for those it has seen or has no answer for."""

    name: str
    scores: np.ndarray
    """(n, k) or (n,)"""
    classes: list[Any] | None


def compare_scores(
    own: Scored,
    other: Scored | None,
    frame: pd.DataFrame,
    limits: Gates,
    confidence: float | None = None,
) -> Gate:
    """Whether `own` does no worse than a guess, and better than `other`, on a snapshot's rows.

    Only rows that both had not seen count, and only labels that both know. A gain that is not
    sure on all of them may be so on the newest half. `confidence` replaces `gates.confidence`.
    """
    models = [own, *([other] if other else [])]
    rows, actual, (mine, *others) = common(models, frame)
    if len(actual) < limits.min_rows:
        return Gate(MAIN, False, _too_few(frame, len(actual), own, other, limits))
    before = _labels(frame[TARGET].iloc[: rows[0]], _shared(models))
    guess = metric.guess(
        actual, before if len(before) else actual, mine.shape[1] if mine.ndim == 2 else None
    )
    value = float(METRIC(actual, mine))
    who = "neither had seen" if other else "it had not seen"
    on = f"on {len(actual):,} rows that {who}"
    if not metric.no_worse(value, guess):
        return Gate(MAIN, False, f"{value:.4f} {on}; a guess that knows no row has {guess:.4f}")
    if other is None:
        return Gate(MAIN, True, f"{value:.4f} {on}, a guess has {guess:.4f}; the first here")

    def since(first: int) -> metric.Gain:
        part = groups_of(frame.iloc[rows[first:]])
        return metric.gain(actual[first:], mine[first:], others[0][first:], part)

    gain = since(0)
    needed = limits.confidence if confidence is None else confidence
    name = "gates.confidence" if confidence is None else "after a fall"
    sure = gain.confidence(limits.margin)
    text = (
        f"{gain.own:.4f} against {gain.other:.4f} of {other.name} {on}; a gain of "
        f"{limits.margin:g} or more (gates.margin) is {sure:.1%} sure, {needed:.1%} needed ({name})"
    )
    if sure >= needed:
        return Gate(MAIN, True, text)
    # What changed lately shows in the newest half first: a second look, for half of the doubt.
    half, needed = len(rows) // 2, (1 + needed) / 2
    if len(rows) - half < limits.min_rows:
        return Gate(MAIN, False, text)
    sure = since(half).confidence(limits.margin)
    text += f"; on the newest half of them {sure:.1%}, {needed:.1%} needed"
    return Gate(MAIN, sure >= needed, text)


def common(
    models: list[Scored], frame: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The newest rows that none had seen, at most ROWS, by position; their labels (n,) as the
    metrics take them; and each model's scores of them, (n, k) or (n,), over shared classes."""
    labels, classes = frame[TARGET], _shared(models)
    usable = np.ones(len(labels), dtype=bool)
    if classes is not None:
        usable &= labels.isin(classes).to_numpy()
    for model in models:
        usable &= np.isfinite(model.scores.reshape(len(labels), -1)).all(axis=1)
    rows = np.flatnonzero(usable)[-ROWS:]
    actual = codes(labels.iloc[rows], classes)
    return rows, actual, [_over(model, classes, rows) for model in models]


def _shared(models: list[Scored]) -> list[Any] | None:
    """The classes that all know, in the order of the first."""
    if models[0].classes is None:
        return None
    return [c for c in models[0].classes if all(c in (m.classes or []) for m in models)]


def _labels(labels: pd.Series, classes: list[Any] | None) -> np.ndarray:
    """Those of the classes, as the metrics take them."""
    return codes(labels if classes is None else labels[labels.isin(classes)], classes)


def _over(model: Scored, classes: list[Any] | None, rows: np.ndarray) -> np.ndarray:
    """Scores of some rows over some of a model's classes, which add up to 1 again."""
    scores = aligned(model.scores[rows], model.classes, classes)
    if classes == model.classes:
        return scores
    total = scores.sum(axis=1, keepdims=True)
    return np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / scores.shape[1])


def _too_few(
    frame: pd.DataFrame, rows: int, own: Scored, other: Scored | None, limits: Gates
) -> str:
    who = f"neither {own.name} nor {other.name}" if other else own.name
    had = "has seen them and both answer" if other else "has not seen them and answers"
    return (
        f"{rows:,} of {len(frame):,} labelled rows are such that {who} {had}; at least "
        f"{limits.min_rows:,} are needed (gates.min_rows): wait for newer labels, "
        "or set it lower, or train.holdout higher"
    )
