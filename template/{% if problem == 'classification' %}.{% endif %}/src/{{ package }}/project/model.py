"""The model: any scikit-learn estimator."""

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

TRUSTED = ["sklearn.tree._tree.Tree", "numpy.dtype"]
"""Types that a skops file may hold beside the plain ones: read each before you add it."""

SEARCH = {
    "randomforestclassifier__max_depth": [None, 4, 8, 16],
    "randomforestclassifier__max_features": ["sqrt", "log2", 0.1],
    "randomforestclassifier__min_samples_leaf": [2, 5, 10, 20, 50, 100],
}
"""What `make tune` tries: by scikit-learn's names, lists or distributions of scipy.stats."""


def build(numbers: list[int], categories: list[int], seed: int) -> BaseEstimator:
    """An unfitted estimator for a matrix whose columns are given by position.

    No scaler comes before the trees: they do not need it, and it rounds away from the exported
    model.
    """
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median", keep_empty_features=True), numbers),
            ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
        ]
    )
    forest = RandomForestClassifier(
        n_estimators=100, min_samples_leaf=10, n_jobs=-1, random_state=seed
    )
    return make_pipeline(columns, forest)
