"""Bundle and rows in, predictions out: the one way that training, scoring and the API share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .bundle import Bundle
from .contract import columns
from .project.features import Features


def label(value: Any) -> str:
    """A class as a JSON key: true and false for booleans, the text itself otherwise."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def answers(bundle: Bundle, scores: np.ndarray) -> list[dict[str, Any]]:
    """Scores as a client reads them.

    Probabilities (n, k) become {"prediction": label, "probabilities": {label: p}}, values (n,)
    become {"prediction": value}.
    """
    classes = bundle.manifest.classes
    if classes is None:
        return [{"prediction": value} for value in scores.tolist()]
    keys = [label(c) for c in classes]
    best = scores.argmax(axis=1).tolist()
    return [
        {"prediction": classes[i], "probabilities": dict(zip(keys, row, strict=True))}
        for i, row in zip(best, scores.tolist(), strict=True)
    ]


def predict(bundle: Bundle, rows: Sequence[Features]) -> list[dict[str, Any]]:
    """The prediction of each validated row."""
    return answers(bundle, bundle.scores(columns(rows)))
