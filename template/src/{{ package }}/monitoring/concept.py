"""Is the model still as good as at training? Windows of labelled rows, and ADWIN."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..evaluation import metric
from ..evaluation.metric import Value
from ..evaluation.resampling import Z, groups_of
from ..project.features import KEY, TIME
from ..serving.journal.store import Record, Shadowed

DELTA = 0.002
"""ADWIN's chance of a false alarm: what its authors use."""


def baseline(
    actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """What the monitor compares with: the metric on the rows that judged; JSON-ready.

    The models that scored these rows had not seen them, so it is a fair promise. Its error is kept
    too: often they are no more rows than a window.
    """
    found = metric.measure(actual, predicted, groups)
    return {"metric": metric.MAIN, "value": found.value, "error": found.error, "rows": found.rows}


def violated(window: Value, base: Value, margin: float) -> bool:
    """Whether the whole 95 % interval of (window - baseline) is worse than `margin`."""
    if window.value is None or base.value is None:
        return False
    worse = base.value - window.value if metric.GREATER_IS_BETTER else window.value - base.value
    return bool(worse - Z * np.hypot(window.error, base.error) > margin)


def groups(rows: Sequence[Record | Shadowed]) -> np.ndarray | None:
    """Which rows belong together, see evaluation/resampling.py."""
    parts = {KEY: "key", TIME: "at"}
    columns = {name: [getattr(r, part) for r in rows] for name, part in parts.items() if name}
    return groups_of(pd.DataFrame(columns))


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
