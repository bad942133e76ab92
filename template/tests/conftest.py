"""One small life cycle for all tests: a slice of the project's own data, trained once.

Tests run in a folder of their own, so nothing here touches var/, data/ or a real registry.
"""

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from . import package
from .servers import own_settings

ROWS = 3000


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what tests had to say: record_property("said", text)."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "said":
                terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def sample() -> pd.DataFrame:
    """A slice of the project's data, spread over all of it."""
    frame = package("project.data").load(package("project.data").SOURCE)
    spread = np.linspace(0, len(frame) - 1, min(ROWS, len(frame))).round().astype(int)
    return frame.iloc[spread].reset_index(drop=True)


@pytest.fixture(scope="session")
def home(sample: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with the slice as its data and an empty, migrated registry."""
    folder = tmp_path_factory.mktemp("home")
    sample.to_parquet(folder / "rows.parquet", index=False)
    with inside(folder):
        package("registry.store").connect(package("settings").load()).versions()
    return folder


@pytest.fixture(scope="session")
def trained_home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after one training run: version 1 is registered and holds `test`."""
    folder = tmp_path_factory.mktemp("trained") / "home"
    shutil.copytree(home, folder)
    with inside(folder):
        settings = package("settings").load()
        registry = package("registry.store").connect(settings)
        trained = package("training.train").train(
            settings, registry, package("training.snapshots").snapshot(settings)
        )
        package("registry.promote").promote("test", settings, registry, version=trained.version)
        registry.pull("1", Path("var/versions"))
    return folder


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Iterator[Path]:
    """The current folder is a project of the test's own, with nothing trained."""
    with copied(home, tmp_path) as folder:
        yield folder


@pytest.fixture
def trained(trained_home: Path, tmp_path: Path) -> Iterator[Path]:
    """The current folder is a project of the test's own, with version 1 in `test`."""
    with copied(trained_home, tmp_path) as folder:
        yield folder


@pytest.fixture(scope="session")
def bundle_dir(trained_home: Path) -> Path:
    """A bundle, named 1; not to be changed."""
    return trained_home / "var" / "versions" / "1"


@pytest.fixture
def bundles(bundle_dir: Path, tmp_path: Path) -> Path:
    """A folder as the server reads it: the bundle, and `current` that points to it."""
    folder = tmp_path / "bundles"
    shutil.copytree(bundle_dir, folder / "1")
    (folder / "current").write_text("1")
    return folder


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes the package again with modules of `project/` of the test's own; gives its importer.

    The current folder is empty. `fields` are lines of Features; what is not given is plain.
    """
    name = "another"

    def make(fields: str, **texts: str) -> Callable[[str], Any]:
        root = Path(str(package("settings").__file__)).parent
        shutil.copytree(root, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        written = {"features": FEATURES, "target": TARGET, "data": DATA, "metrics": METRICS}
        for module, text in {**written, "model": MODEL}.items():
            text = text.replace("FIELDS", "\n    ".join(fields.strip().split("\n")))
            for old, new in texts.items():
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


@contextmanager
def copied(source: Path, to: Path) -> Iterator[Path]:
    """The current folder is a copy of a project."""
    folder = to / "project"
    shutil.copytree(source, folder)
    with inside(folder):
        yield folder


class inside:
    """The current folder, with none of the caller's settings in the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.chdir(self.folder)
        for name in [*own_settings(), *(n for n in os.environ if n.startswith("MLFLOW_"))]:
            self.patch.delenv(name)
        self.patch.setenv("DATA_URI", "rows.parquet")
        self.patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        self.patch.setenv("TRAIN_FOLDS", "2")  # fewer models to fit, each quickly
        self.patch.setenv("TRAIN_WINDOWS", "[1.0]")

    def __exit__(self, *_: object) -> None:
        self.patch.undo()
