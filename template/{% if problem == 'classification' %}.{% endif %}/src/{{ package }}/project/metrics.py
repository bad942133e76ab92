"""How a model is judged. The first metric decides at the gates and in the monitor.

`actual` holds class numbers (0 to k - 1) of n rows, `predicted` their probabilities, (n, k).
"""

import numpy as np
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

MISSED, FALSE_ALARM = 5.0, 1.0
"""What a late flight that nobody was told of costs, and what a needless warning costs."""


def roc_auc(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Area under the ROC curve; nan where only one class is seen."""
    if len(np.unique(actual)) < 2:
        return float("nan")
    return float(roc_auc_score(actual, predicted[:, 1]))


def log_loss(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Mean negative log likelihood."""
    return float(sklearn_log_loss(actual, predicted, labels=np.arange(predicted.shape[1])))


def cost(actual: np.ndarray, predicted: np.ndarray) -> float:
    """The business's: the cost of a flight when travellers are warned where it pays on average."""
    warned = predicted[:, 1] >= FALSE_ALARM / (FALSE_ALARM + MISSED)
    return float(np.mean(np.where(actual == 1, MISSED * ~warned, FALSE_ALARM * warned)))


METRICS = {"roc_auc": roc_auc, "log_loss": log_loss, "cost": cost}
GREATER_IS_BETTER = True
"""Of the first metric."""
