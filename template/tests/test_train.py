"""Training: the same again, all or nothing, and the exported model is the trained one."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from . import NAME, package

bundles = package("bundle")
data = package("training.snapshots")
project = package("project.data")
registry = package("registry.store")
settings = package("settings")
train = package("training.train")
UserError = package("errors").UserError
TARGET = package("project.target").TARGET


def test_the_version_names_all_it_came_from(trained: Path) -> None:
    (version,) = registry.connect(settings.load()).versions()
    bundle = bundles.load(trained / "var/versions/1")
    assert version.environments == ["test"]
    assert version.tags["bundle"] == bundle.digest
    assert version.tags["data"] == bundle.manifest.data == data.find("").fingerprint
    run = registry.connect(settings.load()).client.get_run(bundle.manifest.run)
    assert run.inputs.dataset_inputs[0].dataset.digest == bundle.manifest.data
    assert set(package("project.metrics").METRICS) == set(run.data.metrics)
    assert bundle.manifest.parity < 1e-4
    assert version.tags["commit"] == bundle.manifest.commit
    assert float(run.data.params["rows"]) > 0
    client = registry.connect(settings.load()).client
    kept = {artifact.path for artifact in client.list_artifacts(bundle.manifest.run)}
    assert {"model_card.md", "error_over_time.png"} < kept
    assert {"roc.png", "calibration.png"} < kept or "residuals.png" in kept
    signature = mlflow.models.get_model_info(f"models:/{bundle.manifest.name}/1").signature
    assert signature.inputs.input_names() == data.FIELDS


def test_a_manifest_that_was_changed_in_the_registry_is_refused(trained: Path) -> None:
    known = registry.connect(settings.load())
    known.tag("1", "bundle", "0" * 12)
    with pytest.raises(package("errors").BundleError, match="not the one that was registered"):
        known.pull("1", Path("var/elsewhere"))
    assert not list(Path("var/elsewhere").iterdir())


def test_rows_that_cannot_judge_are_refused(project: Path, monkeypatch) -> None:
    main = package("evaluation.metric").MAIN
    monkeypatch.setattr(package("training.fitting"), "METRIC", lambda *_: float("nan"))
    known = registry.connect(settings.load())
    with pytest.raises(UserError, match=f"{main} is not defined on the"):
        train.train(settings.load(), known, data.snapshot(settings.load()))
    assert not known.versions()


def test_what_is_served_has_seen_the_rows_that_judged_and_what_judged_had_not(
    project: Path, monkeypatch
) -> None:
    """Each block by a model of the rows before it; then one model of all rows."""
    fitting = package("training.fitting")
    fitted, real = [], fitting.fit

    def fit(table, start: int, stop: int, seed: int):
        fitted.append((start, stop))
        return real(table, start, stop, seed)

    monkeypatch.setattr(fitting, "fit", fit)
    own = settings.load(train={"folds": 3, "windows": [1.0]})
    frame = data.snapshot(own).read()
    made = train.train(own, registry.connect(own), data.find(""))
    first = round(len(frame) * 0.8)
    edges = np.linspace(first, len(frame), 4).round().astype(int).tolist()
    assert fitted == [(0, edge) for edge in edges]
    assert made.rows == {"train": len(frame), "judged": len(frame) - first}
    bundle = bundles.load(registry.connect(own).pull(made.version, Path("var/versions")))
    assert bundle.manifest.trained_until == data.until(frame)
    assert bundle.manifest.judged.after == data.until(frame.iloc[:first])
    kept = package("evaluation.unseen").scores(bundle, frame, data.columns(frame))
    alone = ~frame.duplicated([*data.FIELDS, TARGET], keep=False).to_numpy()  # the others are equal
    assert np.isnan(kept[:first][alone[:first]]).all()
    assert np.isfinite(kept[first:][alone[first:]]).all()


def test_the_window_that_does_best_is_taken(project: Path) -> None:
    """Old rows whose labels mean nothing are left out."""
    fitting = package("training.fitting")
    frame = data.snapshot(settings.load()).read()
    labels, cut = frame[TARGET].to_numpy().copy(), len(frame) // 2
    labels[:cut] = labels[:cut][::-1]
    spoilt = frame.assign(**{TARGET: labels})
    spoilt.attrs = frame.attrs
    judged = fitting.judge(spoilt, settings.load(train={"windows": [1.0, 0.4]}).train)
    assert set(judged.tried) == {len(frame), round(0.4 * len(frame))}
    better = max if package("evaluation.metric").GREATER_IS_BETTER else min
    assert judged.window == len(frame) or judged.tried[judged.window] == better(
        judged.tried.values()
    )


def test_a_model_that_forgets_what_it_was_shown_is_not_registered(project: Path) -> None:
    fitting = package("training.fitting")
    judged = fitting.judge(data.snapshot(settings.load()).read(), settings.load().train)
    fitted = judged.refit(0)
    train.check(judged, fitted)

    class Forgetful:
        def predict(self, matrix):
            return np.full(len(matrix), 1e6)

        def predict_proba(self, matrix):
            noise = np.random.default_rng(0).random(len(matrix))
            return np.stack([noise, 1 - noise], axis=1)

    with pytest.raises(UserError, match=r"does worse on the newest .* nothing is registered"):
        train.check(judged, dataclasses.replace(fitted, model=Forgetful()))


@pytest.mark.parametrize("how", ["as they come", "as floats", "as objects", "half missing"])
def test_pyfunc_predicts_with_the_same_code(trained: Path, sample: pd.DataFrame, how: str) -> None:
    registry.connect(settings.load())
    bundle = bundles.load(trained / "var/versions/1")
    frame = sample[data.FIELDS].dropna().head(20)
    numbers = [n for n, k in package("contract").KINDS.items() if k == "number"]
    if how == "as floats":
        frame = frame.astype(dict.fromkeys(numbers, "float64"))
    if how == "as objects":
        frame = frame.astype(object)
    if how == "half missing":
        fields = package("project.features").Features.model_fields
        free = [name for name in data.FIELDS if not fields[name].is_required()]
        frame = frame.astype(dict.fromkeys(free, object))
        frame.loc[frame.index[::2], free] = None
    given = mlflow.pyfunc.load_model(f"models:/{bundle.manifest.name}/1").predict(frame)
    rows = bundles.ROWS.validate_python(data.records(data.typed(frame, "rows")))
    expected = package("predict").predict(bundle, rows)
    assert given["prediction"].tolist() == [a["prediction"] for a in expected]


def test_training_gives_no_advice_on_integers(project: Path, recwarn) -> None:
    train.train(settings.load(), registry.connect(settings.load()), data.snapshot(settings.load()))
    assert not [w for w in recwarn if "integer column" in str(w.message)]


def test_training_twice_gives_the_same_model(project_of_two) -> None:
    first, second = project_of_two
    if package("predictor").FILE.endswith(".onnx"):
        assert (first / "model.onnx").read_bytes() == (second / "model.onnx").read_bytes()
    a, b = (bundles.load(path) for path in project_of_two)
    columns = data.columns(data.find("").read())
    np.testing.assert_array_equal(a.scores(columns), b.scores(columns))
    assert a.manifest.metrics == b.manifest.metrics


@pytest.fixture
def project_of_two(trained: Path) -> list[Path]:
    known = registry.connect(settings.load())
    again = train.train(settings.load(), known, data.find(""))
    return [known.pull(v, Path("var/versions")) for v in ("1", again.version)]


def test_one_class_is_refused(project: Path, sample) -> None:
    if not hasattr(package("project.model").build([0], [], 0), "predict_proba"):
        pytest.skip("a regression")
    frame = data.snapshot(settings.load()).read()
    one = data.store(frame[frame[TARGET] == frame[TARGET].iloc[0]], "one")
    with pytest.raises(UserError, match=r"one class only"):
        train.train(settings.load(), registry.connect(settings.load()), one)


KILL = f"""
import os, sys
from contextlib import contextmanager
from {NAME} import console
real = console.step

@contextmanager
def step(name):
    with real(name):
        yield
    if name == sys.argv[1]:
        os._exit(9)

console.step = step
import mlflow
if sys.argv[1] == "half registered":
    mlflow.MlflowClient.create_model_version = lambda *a, **k: os._exit(9)
from {NAME}.cli.app import app
app(["train"])
"""
STEPS = ["load and validate", "fit", "evaluate", "export", "half registered", "register"]


@pytest.mark.slow
def test_a_killed_run_registers_nothing_or_all(project: Path) -> None:
    known = registry.connect(settings.load())
    for name in STEPS:
        killed = subprocess.run([sys.executable, "-c", KILL, name], capture_output=True, text=True)
        assert killed.returncode == 9, (name, killed.stdout, killed.stderr)
        versions = known.versions()
        assert len(versions) == (name == "register"), name
        assert known.alias("test") is None
    (whole,) = known.versions()
    bundles.load(known.pull(whole.version, Path("var/versions")))
    done = subprocess.run([sys.executable, "-c", KILL, ""], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert known.alias("test") == "2"
    running = known.client.search_runs(
        [known.client.get_experiment_by_name(known.name).experiment_id],
        "attributes.status = 'RUNNING'",
    )
    assert not running, "what was killed is marked so by the next run"
    assert not list(train.RUNS.iterdir())
