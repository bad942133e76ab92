"""What float32, in which ONNX models compute, cannot hold: the seconds of an epoch, for one.

The project's own code, derive() among it, computes in float64; the model's input does not.
"""

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
    coarse = [i for i in np.flatnonzero(error > 1e-6 * _std(exact)).tolist() if i not in alone]
    beside = _beside(exact[:, coarse], rounded[:, coarse]).tolist()
    return sorted([*alone, *(i for i, spoilt in zip(coarse, beside, strict=True) if spoilt)])


def _lost(exact: np.ndarray, rounded: np.ndarray) -> bool:
    there = np.isfinite(exact)
    if not there.any():
        return False
    kept = len(np.unique(rounded[there])) / len(np.unique(exact[there]))
    return bool(kept < 1 - LOST or _rms(rounded - exact) > NOISE * _std(exact))


def _beside(exact: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """Which columns (a,) have a rest, once another explains them (least squares), that drowns.

    Of each pair over the rows that hold both: variances and covariances, first of the values, then
    of what rounding moved.
    """
    there = np.isfinite(exact)

    def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = np.where(there, values - np.nanmean(values, axis=0), 0.0)
        sums = values.T @ there
        variance = (values**2).T @ there - sums**2 / rows
        return variance, values.T @ values - sums * sums.T / rows

    with np.errstate(all="ignore"):
        rows = there.T.astype(float) @ there
        variance, covariance = moments(exact)
        moved, together = moments(rounded - exact)
        slope = covariance / variance
        rest = variance.T - slope * covariance
        noise = moved.T - 2 * slope * together + slope**2 * moved
        same = rest <= 1e-14 * variance.T  # one is the other, rescaled: nothing is lost
        spoilt = ~same & (noise > NOISE**2 * rest) & ~np.eye(exact.shape[1], dtype=bool)
    return spoilt.any(axis=0) | spoilt.any(axis=1)


def _rms(values: np.ndarray) -> np.ndarray:
    count = np.maximum(np.isfinite(values).sum(axis=0), 1)
    return np.sqrt(np.nansum(values**2, axis=0) / count)


def _std(values: np.ndarray) -> np.ndarray:
    count = np.maximum(np.isfinite(values).sum(axis=0), 1)
    return _rms(values - np.nansum(values, axis=0) / count)
