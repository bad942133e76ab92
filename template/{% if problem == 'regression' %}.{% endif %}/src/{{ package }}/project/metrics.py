"""How a model is judged. The first metric decides at the gates and in the monitor.

`actual` and `predicted` hold the values of n rows.
"""

import numpy as np


def mae(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Mean absolute error, minutes."""
    return float(np.mean(np.abs(actual - predicted)))


def rmse(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean squared error, minutes."""
    return float(np.sqrt(np.mean((actual - predicted) ** 2)))


def within_15_minutes(actual: np.ndarray, predicted: np.ndarray) -> float:
    """The business's: the share of flights whose announced delay was right to 15 minutes."""
    return float(np.mean(np.abs(actual - predicted) <= 15))


METRICS = {"mae": mae, "rmse": rmse, "within_15_minutes": within_15_minutes}
GREATER_IS_BETTER = False
"""Of the first metric."""
