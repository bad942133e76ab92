"""The model as it is served: the scikit-learn estimator itself, in a skops file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .contract import stack
from .errors import BundleError, UserError, reason

FILE = "model.skops"
DTYPE: Literal["float32", "float64"] = "float64"
"""Of the numbers that a new model is trained on and served with."""
ELSE = ""
"""What else may help where the exported model is not the trained one."""

Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Numbers (n, a) and categories (n, b) in; probabilities (n, k) or values (n,) out. Raises
ValueError for rows that the model has no answer for."""


def export(model: Any, numbers: int, categories: int, path: Path) -> None:
    """Writes a fitted estimator.

    Raises UserError where skops cannot store it, where project/model.py does not trust a type, and
    where a type's package is not one that serving installs.
    """
    import skops.io

    from .project.model import TRUSTED
    from .training.provenance import not_served

    try:
        skops.io.dump(model, path)
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED))
    except Exception as error:
        raise UserError(
            f"{type(model).__name__} cannot be stored by skops ({type(error).__name__}: "
            f"{reason(error)}); choose another estimator in project/model.py"
        ) from None
    if unknown:
        raise UserError(
            f"{type(model).__name__} holds types that TRUSTED in project/model.py does not list: "
            f"{', '.join(unknown)}; read what they do, then add them"
        )
    if absent := not_served(_modules(path)):
        raise UserError(
            f"{type(model).__name__} needs {', '.join(absent)}, which serving does not install; "
            "name it under `dependencies` in pyproject.toml, not only under `train`, and run "
            "`make lock setup`"
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


def _modules(path: Path) -> set[str]:
    """The modules of the types that a skops file holds."""
    import json
    import zipfile

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict) and "__module__" in node:
            yield node["__module__"]
        if isinstance(node, dict | list):
            for part in node.values() if isinstance(node, dict) else node:
                yield from walk(part)

    with zipfile.ZipFile(path) as file:
        return set(walk(json.loads(file.read("schema.json"))))
