"""`make import`: a model that is fitted already becomes a version, or is refused in a line."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from typer.testing import CliRunner

from flight_delays import bundle as bundles
from flight_delays import contract
from flight_delays.cli.app import app
from flight_delays.errors import UserError
from flight_delays.own import existing
from flight_delays.project.target import TARGET
from flight_delays.registry.store import connect
from flight_delays.settings import load
from flight_delays.training import fitting, snapshots
from flight_delays.training.reproduce import reproduce


@pytest.fixture
def frame(trained: Path) -> pd.DataFrame:
    return snapshots.find("").read()


@pytest.fixture
def table(frame: pd.DataFrame) -> fitting.Table:
    return fitting.Table.of(frame)


def tree() -> Any:
    kind = DecisionTreeClassifier if fitting.classifies() else DecisionTreeRegressor
    return kind(max_depth=4, random_state=0)


def by_name(table: fitting.Table) -> Any:
    """A pipeline as one has it: fitted on a DataFrame, its columns chosen by their names."""
    columns = [*table.numbers, *table.categories]
    given = pd.DataFrame({n: table.derived[n] for n in columns[::-1]})
    head = ColumnTransformer(
        [
            ("words", OneHotEncoder(handle_unknown="ignore"), table.categories),
            ("numbers", SimpleImputer(keep_empty_features=True), table.numbers),
        ]
    )
    return make_pipeline(head, tree()).fit(given, table.labels), given


def version(name: str) -> bundles.Bundle:
    return bundles.load(connect(load()).pull(name, Path("var/versions")))


@pytest.mark.problem
@pytest.mark.format
def test_a_pipeline_that_knows_columns_by_name_becomes_a_version(
    table: fitting.Table, frame: pd.DataFrame
) -> None:
    model, given = by_name(table)
    wanted = getattr(model, "predict_proba", model.predict)(given.tail(50))
    skops.io.dump(model, "mine.skops")
    done = CliRunner().invoke(app, ["import", "mine.skops"])
    assert done.exit_code == 0, done.output
    assert "may be rows that it was fitted on" in " ".join(done.output.split())
    made = version("2")
    assert made.manifest.imported
    assert not version("1").manifest.imported
    found = made.scores(contract.columns(next(snapshots.rows(frame.tail(50), "rows"))))
    assert np.abs(found - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max())
    assert made.manifest.classes == version("1").manifest.classes
    with pytest.raises(UserError, match="was imported, not trained here"):
        reproduce("2", load(), connect(load()))


@pytest.mark.problem
@pytest.mark.format
def test_a_model_of_the_contracts_matrix_is_taken_as_it_is(frame: pd.DataFrame) -> None:
    given = fitting.Table.of(frame)
    fitted = fitting.fit(given, 0, len(frame), 0)
    skops.io.dump(fitted.model, "mine.skops")
    judged, same = existing.judged(existing.opened(Path("mine.skops"), False), frame, load())
    assert np.array_equal(same.scores(given.matrix), fitted.scores(given.matrix))
    assert same.classes == fitted.classes
    assert judged.window == len(frame)


def as_pickle(model: Any, path: str) -> None:
    Path(path).write_bytes(pickle.dumps(model))


@pytest.mark.parametrize("dump", [joblib.dump, as_pickle])
def test_a_pickle_is_read_only_where_that_is_asked_for(
    table: fitting.Table, dump: Callable[..., Any]
) -> None:
    dump(by_name(table)[0], "mine.joblib")
    with pytest.raises(UserError, match=r"mine\.joblib: is a pickle, .*YES=1"):
        existing.opened(Path("mine.joblib"), False)
    assert hasattr(existing.opened(Path("mine.joblib"), True).model, "predict")


class Code:
    """What runs as it is read."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_what_a_pickle_holds_that_is_no_model_does_not_reach_this_process(trained: Path) -> None:
    Path("mine.pkl").write_bytes(pickle.dumps(Code()))
    with pytest.raises(UserError, match="YES=1"):
        existing.opened(Path("mine.pkl"), False)
    assert not Path("ran").exists()
    Path("mine.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match=r"mine\.pkl: holds a dict, which is no fitted model"):
        existing.opened(Path("mine.pkl"), True)


def test_another_scikit_learn_is_refused(
    table: fitting.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = by_name(table)
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.base.__version__", "1.0.2")
        skops.io.dump(model, "mine.skops")
        joblib.dump(model, "mine.joblib")
    for name in ("mine.skops", "mine.joblib"):
        with pytest.raises(UserError, match=r"1\.0\.2"):
            existing.opened(Path(name), True)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.skops", None, r"gone\.skops: no such file"),
        ("mine.txt", b"", r"mine\.txt: is no \.skops"),
        ("mine.skops", b"PK", r"mine\.skops: is no skops file"),
        ("mine.joblib", b"no pickle", r"mine\.joblib: cannot be read and written as skops: "),
    ],
)
def test_a_file_that_is_none(trained: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        existing.opened(Path(name), True)


def refusal(model: Any, frame: pd.DataFrame) -> str:
    with pytest.raises(UserError) as caught:
        existing.judged(existing.Existing(model, "0" * 64, "mine.skops"), frame, load())
    return str(caught.value)


def test_a_model_that_does_not_fit_is_refused_by_what_is_wrong(
    table: fitting.Table, frame: pd.DataFrame
) -> None:
    columns, labels = [*table.numbers, *table.categories], table.labels
    numbers = pd.DataFrame({n: table.derived[n] for n in table.numbers}).fillna(0.0)
    said = refusal(tree().fit(numbers.to_numpy()[:, :2], labels), frame)
    assert f"takes 2 columns, and the contract has {len(columns)}" in said
    said = refusal(tree().fit(numbers.assign(own=1.0), labels), frame)
    assert "takes own, which derive() of project/features.py does not give" in said
    backwards = numbers[table.numbers[::-1]]
    if not table.categories:
        assert "in the order" in refusal(tree().fit(backwards, labels), frame)
    wrong = DummyRegressor() if fitting.classifies() else DummyClassifier()
    classes = labels if not fitting.classifies() else np.zeros(len(labels))
    said = refusal(wrong.fit(table.matrix, classes.round().astype(int)), frame)
    assert "and project/model.py builds a" in said


def test_a_class_that_the_model_does_not_know(table: fitting.Table, frame: pd.DataFrame) -> None:
    model = DummyClassifier().fit(table.matrix, np.full(len(table.labels), "none"))
    assert f"does not know the class {table.labels.min()} of {TARGET}" in refusal(model, frame)


def test_a_model_that_takes_no_missing_value_says_so(
    table: fitting.Table, frame: pd.DataFrame
) -> None:
    codes = np.zeros((len(table.labels), len([*table.numbers, *table.categories])))
    model = LogisticRegression().fit(codes, table.labels)
    assert "cannot predict rows of the contract: " in refusal(model, frame)
