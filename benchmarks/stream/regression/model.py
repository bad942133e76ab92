"""A forest small enough to be fitted some thousand times."""

from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor

TRUSTED: list[str] = []


def build(numbers: list[int], categories: list[int], seed: int) -> BaseEstimator:  # noqa: ARG001
    """An unfitted forest; every column is a number."""
    return RandomForestRegressor(20, min_samples_leaf=5, random_state=seed)
