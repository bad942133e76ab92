"""How sure a metric is: intervals by the delete-a-group jackknife, where rows come in groups.

Rows of one day or of one customer are alike, and a thousand of them say less than a thousand
strangers. So whole groups of rows are left out, one block of them after the other (Shao and Tu,
The Jackknife and Bootstrap, 1995; Kott, The delete-a-group jackknife, 2001), and Student's t takes
in that the blocks are few. It asks for fewer values of the metric than a bootstrap of groups
(Cameron, Gelbach and Miller 2008), and holds its level better where groups are few:
the template's `benchmarks/false_alarms.py` prints both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from ..project.features import KEY, TIME

if TYPE_CHECKING:
    import pandas as pd

Metric = Callable[[np.ndarray, np.ndarray], float]
"""Of the truth (n,) and of predictions (n,) or (n, k)."""
BLOCKS = 50
"""Times the metric is computed; with 50, Student's t is 2.5 % wider than a normal interval."""
FEWEST = 10
"""Groups of a kind from which their differences can be told."""
LEVEL, Z = 0.975, 1.96
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; without bounds, -inf and inf, where none can be told."""

    value: float
    low: float
    high: float


def paired(
    metric: Metric,
    actual: np.ndarray,
    own: np.ndarray,
    other: np.ndarray,
    groups: np.ndarray | None = None,
) -> Interval:
    """The metric of predictions `own` less that of `other` for the same rows.

    `groups` says which rows belong together, (n,) or (n, g) of integers: in g ways, of which the
    one that leaves the value least sure counts. None takes rows to be independent.
    """

    def gain(rows: np.ndarray | slice) -> float:
        truth = actual[rows]
        return float(metric(truth, own[rows])) - float(metric(truth, other[rows]))

    value, half = gain(slice(None)), Z * _error(gain, len(actual), groups)
    if not np.isfinite(half):
        return Interval(value, -np.inf, np.inf)
    return Interval(value, value - half, value + half)


def spread(
    metric: Metric, actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None = None
) -> float:
    """The metric's standard error, such that 1.96 of them on both sides are a 95 % interval.

    So it is wider where blocks are few; `groups` as in `paired`. NaN where the metric hangs on a
    few rows: it is not defined without one of the blocks.
    """
    return _error(lambda rows: float(metric(actual[rows], predicted[rows])), len(actual), groups)


def groups_of(frame: "pd.DataFrame") -> np.ndarray | None:
    """Which rows belong together, (n, g), for `paired` and `spread`; None if rows are independent.

    Rows of one KEY, where keys repeat, and rows of one day of TIME, or of one hour where there are
    fewer than 10 days. A way that makes fewer than 10 groups is left out.
    """
    ways = []
    if KEY and KEY in frame:
        codes = frame[KEY].factorize()[0]
        unknown = codes < 0  # rows of no key are alone
        codes[unknown] = codes.max(initial=-1) + 1 + np.arange(unknown.sum())
        # in no order: a table may be sorted by what is predicted
        ways.append(np.random.default_rng(SEED).permutation(codes.max(initial=-1) + 1)[codes])
    if TIME and TIME in frame:
        time = frame[TIME].to_numpy("datetime64[us]")
        days, hours = (
            np.unique(time.astype(f"datetime64[{unit}]"), return_inverse=True)[1] for unit in "Dh"
        )
        ways.append(days if days.max(initial=-1) + 1 >= FEWEST else hours)
    ways = [way for way in ways if FEWEST <= way.max(initial=-1) + 1 < len(frame)]
    return np.stack(ways, axis=1) if ways else None


def _error(statistic: Callable[[np.ndarray], float], rows: int, groups: np.ndarray | None) -> float:
    if groups is None:
        groups = np.random.default_rng(SEED).permutation(rows)
    return float(np.max([_jackknife(statistic, way) for way in groups.reshape(rows, -1).T]))


def _jackknife(statistic: Callable[[np.ndarray], float], groups: np.ndarray) -> float:
    """The standard error by leaving out blocks of groups (n,), widened as Student's t is."""
    codes = np.unique(groups, return_inverse=True)[1]
    count = int(codes.max(initial=-1)) + 1
    blocks = min(BLOCKS, count)
    if blocks < 2:
        return np.nan
    block = codes * blocks // count  # neighbours together: a storm lasts for days
    values = np.array([statistic(np.flatnonzero(block != i)) for i in range(blocks)])
    error = np.sqrt((blocks - 1) * values.var())
    return float(error * student.ppf(LEVEL, blocks - 1) / Z)
