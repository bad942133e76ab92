"""The model as it is served: ONNX, run by onnxruntime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import UserError, reason

FILE = "model.onnx"
DTYPE: Literal["float32", "float64"] = "float32"
"""Of the numbers that a new model is trained on and served with."""
ELSE = ", or serving_format skops"
"""What else may help where the exported model is not the trained one."""

Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Numbers (n, a) and categories (n, b) in; probabilities (n, k) or values (n,) out. Raises
ValueError for rows that the model has no answer for."""


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
        if any(
            attribute.name == "case_change_action" and attribute.s != b"NONE"
            for node in onnx.graph.node
            for attribute in node.attribute
        ):
            raise UserError(
                f"{type(model).__name__} cannot be exported to ONNX (it lowers texts, which takes "
                "the locale en_US.UTF-8, and images have none); set lowercase=False in the "
                f"vectorizer of project/model.py{ELSE}"
            )
        imports = sorted(onnx.opset_import, key=lambda operators: operators.domain)
        del onnx.opset_import[:]  # they came from a set, whose order differs between processes
        onnx.opset_import.extend(imports)
        path.write_bytes(onnx.SerializeToString(deterministic=True))
        load(path)
    except UserError:
        raise
    except Exception as error:
        root: BaseException = error
        while under := root.__cause__ or root.__context__:
            root = under  # what it was raised from says more
        why = f"{type(root).__name__}: {reason(root)}"
        raise UserError(
            f"{type(model).__name__} cannot be exported to ONNX ({why}); "
            f"choose another estimator in project/model.py{ELSE}"
        ) from None


def load(path: Path) -> Predictor:
    """Reads what `export` wrote."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    refusals = (states.Fail, states.InvalidArgument, states.RuntimeException)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one worker, one core
    options.log_severity_level = 4  # what fails is raised, and need not be printed too
    # By its name: of bytes it would keep a copy.
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = [i.name for i in session.get_inputs()]
    output = session.get_outputs()[-1].name
    classifies = len(session.get_outputs()) > 1

    def predict(numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
        given = {"numbers": numbers, "categories": categories}
        try:
            scores = session.run([output], {name: given[name] for name in inputs})[0]
        except refusals as error:
            raise ValueError(reason(error).rpartition("Status Message: ")[2]) from error
        return scores if classifies else scores.ravel()

    return predict
