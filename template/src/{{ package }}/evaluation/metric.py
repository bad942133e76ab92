"""The main metric: of a model with its error, of two models, and of a baseline without features."""

import warnings
from dataclasses import dataclass
from hashlib import sha256
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from ..errors import UserError
from ..project.metrics import GREATER_IS_BETTER as GREATER_IS_BETTER  # others look it up here
from ..project.metrics import METRICS
from ..project.target import TARGET
from .resampling import Metric, Z, paired, spread

MAIN, METRIC = next(iter(METRICS.items()))
KEPT = 256
_MEASURED: dict[tuple[Any, ...], "Value"] = {}
"""The last 256 values: a cycle that runs on looks at the same windows again."""


def codes(labels: pd.Series, classes: list[Any] | None) -> np.ndarray:
    """Labels as the metrics take them: the place in `classes`, or the value of a regression.

    Raises UserError for a label that the model does not know.
    """
    if classes is None:
        return labels.to_numpy(np.float64)
    index = {c: i for i, c in enumerate(classes)}
    unknown = sorted({str(v) for v in labels.unique() if v not in index})
    if unknown:
        raise UserError(
            f"{TARGET}: {', '.join(unknown[:5])} is no class the model was trained on "
            f"({', '.join(map(str, classes))})"
        )
    return labels.map(index).to_numpy(np.int64)


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
        return _gain(METRIC, 1 if GREATER_IS_BETTER else -1, actual, own, other, groups)


def brier_gain(
    actual: np.ndarray, own: np.ndarray, other: np.ndarray, groups: np.ndarray | None = None
) -> Gain:
    """Compares two classifiers' probabilities (n, k) of the same rows by the Brier score."""
    return _gain(brier, -1, actual, own, other, groups)


def brier(actual: np.ndarray, scores: np.ndarray) -> float:
    """The mean squared distance, 0 to 2, of probabilities (n, k) from the classes (n,) that came.

    Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    missed = scores.copy()
    missed[np.arange(len(actual)), actual] -= 1
    return float((missed**2).sum(axis=1).mean())


def _gain(
    measured: Metric,
    sign: int,
    actual: np.ndarray,
    own: np.ndarray,
    other: np.ndarray,
    groups: np.ndarray | None,
) -> Gain:
    mine, others = float(measured(actual, own)), float(measured(actual, other))
    found = paired(measured, actual, own, other, groups)
    return Gain(mine, others, sign * found.value, (found.high - found.value) / Z)


def baseline(actual: np.ndarray, before: np.ndarray, classes: int | None) -> float:
    """The main metric of a baseline without features: the shares of the classes, or the mean, of
    the labels `before` (m,), as scikit-learn's DummyClassifier and DummyRegressor give.

    NaN where it is not defined.
    """
    n = len(actual)
    with warnings.catch_warnings(action="ignore"):
        if classes is None:
            return float(METRIC(actual, np.full(n, before.mean())))
        shares = np.bincount(before, minlength=classes) / len(before)
        return float(METRIC(actual, np.tile(shares, (n, 1))))


def no_worse(value: float, other: float) -> bool:
    """Whether a value of the main metric is defined, and another one is not better."""
    if not np.isfinite(value):
        return False
    return not np.isfinite(other) or (value >= other if GREATER_IS_BETTER else value <= other)
