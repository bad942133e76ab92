"""One run, all or nothing: fit, evaluate, export, register.

Everything is made and verified in a folder of its own; the registered version comes last, in one
call. A run that is killed leaves no version behind, and the next one starts afresh.
"""

import inspect
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from .. import contract
from ..bundle import JudgedOn, Manifest
from ..console import say, step
from ..errors import UserError
from ..evaluation import evaluate, metric, unseen
from ..evaluation.resampling import groups_of
from ..monitoring import concept, drift
from ..project.features import TIME
from ..registry import signature
from ..registry.base import Registry, Training
from ..settings import Settings
from . import order, snapshots, store
from .export import export
from .fitting import Fitted, Judged, judge
from .provenance import git, lock, machine, requirements

RUNS = Path("var/runs")


@dataclass(frozen=True)
class Trained:
    """What a training run gives."""

    version: str
    bundle: str
    """The bundle's digest."""
    run: str
    rows: dict[str, int]
    metrics: dict[str, float]


def train(
    settings: Settings,
    registry: Registry,
    snapshot: snapshots.Snapshot,
    judged: Judged | None = None,
    fitted: Fitted | None = None,
    imported: str = "",
) -> Trained:
    """Trains on a snapshot and registers the version; returns what was made.

    The best procedure is found on the newest rows and then run on all of them; `judged` says which
    it is where that is known already. A model that is `fitted` already, of a file of the SHA-256
    `imported`, is taken as it is. If there is a store, the snapshot is written to it before the
    version is registered. Raises UserError when the data cannot be trained on or stored, when the
    model of all rows is worse than the models that judged it, or cannot be exported or signed.
    """
    signature.check()
    _touch(snapshot.path)
    if settings.data.store:
        store.check(settings.data.store)
    if judged is None:
        with step("judge"):
            judged = judge(snapshot.read(), settings.train)
    warned = order.warnings(judged.frame.iloc[: judged.first], judged.late)
    for text in warned:
        say(f"warning: {text}", style="yellow")
    if fitted is None:
        with step("fit"):
            fitted = judged.refit(settings.train.seed)
            check(judged, fitted)
    with registry.run(f"train {snapshot.fingerprint[:8]}") as run, _folder(run) as folder:
        with step("evaluate"):
            late, actual = judged.late, judged.actual
            metrics = evaluate.evaluate(actual, judged.scores)
            reference = drift.reference(judged.fitted_on, judged.scores)
            reference["spread"] = _spread(reference, judged)
            reference["baseline"] = concept.baseline(actual, judged.scores, groups_of(late))
            evaluate.figures(late, actual, judged.scores, judged.classes, folder / "report")
        with step("export"):
            manifest = _manifest(settings, fitted, judged, snapshot, metrics, run)
            manifest.imported = imported
            early = judged.frame.iloc[-judged.window :]
            unseen.write(folder / "bundle", late, judged.scores, early)
            parity = settings.gates.parity
            bundle = export(fitted, early, late, manifest, reference, folder / "bundle", parity)
        rows = {"train": judged.window, "judged": len(late)}
        parameters = {
            "rows": judged.window,
            **settings.train.model_dump(),
            **_parameters(fitted.model),
        }
        card = evaluate.card(manifest, parameters) + "".join(f"\n- {w}\n" for w in warned)
        (folder / "report" / "model_card.md").write_text(card)
        with step("register"):
            made = Training(
                bundle,
                late[snapshots.FIELDS].head(1000),
                parameters,
                metrics,
                folder / "report",
                snapshot.source,
                requirements(),
            )
            _touch(snapshot.path)
            if settings.data.store:
                store.keep(snapshot.path, settings.data.store)
            version = registry.register(run, made)
    return Trained(version, bundle.digest, run, rows, metrics)


def _touch(snapshot: Path) -> None:
    """Makes a snapshot new: retention.py deletes nothing that is younger than a day."""
    with suppress(PermissionError):  # the file is another user's
        os.utime(snapshot)


def check(judged: Judged, fitted: Fitted) -> None:
    """Raises UserError when the model of all rows does worse on the rows that judged its
    procedure, which it has seen, than the models that had not seen them."""
    own = fitted.scores(judged.table.matrix[judged.first :])
    gain = metric.gain(judged.actual, own, judged.scores, groups_of(judged.late))
    if gain.surely_below(0.0):
        raise UserError(
            f"the model fitted on {judged.window:,} rows does worse on the newest "
            f"{len(judged.late):,} of them ({metric.MAIN} {gain.own:.4g}) than models that had "
            f"not seen those ({gain.other:.4g}); nothing is registered: look at project/model.py"
        )


def _spread(reference: drift.Reference, judged: Judged) -> dict[str, dict[str, float]]:
    """How far each column of a day, and of a week, was from the whole that is trained on."""
    if not TIME:
        return {}
    at = judged.frame[TIME].iloc[-judged.window :].dt
    spans = {"day": at.to_period("D"), "week": at.to_period("W-SUN")}
    return {
        name: drift.spread(reference, judged.fitted_on, pd.factorize(span)[0])
        for name, span in spans.items()
    }


def _manifest(
    settings: Settings,
    fitted: Fitted,
    judged: Judged,
    snapshot: snapshots.Snapshot,
    metrics: dict[str, float],
    run: str,
) -> Manifest:
    commit, dirty = git()
    return Manifest(
        name=settings.model.name,
        run=run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        data=snapshot.fingerprint,
        trained_until=snapshots.until(judged.frame),
        rows=judged.window,
        judged=JudgedOn(
            rows=len(judged.late),
            models=judged.blocks,
            after=snapshots.until(judged.frame.iloc[: judged.first]),
            tried={str(window): value for window, value in judged.tried.items()},
        ),
        metrics=metrics,
        parity=float("inf"),
        contract=contract.digest(),
        lock=lock(),
        train=settings.train.model_dump(mode="json"),
        python=platform.python_version(),
        machine=machine(),
        classes=fitted.classes,
        numbers=fitted.numbers,
        categories=fitted.categories,
        files={},
    )


@contextmanager
def _folder(run: str) -> Iterator[Path]:
    """A folder by the run's name: by that the next run finds and clears what a killed one left."""
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
