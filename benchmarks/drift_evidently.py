"""The same by evidently, in an environment of its own: drift_evidently.py FOLDER ROUNDS."""

import json
import sys
import time

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

then, now = (pd.DataFrame(dict(np.load(f"{sys.argv[1]}/{name}.npz"))) for name in ("then", "now"))
numbers = [c for c in then if c[0] == "n"]
definition = DataDefinition(
    numerical_columns=numbers, categorical_columns=[c for c in then if c[0] == "c"]
)
seconds = []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    sets = [Dataset.from_pandas(frame, data_definition=definition) for frame in (now, then)]
    found = Report([DataDriftPreset()]).run(*sets)
    seconds.append(time.perf_counter() - start)
values = {}
for metric in found.dict()["metrics"]:
    column = (metric.get("config") or {}).get("column")
    if column and isinstance(metric["value"], (int, float)):
        values[column] = float(metric["value"])
print(json.dumps({"seconds": min(seconds), "values": values}))
