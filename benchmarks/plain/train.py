"""Fits the models that a training run fits, with scikit-learn and nothing else: train.py PACKAGE.

Three windows of the newest rows, each judged by five models forward in time, then one of all rows.
"""

import sys
from importlib import import_module
from itertools import pairwise

import numpy as np
import pandas as pd

package = sys.argv[1]
data, features, model, target = (
    import_module(f"{package}.project.{name}") for name in ("data", "features", "model", "target")
)
settings = import_module(f"{package}.settings").load().train
table = data.load(data.SOURCE).sort_values(features.TIME, kind="stable")
table = table[target.target(table).notna()]
derived = features.derive(
    {
        name: table[name].to_numpy("datetime64[us]" if table[name].dtype.kind == "M" else None)
        for name in features.Features.model_fields
    }
)
numbers = [name for name, column in derived.items() if column.dtype.kind in "fiu"]
categories = [name for name in derived if name not in numbers]
matrix = pd.DataFrame({n: derived[n] for n in [*numbers, *categories]}).to_numpy(object)
matrix[:, : len(numbers)] = matrix[:, : len(numbers)].astype(np.float32)
labels = target.target(table).to_numpy(bool)
places = [*range(len(numbers))], [len(numbers) + i for i in range(len(categories))]
rows = len(labels)
edges = np.linspace(round(rows * (1 - settings.holdout)), rows, settings.folds + 1).astype(int)
for share in settings.windows:
    for start, stop in pairwise(edges):
        fitted = model.build(*places, settings.seed)
        first = start - round(share * start)
        fitted.fit(matrix[first:start], labels[first:start])
        fitted.predict_proba(matrix[start:stop])
model.build(*places, settings.seed).fit(matrix, labels)
