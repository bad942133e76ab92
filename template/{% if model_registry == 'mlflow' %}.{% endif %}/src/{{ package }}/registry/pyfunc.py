"""What `mlflow.pyfunc.load_model` gives: the bundle, through the same code as the server."""

from pathlib import Path
from typing import Any

import pandas as pd

from ..bundle import Bundle, load
from ..contract import ALIASES
from ..predict import predict
from ..training.snapshots import FIELDS, rows, typed


class BundleModel:
    """A bundle with the method that MLflow calls."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Rows as the contract takes them in, a prediction a row out; `params` has no meaning."""
        named = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
        table = typed(frame.rename(columns=named).reindex(columns=FIELDS), "rows")
        given = [row for part in rows(table, "rows") for row in part]
        return pd.json_normalize(predict(self.bundle, given))


def _load_pyfunc(path: str) -> BundleModel:
    return BundleModel(load(Path(path)))
