"""The model as it is served: the scikit-learn estimator itself, in a skops file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .contract import stack
from .errors import BundleError, UserError

FILE = "model.skops"

Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Numbers (n, a) and categories (n, b) in; probabilities (n, k) or values (n,) out."""


def export(model: Any, numbers: int, categories: int, path: Path) -> None:
    """Writes a fitted estimator; raises UserError where project/model.py does not trust a type."""
    import skops.io

    from .project.model import TRUSTED

    skops.io.dump(model, path)
    unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED))
    if unknown:
        raise UserError(
            f"{type(model).__name__} holds types that TRUSTED in project/model.py does not list: "
            f"{', '.join(unknown)}; read what they do, then add them"
        )


def load(path: Path) -> Predictor:
    """Reads what `export` wrote; raises BundleError where it holds a type that is not trusted."""
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    from .project.model import TRUSTED

    try:
        model = skops.io.load(path, trusted=TRUSTED)
    except UntrustedTypesFoundException as error:
        raise BundleError(f"{path}: {error}") from None
    if hasattr(model, "get_params"):  # threads cost more than they give on a few rows
        jobs = [name for name in model.get_params() if name.rpartition("__")[2] == "n_jobs"]
        model.set_params(**dict.fromkeys(jobs, 1))
    score = model.predict_proba if hasattr(model, "predict_proba") else model.predict

    def predict(numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
        return np.asarray(score(stack(numbers, categories)))

    return predict
