"""A shadow against what was answered: the same live rows, without labels and with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..evaluation import metric
from ..evaluation.metric import codes
from ..evaluation.resampling import Z
from ..predict import label
from ..serving.journal.store import Journal, Shadowed
from . import concept, drift

LIMIT = 50_000
"""Rows that are read, the newest ones, at most."""


@dataclass
class Compared:
    """What a shadow said, beside what was answered; None is what cannot be told."""

    version: str
    rows: int
    """Rows that it had an answer for."""
    failed: int
    """Rows that it had none for, though a client got one."""
    agreement: float | None = None
    """The share of rows of the same class, of a classification."""
    difference: float | None = None
    """The mean absolute difference of the values, of a regression."""
    distance: float | None = None
    """How far its scores are from the served ones, as drift.py has it."""
    threshold: float | None = None
    """The distance that counts."""
    labelled: int = 0
    """Rows whose label is known, and is a class of both."""
    metric: float | None = None
    """Its main metric on those rows."""
    metric_served: float | None = None
    """That of what was answered."""
    gain_low: float | None = None
    """The gain's 95 % interval; a gain is above 0 whichever way the metric goes."""
    gain_high: float | None = None

    def surely_below(self, margin: float) -> bool:
        """Whether the whole interval of the gain lies below `margin`."""
        return self.gain_high is not None and self.gain_high < margin

    def told(self, name: str) -> str:
        """The same as a line; `name` is that of the metric."""
        text = f"version {self.version} predicted {self.rows:,} rows"
        if self.agreement is not None:
            text += f", the same class in {self.agreement:.1%}"
        if self.difference is not None:
            text += f", mean absolute difference {self.difference:.4g}"
        if self.distance is not None:
            text += f", scores {self.distance:.3f} apart (threshold {self.threshold:.3f})"
        if self.failed:
            text += f"; no answer for {self.failed:,}"
        if self.metric is not None and self.metric_served is not None:
            text += f"; {name} {self.metric:.4g} against {self.metric_served:.4g} of what was "
            text += f"answered on {self.labelled:,} labelled rows"
            text += ", surely worse" if self.surely_below(0.0) else ""
        return text


def compare(
    journal: Journal,
    shadow: tuple[str, str],
    beside: str,
    threshold: float,
    limit: int = LIMIT,
) -> Compared:
    """A shadow, version and bundle, with the version of production `beside` which it ran.

    `threshold` is the smallest distance of the scores that counts; `limit` says how many rows are
    read, the newest ones, and as many labelled ones.
    """
    rows = journal.shadowed(shadow, beside, limit=limit)
    answered = [row for row in rows if row.shadow]
    found = Compared(shadow[0], len(answered), len(rows) - len(answered))
    if answered:
        _compare(found, answered, threshold)
    labelled = [row for row in journal.shadowed(shadow, beside, True, limit) if row.shadow]
    if labelled:
        _measure(found, labelled)
    return found


def _compare(found: Compared, rows: list[Shadowed], threshold: float) -> None:
    pairs = [(row.shadow["prediction"], row.served["prediction"]) for row in rows]
    if (classes := _classes(rows)) is None:
        found.difference = float(np.mean([abs(own - served) for own, served in pairs]))
    else:
        found.agreement = float(np.mean([own == served for own, served in pairs]))
    if classes != []:
        own, served = _scores(rows, classes)
        apart = drift.score_drift(drift.reference({}, served), own, threshold) or {}
        found.distance, found.threshold = apart.get("distance"), apart.get("threshold")


def _measure(found: Compared, rows: list[Shadowed]) -> None:
    classes = _classes(rows)
    if classes is not None:
        rows = [row for row in rows if label(row.outcome) in classes]
    found.labelled = len(rows)
    if not rows:
        return
    truth = [row.outcome if classes is None else label(row.outcome) for row in rows]
    actual = codes(pd.Series(truth), classes)
    gain = metric.gain(actual, *_scores(rows, classes), concept.groups(rows))
    if np.isfinite([gain.own, gain.other]).all():
        found.metric, found.metric_served = gain.own, gain.other
    if np.isfinite([gain.value, gain.error]).all():
        found.gain_low, found.gain_high = (gain.value + Z * gain.error * way for way in (-1, 1))


def _classes(rows: list[Shadowed]) -> list[str] | None:
    """The classes that both know, as JSON names them; None of a regression."""
    served = rows[0].served.get("probabilities")
    return served and [key for key in served if key in rows[0].shadow["probabilities"]]


def _scores(rows: list[Shadowed], classes: list[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """The shadow's scores and the served ones: values (n,), or probabilities (n, k) over the
    classes that both know, which add up to 1 again."""

    def scores(answers: list[dict[str, Any]]) -> np.ndarray:
        if classes is None:
            return np.array([a["prediction"] for a in answers], np.float64)
        found = np.array([[a["probabilities"][key] for key in classes] for a in answers])
        total = found.sum(axis=1, keepdims=True)
        return np.where(total > 0, found / np.where(total > 0, total, 1), 1 / len(classes))

    return scores([row.shadow for row in rows]), scores([row.served for row in rows])
