"""What project/ offers to the rest: these names, of these types. mypy holds your modules to it.

They are the names that the first version seeded, so that an update never asks an older project for
more. What a later version can use besides is optional: `getattr(module, name, default)`, or a
module that may be absent. There is one such: project/routes.py, whose `router: fastapi.APIRouter`
holds routes of your own (see serving/own_routes.py).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pydantic import BaseModel

    from .project import data, features, metrics, model, target


class FeaturesModule(Protocol):
    """project/features.py: the contract, and what the model sees of it."""

    @property
    def KEY(self) -> str | None:
        """The column that names a row; None if there is none."""

    @property
    def TIME(self) -> str | None:
        """The column that says when; None if there is none."""

    @property
    def Features(self) -> "type[BaseModel]":
        """One row as it comes in."""

    def derive(self, columns: "dict[str, np.ndarray]", /) -> "dict[str, np.ndarray]":
        """The model's columns (n,) from the raw ones (n,)."""


class TargetModule(Protocol):
    """project/target.py: what is predicted."""

    @property
    def TARGET(self) -> str:
        """Its name."""

    def target(self, frame: "pd.DataFrame", /) -> "pd.Series":
        """The label of each row, missing where it is not known."""


class DataModule(Protocol):
    """project/data.py: where rows come from, and which of them judge the model.

    Optional, for training and batch scoring alike (a request of the API has its form already):
    `CSV`, a dict of options of pandas.read_csv such as {"sep": ";"}, and
    `clean(frame: pd.DataFrame) -> pd.DataFrame`, the table as the contract takes it: renamed, with
    its times parsed. It gets all rows, or a part of them when scoring.
    """

    @property
    def SOURCE(self) -> str:
        """The source where DATA_URI names none."""

    def load(self, uri: str, /) -> "pd.DataFrame":
        """All rows of a source."""

    def split(
        self, frame: "pd.DataFrame", holdout: float, /
    ) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Rows to train on, and the share `holdout` of them to judge by."""


class ModelModule(Protocol):
    """project/model.py: the estimator.

    Optional, for `make tune`: `SEARCH`, a dict from the name of a parameter, such as
    "randomforestclassifier__max_depth", to a list or a distribution of scipy.stats.
    """

    @property
    def TRUSTED(self) -> list[str]:
        """The types that a skops file of it may hold."""

    def build(self, numbers: list[int], categories: list[int], seed: int, /) -> Any:
        """An unfitted scikit-learn estimator for columns given by position."""


class MetricsModule(Protocol):
    """project/metrics.py: how good a model is."""

    @property
    def METRICS(self) -> "Mapping[str, Callable[[np.ndarray, np.ndarray], float]]":
        """Each of (actual, predicted); the first one decides."""

    @property
    def GREATER_IS_BETTER(self) -> bool:
        """Of the first one."""


if TYPE_CHECKING:
    _features: FeaturesModule = features
    _target: TargetModule = target
    _data: DataModule = data
    _model: ModelModule = model
    _metrics: MetricsModule = metrics
