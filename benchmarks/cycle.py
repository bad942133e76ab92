"""What the loop gains: a model that is never retrained, calendars, and ciclo, on streams.

    python benchmarks/cycle.py [--seeds 3] [--streams "SEA, abrupt" ...] [--out build/bench-cycle]

Renders a project, gives its package the contract of each stream, and lets lifetime.py live through
it with the project's own code. Prints a table, and leaves it as JSON and as a picture. The best
calendar is the best of 20 in hindsight, for each stream; nobody knows it beforehand.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import copier
import numpy as np

HERE = Path(__file__).resolve().parent
NOISE = 0.003
"""Differences of a metric that are none."""
FLIGHTS = "flights"
FEATURES = '''"""The contract of a stream."""

from datetime import datetime

import numpy as np
from pydantic import BaseModel

KEY: str | None = None
TIME: str | None = "at"


class Features(BaseModel):
    at: datetime
{fields}


def derive(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {{name: column for name, column in columns.items() if name != "at"}}
'''
METRICS = {
    "classification": '''import numpy as np


def accuracy(actual: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(predicted.argmax(axis=1) == actual))


METRICS = {"accuracy": accuracy}
GREATER_IS_BETTER = True
''',
    "regression": '''import numpy as np


def skill(actual: np.ndarray, predicted: np.ndarray) -> float:
    """1 less the absolute error, over that of the median."""
    guess = np.abs(actual - np.median(actual)).mean()
    return float(1 - np.abs(actual - predicted).mean() / guess)


METRICS = {"skill": skill}
GREATER_IS_BETTER = True
''',
}
MODEL = '''from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForest{kind}

TRUSTED: list[str] = []


def build(numbers: list[int], categories: list[int], seed: int) -> BaseEstimator:
    return RandomForest{kind}(20, min_samples_leaf=5, random_state=seed)
'''
TARGET = '''import pandas as pd

TARGET = "y"


def target(frame: pd.DataFrame) -> pd.Series:
    return frame["y"]
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--streams", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "bench-cycle")
    parser.add_argument("--python", type=Path, help="of an environment that is there already")
    given = parser.parse_args()
    project = given.out / "project"
    python = rendered(project, given.python)
    known = json.loads(run(python, project, "-c", LIST))
    chosen = {n: k for n, k in known.items() if n in given.streams or not given.streams}

    def live(name: str) -> list[dict[str, Any]]:
        source = contract(project, given.out, name, **known[name])
        said = run(python, source, str(HERE / "lifetime.py"), name, str(given.seeds))
        return json.loads(said.splitlines()[-1])

    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, lives in zip(chosen, pool.map(live, chosen), strict=True):
            rows.append(row(name, known[name]["drift"], lives))
            print(HEAD + "\n" * (len(rows) == 1) + line(rows[-1]) if len(rows) == 1 else line(rows[-1]), flush=True)
    for text in summary(rows):
        print(text)
    (given.out / "cycle.json").write_text(json.dumps(rows, indent=2) + "\n")
    picture(rows, python, given.out)


LIST = (
    "import json; from streams import STREAMS; from lifetime import FLIGHTS; "
    "x = lambda s: s.make(0)[0].shape[1]; print(json.dumps({n: {'drift': s.drift, 'problem': "
    "s.problem, 'columns': x(s)} for n, s in STREAMS.items()} | {'flights': {'drift': 'real', "
    "'problem': 'classification', 'columns': 0}}))"
)
