"""What the tests of the rendered code share beside the fixtures of the project's own tests.

Each test runs once, in a classification served by ONNX. What depends on the problem or on the
format is marked so, and runs for the others too.
"""

import importlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flight_delays import settings
from flight_delays.project import model
from flight_delays.serving.journal.store import Journal

from ..helpers import inside

Another = Callable[..., Callable[[str], Any]]
"""What makes the package again; see the fixture `another`."""


def pytest_configure(config: pytest.Config) -> None:
    for name in ("problem", "format"):
        config.addinivalue_line("markers", f"{name}: says something new for each {name}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints what tests had to say: record_property("said", text)."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "said":
                terminalreporter.write_line(text)


TREES = 20
"""Of the project's forest, in these tests: fitting it is most of what they take."""


@pytest.fixture(scope="session", autouse=True)
def small_forest() -> Iterator[None]:
    """The project's forest has TREES in this process."""
    (name,) = [name for name in vars(model) if name.startswith("RandomForest")]
    forest = getattr(model, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, name, lambda **how: forest(**how | {"n_estimators": TREES}))
        yield


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database; PostgreSQL's is a schema of TEST_JOURNAL_URL, and skipped without one."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/deeper/journal.db"
        return
    server = os.environ.get("TEST_JOURNAL_URL")
    if not server:
        pytest.skip("TEST_JOURNAL_URL names no PostgreSQL")
    engine, name = sa.create_engine(server), f"test_{uuid.uuid4().hex}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    mine = sa.make_url(server).update_query_dict({"options": f"-csearch_path={name}"})
    yield mine.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    engine.dispose()


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    """A journal in it."""
    opened = Journal(url)
    yield opened
    opened.close()


@pytest.fixture
def staging(bundles: Path) -> Path:
    """The folder of staging beside that of `bundles`: the same bundle as version 2."""
    folder = bundles.parent / "staging"
    shutil.copytree(bundles / "1", folder / "2")
    (folder / "current").write_text("2")
    return folder


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Another]:
    """Makes the package again with modules of `project/` of the test's own; gives its importer.

    The current folder is empty. `fields` are lines of Features; what is not given is plain.
    """
    name = "another"

    def make(fields: str, **texts: str) -> Callable[[str], Any]:
        root = Path(str(settings.__file__)).parent
        shutil.copytree(root, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        written = {"features": FEATURES, "target": TARGET, "data": DATA, "metrics": METRICS}
        replaced = {"FIELDS": "\n    ".join(fields.strip().split("\n")), **texts}
        for module, seed in {**written, "model": MODEL}.items():
            text = seed
            for old, new in replaced.items():
                text = text.replace(old, new)
            (tmp_path / name / "project" / f"{module}.py").write_text(text)
        return lambda module: importlib.import_module(f"{name}.{module}")

    (tmp_path / "folder").mkdir()
    with inside(tmp_path / "folder"), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        patch.delenv("DATA_URI")
        yield make
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


FEATURES = """
from datetime import datetime
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

KEY = "id"
TIME = None


class Features(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    FIELDS


def derive(columns):
    return {n: c for n, c in columns.items() if c.dtype.kind != "M"}
"""
TARGET = """
TARGET = "y"


def target(frame):
    return frame["y"]
"""
DATA = """
import pandas as pd

from ..sources import read

SOURCE = "rows.csv"


def load(uri):
    return read(uri)


def split(frame, holdout):
    cut = round(len(frame) * (1 - holdout))
    return frame.iloc[:cut], frame.iloc[cut:]


# HOOKS
"""
METRICS = """
import numpy as np


def accuracy(actual, predicted):
    return float(np.mean(predicted.argmax(axis=1) == actual))


METRICS = {"accuracy": accuracy}
GREATER_IS_BETTER = True
"""
MODEL = """
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

TRUSTED = ["sklearn.tree._tree.Tree", "numpy.dtype"]


def build(numbers, categories, seed):
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(keep_empty_features=True), numbers),
            ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
        ]
    )
    return make_pipeline(columns, DecisionTreeClassifier(max_depth=3, random_state=seed))
"""
