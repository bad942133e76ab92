"""How good a model of a stream of values is."""

import numpy as np


def skill(actual: np.ndarray, predicted: np.ndarray) -> float:
    """1 less the absolute error, over that of the median."""
    guess = np.abs(actual - np.median(actual)).mean()
    return float(1 - np.abs(actual - predicted).mean() / guess)


METRICS = {"skill": skill}
GREATER_IS_BETTER = True
