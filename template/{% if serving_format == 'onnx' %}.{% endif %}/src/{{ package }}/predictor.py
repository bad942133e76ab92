"""The model as it is served: ONNX, run by onnxruntime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError, reason

FILE = "model.onnx"

Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Numbers (n, a) and categories (n, b) in; probabilities (n, k) or values (n,) out."""


def export(model: Any, numbers: int, categories: int, path: Path) -> None:
    """Writes a fitted scikit-learn estimator; raises UserError where it cannot be converted."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    inputs = [
        ("numbers", FloatTensorType([None, numbers])),
        ("categories", StringTensorType([None, categories])),
    ]
    options = {"zipmap": False} if hasattr(model, "classes_") else {}
    try:
        onnx = to_onnx(
            model,
            initial_types=[i for i in inputs if i[1].shape[1]],
            options=options,
            target_opset={"": 17, "ai.onnx.ml": 3},
        )
    except Exception as error:
        raise UserError(
            f"{type(model).__name__} cannot be exported to ONNX "
            f"({type(error).__name__}: {reason(error)}); choose another estimator "
            "in project/model.py, or serving_format skops"
        ) from None
    path.write_bytes(onnx.SerializeToString())


def load(path: Path) -> Predictor:
    """Reads what `export` wrote."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one worker, one core
    # By its name: of bytes it would keep a copy.
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = [i.name for i in session.get_inputs()]
    output = session.get_outputs()[-1].name
    classifies = len(session.get_outputs()) > 1

    def predict(numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
        given = {"numbers": numbers, "categories": categories}
        scores = session.run([output], {name: given[name] for name in inputs})[0]
        return scores if classifies else scores.ravel()

    return predict
