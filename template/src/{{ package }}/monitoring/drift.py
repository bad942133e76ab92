"""How far rows have moved from the rows a model was trained on: pure functions, NumPy and SciPy.

Numbers are compared by the Wasserstein distance divided by the reference's standard deviation (how
many standard deviations a value moved, on average), categories by the Jensen-Shannon distance
(Endres and Schindelin 2003; natural logarithm, so 0 to 0.83). Missing values count: they are a
category of their own, and for numbers the larger of both distances is taken. Effect sizes are used
and not p-values, which call any change significant once there are many rows.

Two kinds of column need more. Where a few values far out make most of the standard deviation, as
999999 for "unknown" does, all values are clipped at FENCE robust spreads first (winsorised; Huber
and Ronchetti, Robust Statistics, 2009): else those few would hide any move of the others. And of
texts, whose values do not come again, only the length is watched: see `unseen`.
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtri, rel_entr

POINTS = 512
"""Quantiles kept of a number: distances to them agree with those to all rows to about 0.01."""
CATEGORIES = 1000
"""Categories kept of a column, the most frequent ones; the others are one category together."""
FENCE = 10
"""Robust spreads from the median beyond which a value is far out."""
FAR = 0.4
"""Share of a tail that may be far out; with more, a tenth of all rows, the column is just wide."""
DRAWS, SEED = 600, 0
"""Windows drawn to find how far a column moves by chance; the same ones each time."""

Reference = dict[str, Any]
"""JSON-ready: {"rows", "columns": {name: summary}, "score": a summary a class, or None}."""


def reference(columns: Mapping[str, np.ndarray], scores: np.ndarray | None = None) -> Reference:
    """What to remember of the rows a model was trained on, some 5 kB a column.

    `columns` are derived ones: float (n,) with NaN where missing, or object (n,) of strings with
    "" where missing. `scores`, (m,) or (m, k), are predictions for held-out rows: those for rows
    of the training itself would be too sure of themselves.
    """
    rows = len(next(iter(columns.values()), ()))
    summaries = {name: _summary(values) for name, values in columns.items()}
    score = None if scores is None else [_summary(s) for s in _by_class(scores).T]
    return {"rows": rows, "columns": summaries, "score": score}


def unseen(reference: Reference) -> list[str]:
    """The columns of texts: whether what they say has moved is not seen, only how long they are.

    A column is one of texts where less than half of the rows hold a value that is kept and came
    more than once: a window would hold other values though nothing has moved.
    """
    return [name for name, summary in reference["columns"].items() if _is_text(summary)]


def distances(reference: Reference, columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Each column's distance between the reference and a window of one row or more."""
    return {name: _distance(s, columns[name]) for name, s in reference["columns"].items()}


def spread(
    reference: Reference, columns: Mapping[str, np.ndarray], groups: np.ndarray
) -> dict[str, float]:
    """Each column's largest distance between a group of rows, such as a day's, and all of them.

    `groups` (n,) are integers; those of fewer than 30 rows are left out, and with fewer than 5
    others nothing is said. What goes round within the week, or comes and goes with the weather,
    is as far in any such group, and no drift.
    """
    codes, counts = np.unique(groups, return_counts=True)
    codes = codes[counts >= 30]
    if len(codes) < 5:
        return {}
    found = []
    for code in codes:
        rows = groups == code
        found.append(distances(reference, {name: c[rows] for name, c in columns.items()}))
    return {name: max(one[name] for one in found) for name in reference["columns"]}


def thresholds(reference: Reference, rows: int, floor: float) -> dict[str, float]:
    """Each column's distance that is drift, for windows of `rows` rows.

    The larger of `floor` and the 99th percentile of the distances of windows drawn from the
    reference itself: a small window differs from its source by chance, and a column of many
    categories differs more. Numbers are drawn with replacement (a parametric bootstrap, Efron and
    Tibshirani 1993), categories without, against the rows that are left (a permutation test's
    null), half of the rows at most; so the threshold is too wide where windows are larger.
    """
    return {name: _threshold(s, rows, floor) for name, s in reference["columns"].items()}


def score_drift(reference: Reference, scores: np.ndarray, floor: float) -> dict[str, float] | None:
    """Distance and threshold of the predictions (n,) or (n, k): of the class that moved most.

    None if the reference holds no scores.
    """
    if not reference["score"]:
        return None
    pairs = zip(reference["score"], _by_class(scores).T, strict=True)
    found = [(_distance(s, v), _threshold(s, len(v), floor)) for s, v in pairs]
    distance, threshold = max(found, key=lambda pair: pair[0] / pair[1])
    return {"distance": distance, "threshold": threshold}


def missing(values: np.ndarray) -> np.ndarray:
    """Which values are missing: "" or None, and whatever is not a finite number."""
    if values.dtype == object:
        return ~values.astype(bool)
    return ~np.isfinite(values.astype(np.float64))


def _numbers(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    largest = float(np.finfo(np.float32).max)  # what a model can see, and sums that stay finite
    return np.clip(values[~gone].astype(np.float64), -largest, largest)


def _by_class(scores: np.ndarray) -> np.ndarray:
    return scores[:, None] if scores.ndim == 1 else scores


def _summary(values: np.ndarray) -> dict[str, Any]:
    """A column in short: how often each category, or the quantiles of the numbers."""
    gone = missing(values)
    counts: dict[str, Any] = {"rows": len(values), "missing": int(gone.sum())}
    if values.dtype == object:
        found = Counter(values[~gone].tolist()).most_common(CATEGORIES)
        # sorted, so that equal data make an equal file
        summary = {"kind": "category", "counts": dict(sorted(found)), **counts}
        if _is_text(summary):  # a bundle is no place for what customers wrote
            parts = {name: _summary(part) for name, part in _measures(values, gone).items()}
            return {"kind": "text", "parts": parts, **counts}
        return summary
    present = _numbers(values, gone)
    if not len(present):
        return {"kind": "number", "std": 0.0, "points": [], **counts}
    if present.min() == present.max():
        return {"kind": "number", "std": 0.0, "points": [float(present[0])], **counts}
    if fences := _fences(present):
        present = present.clip(*fences)
        counts |= {"fences": fences}
    std = float(present.std())
    points = np.round(_points(present), min(300, 5 - int(np.log10(std))))  # a smaller file
    return {"kind": "number", "std": std, "points": points.tolist(), **counts}


def _is_text(summary: dict[str, Any]) -> bool:
    if summary["kind"] != "category":  # a bundle of 0.1.0 knows no texts
        return bool(summary["kind"] == "text")
    again = sum(count for count in summary["counts"].values() if count > 1)
    return again < (summary["rows"] - summary["missing"]) / 2


def _measures(values: np.ndarray, gone: np.ndarray) -> dict[str, np.ndarray]:
    """How long texts are, NaN where missing."""
    found = {name: np.full(len(values), np.nan) for name in ("characters", "words")}
    found["characters"][~gone] = [len(text) for text in values[~gone]]
    found["words"][~gone] = [len(text.split()) for text in values[~gone]]
    return found


def _fences(values: np.ndarray) -> tuple[float, float] | None:
    """Where values are clipped: far out where a few make more than half of the standard deviation,
    else no nearer than all of them reach, so that only a window's one wild value is."""
    middle = float(np.median(values))
    for tail in (0.25, 0.05, 0.01):  # the quartiles of a column that is mostly zero are equal
        low, high = np.quantile(values, [tail, 1 - tail])
        reach = FENCE * float((high - low) / (2 * ndtri(1 - tail)))
        if reach and np.mean(np.abs(values - middle) > reach) <= FAR * tail:
            low, high = middle - reach, middle + reach
            if values.clip(low, high).std() < values.std() / 2:
                return low, high
            return min(low, float(values.min())), max(high, float(values.max()))
    return None


def _points(values: np.ndarray) -> np.ndarray:
    """The mean of each of POINTS equal shares of the sorted values: keeps mean and tails."""
    centre = values.mean()
    total = np.concatenate([[0.0], np.cumsum(np.sort(values) - centre)])
    at = np.linspace(0, len(values), POINTS + 1)
    return np.diff(np.interp(at, np.arange(len(total)), total)) * POINTS / len(values) + centre


def _shares(summary: dict[str, Any]) -> np.ndarray:
    """The reference as counts over categories, the other categories, and missing."""
    if summary["kind"] == "category":
        known = list(summary["counts"].values())
    else:  # a constant has no scale: a value is the same or another
        known = [summary["rows"] - summary["missing"]] if summary["points"] else []
    other = summary["rows"] - summary["missing"] - sum(known)
    return np.array([*known, other, summary["missing"]], dtype=np.float64)


def _counts(summary: dict[str, Any], values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The window as counts over the same categories as `_shares`."""
    if summary["kind"] == "category":
        found = Counter(values[~gone].tolist())
        known = [found[name] for name in summary["counts"]]
    else:
        known = [int(np.isclose(_numbers(values, gone), p).sum()) for p in summary["points"]]
    return np.array([*known, (~gone).sum() - sum(known), gone.sum()], dtype=np.float64)


def _jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Distance of counts (..., k) to (..., k); scipy's jensenshannon, without its rare NaN."""
    p, q = (x / np.maximum(x.sum(axis=-1, keepdims=True), 1) for x in (p, q))
    middle = (p + q) / 2
    divergence = rel_entr(p, middle).sum(axis=-1) + rel_entr(q, middle).sum(axis=-1)
    return np.sqrt(np.maximum(divergence, 0) / 2)


def _distance(summary: dict[str, Any], values: np.ndarray) -> float:
    gone = missing(values)
    if summary["kind"] == "text":
        found = _measures(values, gone)
        return max(_distance(part, found[name]) for name, part in summary["parts"].items())
    if not summary.get("std"):
        return float(_jensen_shannon(_shares(summary), _counts(summary, values, gone)))
    shares = np.array([summary["rows"] - summary["missing"], summary["missing"]], dtype=np.float64)
    absent = float(_jensen_shannon(shares, np.array([(~gone).sum(), gone.sum()])))
    if gone.all():
        return absent
    # in one dimension the Wasserstein distance is the area between the quantile functions
    present = _numbers(values, gone)
    if "fences" in summary:
        present = present.clip(*summary["fences"])
    moved = np.abs(_points(present) - summary["points"]).mean()
    return max(float(moved / summary["std"]), absent)


def _threshold(summary: dict[str, Any], rows: int, floor: float, level: float = 0.99) -> float:
    if summary["kind"] == "text":  # the distance is that of the part that moved most
        parts = summary["parts"].values()
        return max(_threshold(part, rows, floor, 1 - (1 - level) / len(parts)) for part in parts)
    rng = np.random.default_rng(SEED)
    if not summary.get("std"):
        # rows of the reference against its other rows: drawing any row twice would hide that a
        # window holds values the reference does not
        counts = _shares(summary).astype(np.int64)
        size = max(1, min(rows, summary["rows"] // 2))
        drawn = rng.multivariate_hypergeometric(counts, size, size=DRAWS, method="marginals")
        found = _jensen_shannon(counts - drawn, drawn)
    else:
        # the reference is a sample too: its own error is added by drawing somewhat smaller windows
        size = max(1, round(rows * summary["rows"] / (rows + summary["rows"])))
        lost = summary["missing"] / summary["rows"]
        gone = rng.binomial(size, lost, size=DRAWS)
        absent = _jensen_shannon(np.array([1 - lost, lost]), np.stack([size - gone, gone], axis=1))
        areas = _areas(max(1, round(size * (1 - lost)))) @ np.diff(summary["points"])
        found = np.maximum(areas / summary["std"], absent)
    return max(floor, float(np.quantile(found, level)))


@lru_cache(maxsize=4)  # most columns miss nothing, or miss the same rows
def _areas(rows: int) -> np.ndarray:
    """How far the distribution of windows of `rows` points is off, (DRAWS, POINTS - 1)."""
    drawn = np.random.default_rng(SEED).multinomial(rows, np.full(POINTS, 1 / POINTS), size=DRAWS)
    return np.abs(np.cumsum(drawn / rows - 1 / POINTS, axis=1))[:, :-1]
