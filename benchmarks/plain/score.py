"""Scores a table with the bare model and pandas: score.py PACKAGE MODEL DATA OUT."""

import sys
from importlib import import_module

import numpy as np
import onnxruntime
import pandas as pd

package, model, data, out = sys.argv[1:]
features = import_module(f"{package}.project.features")
table = pd.read_parquet(data)[list(features.Features.model_fields)]
derived = features.derive(
    {
        name: column.to_numpy("datetime64[us]" if column.dtype.kind == "M" else None)
        for name, column in table.items()
    }
)
numbers = [name for name, column in derived.items() if column.dtype.kind in "fiu"]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
given = {
    "numbers": np.column_stack([derived[name].astype(np.float32) for name in numbers]),
    "categories": np.column_stack([derived[n].astype(str) for n in derived if n not in numbers]),
}
scores = session.run(None, given)[-1]
pd.DataFrame(scores, columns=["false", "true"]).to_parquet(out)
