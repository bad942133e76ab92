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
from ..monitoring import shadow
from ..project.target import TARGET
from ..serving.journal.store import opened
from ..settings import VERSIONS, Gates, Settings
from ..training import snapshots
from ..training.fitting import aligned
from .base import Registry

ROWS = 50_000
"""Rows that two versions are compared on, the newest ones, at most."""
LIKELY = 0.9
"""How sure the main metric must be of a gain that the Brier score shows. A model of better
probabilities may rank the rows no better: on the flights 63 and 80 % were too little."""


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
    compared: Gate | None = None
    """The comparison with what staging holds, where the caller just made it."""


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
        if candidate.compared:
            return [candidate.compared]
        frame = snapshots.snapshot(settings).read()
        return [compare(candidate, frame, settings, registry)]
    found = []
    if limits.load:
        found.append(_load_gate(candidate, registry))
    if limits.shadow_rows:
        found.append(_shadow_gate(candidate, settings))
    if limits.approval == "name":
        found.append(Gate("approval", bool(candidate.by), candidate.by or "say who: BY=name"))
    return found


def _load_gate(candidate: Candidate, registry: Registry) -> Gate:
    report = json.loads(registry.note(candidate.version, "load", "staging") or "{}")
    if report.get("bundle") != candidate.bundle.digest:
        return Gate("load", False, "no load report of this bundle; run `make load ENV=staging`")
    return Gate("load", report["passed"], report["summary"])


def _shadow_gate(candidate: Candidate, settings: Settings) -> Gate:
    """Whether this very bundle answered enough rows of production, and is not surely worse there.

    A loss that `gates.margin` tolerates is no worse, and `gates.min_rows` labels decide.
    """
    needed = settings.gates.shadow_rows
    if not candidate.holder:
        return Gate("shadow", True, "production holds no version that it could have run beside")
    with opened(settings.journal.url) as journal:
        if journal is None:
            text = "there is no journal here (journal.url is empty); set JOURNAL_URL"
            return Gate("shadow", False, text)
        found = shadow.compare(
            journal,
            (candidate.version, candidate.bundle.digest),
            candidate.holder,
            settings.monitor.threshold,
            max(needed, shadow.LIMIT),
        )
    text = f"{found.told(MAIN)}; {needed:,} beside version {candidate.holder} are needed "
    text += "(gates.shadow_rows)"
    if found.failed or found.rows < needed:
        more = "" if found.failed else "; serve production with SERVING_SHADOW=staging, and wait"
        return Gate("shadow", False, text + more)
    if found.labelled < settings.gates.min_rows:
        text += f"; {settings.gates.min_rows:,} labelled rows decide (gates.min_rows)"
        return Gate("shadow", True, text)
    return Gate("shadow", not found.surely_below(min(settings.gates.margin, 0.0)), text)


def compare(
    candidate: Candidate, frame: pd.DataFrame, settings: Settings, registry: Registry
) -> Gate:
    """Candidate against holder, on the newest rows of a snapshot that neither was trained on.

    Rows that came after a version was trained are scored now; those that judged its procedure
    were scored then. The candidate must do no worse than a baseline without features, and better
    than the holder with a confidence of `gates.confidence`.
    """
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
                f"{error}; run `make rollback`, or set a new name in [model] name",
            )
        other = Scored(f"version {holder.version}", scores, holder.manifest.classes)
    mine = Scored(f"version {candidate.version}", own, bundle.manifest.classes)
    return compare_scores(mine, other, frame, settings.gates)


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
    """Whether `own` does no worse than a baseline without features and better than `other`.

    `frame` holds a snapshot's rows, in order; each score belongs to one of them. Only rows that
    neither was trained on count, and only labels that both know. A gain of a classifier that is
    only LIKELY by the main metric is enough if the Brier score is surely better: that measures how
    confident an answer was, so it shows a gain on fewer rows. It is a second test, so it needs half
    of the doubt. `confidence` replaces `gates.confidence`.
    """
    models = [own, *([other] if other else [])]
    rows, actual, (mine, *others) = common(models, frame)
    if len(actual) < limits.min_rows:
        return Gate(MAIN, False, _too_few(frame, len(actual), own, other, limits))
    before = _labels(frame[TARGET].iloc[: rows[0]], _shared(models))
    baseline = metric.baseline(
        actual, before if len(before) else actual, mine.shape[1] if mine.ndim == 2 else None
    )
    value = float(METRIC(actual, mine))
    who = "neither was trained on" if other else "it was not trained on"
    on = f"on {len(actual):,} rows that {who}"
    least = f"a baseline without features has {baseline:.4f}"
    if not metric.no_worse(value, baseline):
        return Gate(MAIN, False, f"{value:.4f} {on}; {least}")
    if other is None:
        return Gate(MAIN, True, f"{value:.4f} {on}, {least}; the first version here")
    groups = groups_of(frame.iloc[rows])
    gain = metric.gain(actual, mine, others[0], groups)
    needed = limits.confidence if confidence is None else confidence
    name = "gates.confidence" if confidence is None else "after a fall"
    sure = gain.confidence(limits.margin)
    text = (
        f"{gain.own:.4f} against {gain.other:.4f} of {other.name} {on}; confidence of a gain of "
        f"{limits.margin:g} or more (gates.margin): {sure:.1%}, needed: {needed:.1%} ({name})"
    )
    if sure >= needed or mine.ndim == 1:
        return Gate(MAIN, sure >= needed, text)
    needed = (1 + needed) / 2
    brier = metric.brier_gain(actual, mine, others[0], groups).confidence()
    text += f"; {LIKELY:.0%} is enough if a better Brier score has {needed:.1%}: it has {brier:.1%}"
    return Gate(MAIN, brier >= needed and sure >= LIKELY, text)


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
    who = f"{own.name} and {other.name}" if other else own.name
    return (
        f"{rows:,} of {len(frame):,} labelled rows can be compared, those that {who} can score and "
        f"{'were' if other else 'was'} not trained on; {limits.min_rows:,} are needed "
        "(gates.min_rows): wait for newer labels, lower it, or raise train.holdout"
    )
