"""Training: the same again, all or nothing, and the exported model is the trained one."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from flight_delays import bundle as bundles
from flight_delays import contract, settings
from flight_delays import predict as predict_
from flight_delays.errors import UserError
from flight_delays.evaluation import metric
from flight_delays.project import features, metrics
from flight_delays.project.target import TARGET
from flight_delays.registry import store as registry
from flight_delays.registry.store import MlflowRegistry
from flight_delays.training import fitting, train
from flight_delays.training import snapshots as data


@pytest.mark.problem
def test_the_version_names_all_it_came_from(trained: Path) -> None:
    known = registry.connect(settings.load())
    assert isinstance(known, MlflowRegistry)
    (version,) = known.versions()
    bundle = bundles.load(trained / "var/versions/1")
    assert version.environments == ["test"]
    assert version.tags["bundle"] == bundle.digest
    assert version.tags["data"] == bundle.manifest.data == data.find("").fingerprint
    run = known.client.get_run(bundle.manifest.run)
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest == bundle.manifest.data
    assert set(metrics.METRICS) == set(run.data.metrics)
    assert bundle.manifest.parity < 1e-4
    assert version.tags["commit"] == bundle.manifest.commit
    assert float(run.data.params["rows"]) > 0
    kept = {artifact.path for artifact in known.client.list_artifacts(bundle.manifest.run)}
    assert {"model_card.md", "error_over_time.png"} < kept
    assert {"roc.png", "calibration.png"} < kept or "residuals.png" in kept
    signature = mlflow.models.get_model_info(f"models:/{bundle.manifest.name}/1").signature
    assert signature.inputs.input_names() == data.FIELDS


@pytest.mark.problem
def test_the_window_that_does_best_is_taken(project: Path) -> None:
    """Old rows whose labels mean nothing are left out."""
    frame = data.snapshot(settings.load()).read()
    labels, cut = frame[TARGET].to_numpy().copy(), len(frame) // 2
    labels[:cut] = labels[:cut][::-1]
    spoilt = frame.assign(**{TARGET: labels})
    spoilt.attrs = frame.attrs
    judged = fitting.judge(spoilt, settings.load(train={"windows": [1.0, 0.4]}).train)
    assert set(judged.tried) == {len(frame), round(0.4 * len(frame))}
    better = max if metric.GREATER_IS_BETTER else min
    assert judged.window == len(frame) or judged.tried[judged.window] == better(
        judged.tried.values()
    )


def test_a_number_that_is_no_class_is_named(project: Path) -> None:
    frame = data.snapshot(settings.load()).read()
    broken = frame.assign(**{TARGET: [i + 0.5 for i in range(len(frame))]})
    with pytest.raises(UserError, match=rf"^{TARGET}: 0.5 is no class, and project/model.py"):
        fitting.judge(broken, settings.load().train)


@pytest.mark.problem
@pytest.mark.format
@pytest.mark.parametrize("how", ["as they come", "as floats", "as objects", "half missing"])
def test_pyfunc_predicts_with_the_same_code(trained: Path, sample: pd.DataFrame, how: str) -> None:
    registry.connect(settings.load())
    bundle = bundles.load(trained / "var/versions/1")
    frame = sample[data.FIELDS].dropna().head(20)
    numbers = [n for n, k in contract.KINDS.items() if k == "number"]
    if how == "as floats":
        frame = frame.astype(dict.fromkeys(numbers, "float64"))
    if how == "as objects":
        frame = frame.astype(object)
    if how == "half missing":
        fields = features.Features.model_fields
        free = [name for name in data.FIELDS if not fields[name].is_required()]
        frame = frame.astype(dict.fromkeys(free, object))
        frame.loc[frame.index[::2], free] = None
    given = mlflow.pyfunc.load_model(f"models:/{bundle.manifest.name}/1").predict(frame)
    rows = bundles.ROWS.validate_python(data.records(data.typed(frame, "rows")))
    expected = predict_.predict(bundle, rows)
    assert given["prediction"].tolist() == [a["prediction"] for a in expected]


@pytest.mark.problem
def test_training_gives_no_advice_on_integers(
    project: Path, recwarn: pytest.WarningsRecorder
) -> None:
    train.train(settings.load(), registry.connect(settings.load()), data.snapshot(settings.load()))
    assert not [w for w in recwarn if "integer column" in str(w.message)]


KILL = """
import os, sys
from contextlib import contextmanager
from flight_delays import console
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
from flight_delays.cli.app import app
app(["train"])
"""
STEPS = ["load and validate", "fit", "evaluate", "export", "half registered", "register"]


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
    assert isinstance(known, MlflowRegistry)
    experiment = known.client.get_experiment_by_name(known.name)
    assert experiment is not None
    running = known.client.search_runs(
        [experiment.experiment_id],
        "attributes.status = 'RUNNING'",
    )
    assert not running, "what was killed is marked so by the next run"
    assert not list(train.RUNS.iterdir())
