"""Does the model still do what training promised? Windows of labelled rows, and ADWIN."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from statistics import NormalDist
from typing import Any

import numpy as np

from .project.metrics import GREATER_IS_BETTER, METRICS
from .resampling import Z, paired, spread

MAIN, METRIC = next(iter(METRICS.items()))
KEPT = 256
_MEASURED: dict[tuple, "Value"] = {}
"""The last 256 values: a cycle that runs on looks at the same windows again."""
DELTA = 0.002
"""ADWIN's chance of a false alarm: what its authors use."""


@dataclass(frozen=True)
class Value:
    """A metric on some rows, with its standard error; None where it is not defined."""

    value: float | None
    error: float
    rows: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval."""
        if self.value is None:
            return None
        return self.value - Z * self.error, self.value + Z * self.error


def measure(actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None = None) -> Value:
    """The main metric and its standard error; `error` is 0 where the metric is not defined.

    `actual` (n,) holds class numbers or values, `predicted` (n, k) or (n,). `groups` says which
    rows belong together, as flights of one stormy day, see resampling.py; None: none do.
    """
    given = actual, predicted, np.empty(0) if groups is None else groups
    key = METRIC, *(sha256(a.tobytes()).digest() for a in given)
    if key not in _MEASURED:
        if len(_MEASURED) >= KEPT:
            _MEASURED.pop(next(iter(_MEASURED)))
        _MEASURED[key] = _measure(actual, predicted, groups)
    return _MEASURED[key]


def _measure(actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None) -> Value:
    rows = len(actual)
    with warnings.catch_warnings(action="ignore"):  # an undefined metric is an answer here
        value = float(METRIC(actual, predicted))
        error = spread(METRIC, actual, predicted, groups) if np.isfinite(value) else np.nan
    if not np.isfinite(error):  # not defined, or by a hair: too few rows of some class
        return Value(None, 0.0, rows)
    return Value(value, error, rows)


@dataclass(frozen=True)
class Gain:
    """How much better one model's scores are than another's on the same rows; above 0 is better."""

    own: float
    """The main metric of the one."""
    other: float
    """The main metric of the other."""
    value: float
    """The difference; above 0 whichever way the metric goes."""
    error: float
    """Its standard error; 0 where both say the same, infinite where it cannot be told."""

    def confidence(self, margin: float = 0.0) -> float:
        """How sure it is that the gain is at least `margin`, 0 to 1 (normal approximation)."""
        if not np.isfinite([self.value, self.error]).all():
            return 0.0
        if self.error == 0:
            return float(self.value >= margin)
        return NormalDist().cdf((self.value - margin) / self.error)

    def surely_below(self, margin: float) -> bool:
        """Whether the whole 95 % interval lies below `margin`."""
        return self.value + Z * self.error < margin


def gain(
    actual: np.ndarray, own: np.ndarray, other: np.ndarray, groups: np.ndarray | None = None
) -> Gain:
    """Compares two models' scores of the same rows by the main metric.

    `own` and `other` are (n, k) or (n,); `groups` says which rows belong together, see
    resampling.py.
    """
    with warnings.catch_warnings(action="ignore"):  # an undefined metric is an answer here
        mine, others = float(METRIC(actual, own)), float(METRIC(actual, other))
        found = paired(METRIC, actual, own, other, groups)
    sign = 1 if GREATER_IS_BETTER else -1
    return Gain(mine, others, sign * found.value, (found.high - found.value) / Z)


def guess(actual: np.ndarray, classes: int | None) -> float:
    """The main metric of an answer that knows no row: the shares of the classes, or the mean, as
    scikit-learn's DummyClassifier and DummyRegressor give. NaN where it is not defined."""
    n = len(actual)
    with warnings.catch_warnings(action="ignore"):
        if classes is None:
            return float(METRIC(actual, np.full(n, actual.mean())))
        shares = np.bincount(actual, minlength=classes) / n
        return float(METRIC(actual, np.tile(shares, (n, 1))))


def no_worse(value: float, other: float) -> bool:
    """Whether a value of the main metric is defined, and another one is not better."""
    if not np.isfinite(value):
        return False
    return not np.isfinite(other) or (value >= other if GREATER_IS_BETTER else value <= other)


def baseline(
    actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """What the monitor compares with: the metric on the rows that judged; JSON-ready.

    The models that scored them had not seen them, as those in production will not have been seen,
    so it is a fair promise; its own error counts, for they are often no more than a window.
    """
    found = measure(actual, predicted, groups)
    return {"metric": MAIN, "value": found.value, "error": found.error, "rows": found.rows}


def violated(window: Value, base: Value, margin: float) -> bool:
    """Whether the whole 95 % interval of (window - baseline) is worse than `margin`."""
    if window.value is None or base.value is None:
        return False
    worse = base.value - window.value if GREATER_IS_BETTER else window.value - base.value
    return bool(worse - Z * np.hypot(window.error, base.error) > margin)


def losses(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Each row's error, 0 to 1: one less the probability of what happened; for values, the
    absolute error over itself plus its median."""
    if predicted.ndim == 2:
        return 1 - predicted[np.arange(len(actual)), actual]
    error = np.abs(actual - predicted)
    return error / (error + max(float(np.median(error)), 1e-12)) if len(error) else error


def changes(values: Sequence[float] | np.ndarray) -> list[dict[str, Any]]:
    """Where the mean of a stream of errors rose: the row, and the mean before and after.

    ADWIN (Bifet and Gavalda 2007), replayed from the first row each time, so that no state is
    kept. It takes rows to be independent; seasons and clumps make it speak often.
    """
    from river.drift import ADWIN

    detector = ADWIN(delta=DELTA)
    found = []
    for row, value in enumerate(values):
        before = detector.estimation
        detector.update(float(value))
        if detector.drift_detected and detector.estimation > before:
            found.append({"row": row, "before": before, "after": detector.estimation})
    return found
