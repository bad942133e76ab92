"""How good a model of a stream of classes is."""

import numpy as np


def accuracy(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Share of rows whose likeliest class is the right one."""
    return float(np.mean(predicted.argmax(axis=1) == actual))


METRICS = {"accuracy": accuracy}
GREATER_IS_BETTER = True
