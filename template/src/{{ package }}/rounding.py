"""What float32, in which ONNX models compute, cannot hold: the seconds of an epoch, for one.

The project's own code, derive() among it, computes in float64; the model's input does not.
"""

from collections.abc import Iterator

import numpy as np

LOST = 0.5
"""Share of a column's distinct values that may fall together."""
NOISE = 0.01
"""Most that rounding may move a column, or what one column says beside another, as a share of its
standard deviation."""


def collapsed(exact: np.ndarray, rounded: np.ndarray) -> list[int]:
    """The columns that rounding spoils, by position; both matrices are (n, a), NaN where missing.

    A column may be spoilt alone, or only beside another: of two large numbers whose difference
    matters, such as a start and an end, float32 may keep each well and their difference not.
    """
    rounded = rounded.astype(np.float64)
    alone = [i for i in range(exact.shape[1]) if _lost(exact[:, i], rounded[:, i])]
    error = _rms(rounded - exact)
    with np.errstate(all="ignore"):
        coarse = [i for i in np.flatnonzero(error > 1e-6 * _std(exact)).tolist() if i not in alone]
    return sorted({*alone, *(i for pair in _pairs(exact, rounded, coarse) for i in pair)})


def _lost(exact: np.ndarray, rounded: np.ndarray) -> bool:
    there = np.isfinite(exact)
    if not there.any():
        return False
    kept = len(np.unique(rounded[there])) / len(np.unique(exact[there]))
    return bool(kept < 1 - LOST or _rms(rounded - exact) > NOISE * _std(exact))


def _pairs(exact: np.ndarray, rounded: np.ndarray, coarse: list[int]) -> Iterator[tuple[int, int]]:
    """Pairs whose rest, once one is explained by the other (least squares), drowns in rounding."""
    for k, i in enumerate(coarse):
        for j in coarse[k + 1 :]:
            both = np.isfinite(exact[:, [i, j]]).all(axis=1)
            if both.sum() < 3:
                continue
            a, b = (exact[both, c] - exact[both, c].mean() for c in (i, j))
            slope = a @ b / (a @ a)
            rest = np.sqrt(np.mean((b - slope * a) ** 2))
            moved = rounded[both] - exact[both]
            noise = np.sqrt(np.mean((moved[:, j] - slope * moved[:, i]) ** 2))
            if rest > 1e-9 * b.std() and noise > NOISE * rest:  # else one is the other, rescaled
                yield i, j


def _rms(values: np.ndarray) -> np.ndarray:
    count = np.maximum(np.isfinite(values).sum(axis=0), 1)
    return np.sqrt(np.nansum(values**2, axis=0) / count)


def _std(values: np.ndarray) -> np.ndarray:
    count = np.maximum(np.isfinite(values).sum(axis=0), 1)
    return _rms(values - np.nansum(values, axis=0) / count)
