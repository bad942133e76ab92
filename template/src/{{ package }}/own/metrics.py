"""The metrics that code.py copies into project/metrics.py, as the target needs them.

`actual` holds class numbers or values (n,), `predicted` probabilities (n, k) or values (n,).
"""

import numpy as np
from sklearn import metrics

RARE = 1


def roc_auc(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Area under the ROC curve; nan where only one class is seen."""
    if len(np.unique(actual)) < 2:
        return float("nan")
    return float(metrics.roc_auc_score(actual, predicted[:, 1]))


def average_precision(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Precision of the rare class, averaged over its recalls; nan where it is not seen."""
    if not np.any(actual == RARE):
        return float("nan")
    return float(metrics.average_precision_score(actual == RARE, predicted[:, RARE]))


def accuracy(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Share of correct predictions."""
    return float(np.mean(predicted.argmax(axis=1) == actual))


def balanced_accuracy(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Share of correct predictions in each class, averaged over the classes that are seen."""
    guessed = predicted.argmax(axis=1)
    return float(metrics.recall_score(actual, guessed, labels=np.unique(actual), average="macro"))


def log_loss(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Mean negative log likelihood."""
    return float(metrics.log_loss(actual, predicted, labels=np.arange(predicted.shape[1])))


def mae(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(actual - predicted)))


def rmse(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean squared error."""
    return float(np.sqrt(np.mean((actual - predicted) ** 2)))


def poisson_deviance(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Mean Poisson deviance: a miss by one costs more where the count is low."""
    return float(metrics.mean_poisson_deviance(actual, np.maximum(predicted, 1e-6)))
