"""The files of a plan, as one would write them by hand."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import metrics
from .table import Column, Plan

METRICS = {
    "two": [metrics.roc_auc, metrics.log_loss, metrics.accuracy],
    "two rare": [metrics.average_precision, metrics.roc_auc, metrics.log_loss],
    "many": [metrics.accuracy, metrics.log_loss],
    "many rare": [metrics.balanced_accuracy, metrics.accuracy, metrics.log_loss],
    "counts": [metrics.poisson_deviance, metrics.mae],
    "number": [metrics.mae, metrics.rmse],
}
"""Of each kind of target; the first one decides."""
REGRESSIONS = ("counts", "number")
PARTS = {
    "hour": '(at - day) / np.timedelta64(1, "h")',
    "weekday": "(day.astype(np.int64) + 3) % 7.0  # 1970-01-01 was a Thursday",
    "month": 'day.astype("datetime64[M]").astype(np.int64) % 12 + 1.0',
}
DATA = '''\
"""Where the rows come from, and which of them are held out."""

import pandas as pd

from ..sources import read
from .features import TIME

SOURCE = {source}
"""A CSV or Parquet file or address, or a SQL URL with `#table`; DATA_URI overrides it."""
{csv}

def load(uri: str) -> pd.DataFrame:
    """{load}


def split(frame: pd.DataFrame, holdout: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Earlier rows to train on, and the newest share `holdout` to judge by."""
    if TIME:
        frame = frame.sort_values(TIME, kind="stable")
    cut = round(len(frame) * (1 - holdout))
    return frame.iloc[:cut], frame.iloc[cut:]
'''
IN_ORDER = 'All rows."""\n    return read(uri)'
SHUFFLED = '''\
All rows, shuffled, since no column says when.

    If the newest rows come last, return read(uri) as it is.
    """
    return read(uri).sample(frac=1, random_state=0)'''
TARGET = '''\
"""What is predicted."""

import pandas as pd

TARGET = {target}


def target(frame: pd.DataFrame) -> pd.Series:
    """The label of each row; a row without one is not trained on."""
    return frame[TARGET]
'''
FEATURES = '''\
"""The contract: what a row holds, and what the model sees of it.

Training validates every row with `Features`, and the API takes it as the body of a request.
A field that may be missing is `| None`; write `Field(ge=0)` where a value must not be below 0.
"""

from datetime import datetime

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

KEY: str | None = {key}
"""The column that names a row, so that a late label finds its prediction; None if there is none."""

TIME: str | None = {time}
"""The column that says when; None if there is none (then the order of arrival counts)."""


class Features(BaseModel):
    """One row, as it is known before its label."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

{fields}


def derive(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model sees: the raw columns in, the model's columns out, all of one length.

    Numbers are float64 with NaN where missing, categories are strings with "" where missing,
    and times are datetime64. Training, batch scoring and the API all compute features here.
    """
{derive}    return columns
'''
METRIC = '''\
"""How a model is judged. The first metric decides at the gates and in the monitor.

`actual` holds class numbers or values (n,), `predicted` probabilities (n, k) or values (n,).
"""

{imports}
{rare}
{functions}

METRICS = {{{table}}}
GREATER_IS_BETTER = {greater}
"""Of the first metric."""
'''
TEST_FEATURES = '''\
"""What the model sees of a row."""

from {package}.contract import columns, derive, names
from {package}.project.features import Features

ROW = {row}


def test_the_model_sees_numbers_and_categories() -> None:
    numbers, categories = names(derive(columns([Features.model_validate(ROW)])))
    assert numbers == {numbers}
    assert categories == {categories}
'''
TEST_METRICS = '''\
"""What a mistake costs."""

import numpy as np

from {package}.project.metrics import {metric}

ACTUAL = np.array([0, 1, 0, 1])
PERFECT = {perfect}


def test_a_mistake_costs() -> None:
    assert {metric}(ACTUAL, PERFECT) {sign} {metric}(ACTUAL, 1 - PERFECT)
'''


def files(plan: Plan, package: str) -> dict[str, str]:
    """The text of each file by its path in the project."""
    project = f"src/{package}/project"
    model = Path(f"{project}/model.py").read_text(encoding="utf-8")
    return {
        f"{project}/features.py": _features(plan),
        f"{project}/target.py": TARGET.format(target=_code(plan.target)),
        f"{project}/data.py": _data(plan),
        f"{project}/metrics.py": _metrics(plan),
        f"{project}/model.py": _model(plan, model),
        "tests/project/test_features.py": _test_features(plan, package),
        "tests/project/test_metrics.py": _test_metrics(plan, package),
    }


def tidy(paths: list[str]) -> None:
    """Formats files by the project's own rules, without the imports that this table needs not."""
    for command in (["check", "--fix"], ["format"], ["check", "--add-noqa"]):  # a long name, say
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", *paths]
        subprocess.run(ruff, check=False, capture_output=True)


def _code(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _line(column: Column) -> str:
    """A field of Features."""
    kind, default = (" | None", "None, ") if column.missing else ("", "")
    alias = f"alias={_code(column.name)}, " if column.name != column.field else ""
    options = f"{default}{alias}examples=[{_code(column.example)}]"
    return f"    {column.field}: {column.type}{kind} = Field({options})"


def _derived(plan: Plan) -> dict[str, str]:
    """What the model sees of the time: names and code."""
    return {f"{plan.time.field}_{part}": PARTS[part] for part in plan.parts} if plan.time else {}


def _features(plan: Plan) -> str:
    fields = "\n".join(map(_line, plan.fields))
    out = [column for column in plan.columns if not column.type and column.name != plan.key]
    fields += "\n\n    # Left out:" * bool(out)
    fields += "".join(f"\n    # - {' '.join(column.name.split())}: {column.out}" for column in out)
    derive = ""
    if plan.time:
        pop = f'columns.pop("{plan.time.field}")'
        day = f'at = {pop}\n    day = at.astype("datetime64[D]")'
        derive = f"    columns = dict(columns)\n    {day if plan.parts else pop}\n"
        derive += "".join(f'    columns["{n}"] = {code}\n' for n, code in _derived(plan).items())
    key, time = _code(plan.key), _code(plan.time and plan.time.field)
    return FEATURES.format(key=key, time=time, fields=fields, derive=derive)


def _data(plan: Plan) -> str:
    options = {name: value for name, value in (plan.csv or {}).items() if name != "dtype"}
    csv = f'\nCSV = {options}\n"""Options of pandas.read_csv."""\n' if options else ""
    load = IN_ORDER if plan.time else SHUFFLED
    return DATA.format(source=_code(plan.source), csv=csv, load=load)


def _metrics(plan: Plan) -> str:
    functions = METRICS[plan.kind]
    imports = inspect.getsource(metrics).partition('"""\n\n')[2].partition("\n\nRARE")[0]
    rare = f'\nRARE = {plan.rarest}\n"""The number of the rare class."""\n\n'
    return METRIC.format(
        imports=imports,
        rare=rare if plan.kind == "two rare" else "",
        functions="\n\n".join(map(inspect.getsource, functions)),
        table=", ".join(f'"{one.__name__}": {one.__name__}' for one in functions),
        greater=plan.kind not in REGRESSIONS,
    )


def _model(plan: Plan, text: str) -> str:
    """The model that is there, but a classifier or a regressor, with leaves for so many rows."""
    for pair in (("Classifier", "Regressor"), ("classifier", "regressor")):
        text = text.replace(*(pair if plan.kind in REGRESSIONS else pair[::-1]))
    leaf = max(2, plan.labelled // 2000)
    return re.sub(r"\bmin_samples_leaf=\d+", f"min_samples_leaf={leaf}", text)


def _test_features(plan: Plan, package: str) -> str:
    numbers = [column.field for column in plan.fields if column.type in ("float", "bool")]
    return TEST_FEATURES.format(
        package=package,
        row={column.name: column.example for column in plan.fields},
        numbers=[*numbers, *_derived(plan)],
        categories=[column.field for column in plan.fields if column.type == "str"],
    )


def _test_metrics(plan: Plan, package: str) -> str:
    regression = plan.kind in REGRESSIONS
    return TEST_METRICS.format(
        package=package,
        metric=METRICS[plan.kind][0].__name__,
        perfect="ACTUAL" if regression else "np.eye(2)[ACTUAL]",
        sign="<" if regression else ">",
    )
