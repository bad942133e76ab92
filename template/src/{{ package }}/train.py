"""One run, all or nothing: fit, evaluate, export, register.

Everything is made and verified in a folder of its own; the registered version comes last, in one
call. A run that is killed leaves no version behind, and the next one starts afresh.
"""

import inspect
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import bundle as bundles
from . import concept, contract, data, drift, evaluate, predictor
from .bundle import ROWS, Bundle, Manifest
from .errors import UserError
from .progress import step
from .project import data as project
from .project.model import build
from .project.target import TARGET
from .provenance import git, lock, requirements
from .registry import Registry
from .settings import Settings

RUNS = Path("var/runs")
EXAMPLES = 50


@dataclass(frozen=True)
class Trained:
    """What a training run gives."""

    version: str
    bundle: str
    """The bundle's digest."""
    run: str
    rows: dict[str, int]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Fitted:
    """A model and the rows that judge it."""

    model: Any
    classes: list[Any] | None
    numbers: list[str]
    categories: list[str]
    reference: dict[str, Any]
    scores: np.ndarray
    """Of the held-out rows, by the model itself."""


def train(settings: Settings, registry: Registry, snapshot: data.Snapshot) -> Trained:
    """Trains on a snapshot and registers the version; returns what was made.

    Raises UserError when the data cannot be trained on or the model cannot be exported.
    """
    frame = snapshot.read()
    used = frame.iloc[-settings.train.window :] if settings.train.window else frame
    early, late = project.split(used, settings.train.holdout)
    with step("fit"):
        fitted = fit(early, late, settings.train.seed)
    with (
        registry.run(f"train {snapshot.fingerprint[:8]}") as run,
        _folder(run.info.run_id) as folder,
    ):
        with step("evaluate"):
            actual = evaluate.codes(late[TARGET], fitted.classes)
            metrics = evaluate.evaluate(actual, fitted.scores)
            if concept.MAIN not in metrics:
                raise UserError(
                    f"{concept.MAIN} is not defined on the {len(late):,} newest rows, which are "
                    "held out: do they hold one class only? Set train.holdout higher"
                )
            fitted.reference["baseline"] = concept.baseline(actual, fitted.scores)
            evaluate.figures(late, actual, fitted.scores, fitted.classes, folder / "report")
        with step("export"):
            until = data.until(frame.loc[early.index])
            manifest = _manifest(settings, fitted, snapshot, metrics, run.info.run_id, until)
            bundle = export(fitted, late, manifest, folder / "bundle")
        rows = {"train": len(early), "holdout": len(late)}
        parameters = {
            "rows": len(early),
            **settings.train.model_dump(),
            **_parameters(fitted.model),
        }
        (folder / "report" / "model_card.md").write_text(evaluate.card(manifest, rows, parameters))
        with step("register"):
            version = registry.register(
                run.info.run_id,
                bundle,
                _sample(late),
                parameters,
                metrics,
                folder / "report",
                snapshot.source,
                requirements(),
            )
    return Trained(version, bundle.digest, run.info.run_id, rows, metrics)


def fit(early: pd.DataFrame, late: pd.DataFrame, seed: int) -> Fitted:
    """Fits on the earlier rows and scores the later ones; raises UserError where that is vain."""
    derived = contract.derive(data.columns(early))
    numbers, categories = contract.names(derived)
    model = build(
        list(range(len(numbers))), [len(numbers) + i for i in range(len(categories))], seed
    )
    labels = early[TARGET].to_numpy()
    if hasattr(model, "predict_proba") and len(pd.unique(labels)) < 2:
        raise UserError(
            f"{TARGET}: the {len(early):,} rows to train on hold one class only, {labels[0]}; "
            "get rows of the others"
        )
    try:
        model.fit(contract.stack(*contract.matrices(derived, numbers, categories)), labels)
    except ValueError as error:
        raise UserError(f"project/model.py: cannot fit: {error}") from None
    # Threads add up the trees in any order, and the last bit of a score would vary.
    jobs = [name for name in model.get_params() if name.rpartition("__")[2] == "n_jobs"]
    model.set_params(**dict.fromkeys(jobs, 1))
    classifies = hasattr(model, "predict_proba")
    held = contract.derive(data.columns(late))
    matrix = contract.stack(*contract.matrices(held, numbers, categories))
    scores = np.asarray(model.predict_proba(matrix) if classifies else model.predict(matrix))
    classes = model.classes_.tolist() if classifies else None
    return Fitted(model, classes, numbers, categories, drift.reference(derived, scores), scores)


def export(fitted: Fitted, late: pd.DataFrame, manifest: Manifest, path: Path) -> Bundle:
    """Writes the bundle, reads it back, and measures how far its scores are from the model's."""
    path.mkdir(parents=True)
    predictor.export(
        fitted.model, len(fitted.numbers), len(fitted.categories), path / predictor.FILE
    )
    spread = np.linspace(0, len(late) - 1, min(EXAMPLES, len(late))).round().astype(int)
    rows = ROWS.validate_python(data.records(late[data.FIELDS].iloc[spread]))
    examples = [
        {"features": row.model_dump(mode="json"), "expected": score}
        for row, score in zip(rows, fitted.scores[spread].tolist(), strict=True)
    ]
    draft = Bundle(path, manifest, predictor.load(path / predictor.FILE))
    given = draft.scores(data.columns(late))
    manifest.parity = bundles.difference(fitted.scores, given, fitted.classes is not None)
    return bundles.write(path, manifest, examples, fitted.reference)


def _manifest(
    settings: Settings,
    fitted: Fitted,
    snapshot: data.Snapshot,
    metrics: dict[str, float],
    run: str,
    until: str | int,
) -> Manifest:
    commit, dirty = git()
    return Manifest(
        name=settings.model.name,
        run=run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        data=snapshot.fingerprint,
        trained_until=until,
        metrics=metrics,
        parity=float("inf"),
        contract=contract.digest(),
        lock=lock(),
        classes=fitted.classes,
        numbers=fitted.numbers,
        categories=fitted.categories,
        files={},
    )


@contextmanager
def _folder(run: str) -> Iterator[Path]:
    folder = RUNS / run
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parameters(model: Any) -> dict[str, Any]:
    """The plain parameters of the estimator and of its parts that are not the defaults."""
    plain, found = (bool, int, float, str, type(None)), {}
    parts = {f"{k}__": v for k, v in model.get_params().items() if hasattr(v, "get_params")}
    for prefix, part in {"": model, **parts}.items():
        defaults = inspect.signature(type(part)).parameters
        for name, value in part.get_params(deep=False).items():
            default = defaults[name].default if name in defaults else None
            if isinstance(value, plain) and repr(value) != repr(default):  # nan is nan
                found[prefix + name] = value
    return found


def _sample(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows as a client sends them: numbers as floats, since any of them may come with a point."""
    numbers = [name for name, kind in contract.KINDS.items() if kind == "number"]
    return frame[data.FIELDS].head(1000).astype(dict.fromkeys(numbers, "float64"))
