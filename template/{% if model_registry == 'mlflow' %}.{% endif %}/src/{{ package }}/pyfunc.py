"""What `mlflow.pyfunc.load_model` gives: the bundle, through the same code as the server."""

from pathlib import Path
from typing import Any

import pandas as pd

from .bundle import ROWS, Bundle, load
from .data import FIELDS, records
from .predict import predict


class Served:
    """A bundle with the method that MLflow calls."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Rows as the contract takes them in, a prediction a row out; `params` has no meaning."""
        rows = ROWS.validate_python(records(frame.reindex(columns=FIELDS)))
        return pd.json_normalize(predict(self.bundle, rows))


def _load_pyfunc(path: str) -> Served:
    return Served(load(Path(path)))
