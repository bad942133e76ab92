"""A model that one already has: read, made to take the contract's columns, and judged.

A skops file is read as it is. A pickle is read in a process of its own (see unpickle.py), and only
where that was asked for.
"""

import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..bundle import differences
from ..errors import UserError, reason, shown
from ..evaluation.metric import METRIC, codes
from ..files import sha256
from ..project.target import TARGET
from ..settings import PACKAGE, Settings
from ..training import snapshots
from ..training.fitting import Fitted, Judged, Table, classes_of, one_thread, split

PICKLES = ".joblib", ".pkl", ".pickle"


@dataclass(frozen=True)
class Existing:
    """A fitted scikit-learn model of a file."""

    model: Any
    sha256: str
    """Of the file."""
    name: str


def opened(path: Path, pickles: bool) -> Existing:
    """The model of a file: .skops, or, with `pickles`, what pickle or joblib wrote.

    Raises UserError where it is none, holds types that TRUSTED of project/model.py does not list,
    or was written by another scikit-learn.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give one: make import MODEL=model.skops")
    name, digest = shown(str(path)), sha256(path)
    if path.suffix == ".skops":
        return Existing(_read(path, name), digest, name)
    if path.suffix not in PICKLES:
        raise UserError(f"{name}: is no .skops, {', '.join(PICKLES)} file")
    if not pickles:
        raise UserError(
            f"{name}: is a pickle, which runs whatever code it holds as it is read; if you know "
            "who wrote it, YES=1 reads it, in a process of its own"
        )
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.skops"
        done = subprocess.run(
            [sys.executable, "-m", f"{PACKAGE}.own.unpickle", str(path), str(made)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise UserError(
                f"{name}: cannot be read and written as skops: {said[-1]}; write it again in this "
                "environment"
            )
        return Existing(_read(made, name), digest, name)


def _read(path: Path, name: str) -> Any:
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    from ..project.model import TRUSTED

    try:
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED))
        if unknown:
            raise UserError(
                f"{name}: holds types that TRUSTED in project/model.py does not list: "
                f"{', '.join(unknown)}; read what they do, then add them"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            model = skops.io.load(path, trusted=TRUSTED)
    except UserError:
        raise
    except InconsistentVersionWarning as warning:
        raise UserError(
            f"{name}: was written by scikit-learn {warning.original_sklearn_version}, and this is "
            f"{warning.current_sklearn_version}; write it again with this one"
        ) from None
    except Exception as error:
        raise UserError(f"{name}: is no skops file ({reason(error)})") from None
    if not hasattr(model, "predict"):
        raise UserError(f"{name}: holds a {type(model).__name__}, which is no fitted model")
    return model


def judged(existing: Existing, frame: pd.DataFrame, settings: Settings) -> tuple[Judged, Fitted]:
    """The model as training has one, and what it says of the newest rows of a snapshot.

    It may have been fitted on those rows: nobody here knows. Raises UserError where it does not
    take the contract's columns, or does not know the target's classes.
    """
    early, late = split(frame, settings.train)
    used, first = pd.concat([early, late]), len(early)
    table = Table.of(used)
    model = _by_position(existing, table, used, settings.gates.parity)
    one_thread(model)
    classes = _classes(existing, model, table.labels)
    fitted = Fitted(model, classes, table.numbers, table.categories)
    scores = _scores(existing, fitted, table.matrix[first:])
    actual = codes(used[TARGET].iloc[first:], classes)
    with np.errstate(all="ignore"):
        tried = {len(used): float(METRIC(actual, scores))}
    return Judged(used, table, first, len(used), classes, scores, 1, tried), fitted


def _classes(existing: Existing, model: Any, labels: np.ndarray) -> list[Any] | None:
    wanted = classes_of(labels)
    own = model.classes_.tolist() if hasattr(model, "predict_proba") else None
    if (own is None) != (wanted is None):
        kinds = ("a classifier", "a regressor") if own else ("a regressor", "a classifier")
        raise UserError(f"{existing.name}: is {kinds[0]}, and project/model.py builds {kinds[1]}")
    if own is None or wanted is None:
        return None
    new = [label for label in wanted if label not in own]
    if new:
        raise UserError(
            f"{existing.name}: does not know the class {new[0]} of {TARGET}; it knows "
            f"{', '.join(map(str, own[:20]))}"
        )
    return wanted if len(own) == len(wanted) else own  # 0 and 1 are false and true


def _scores(existing: Existing, fitted: Fitted, matrix: np.ndarray) -> np.ndarray:
    try:
        return fitted.predict(matrix)
    except Exception as error:
        raise UserError(
            f"{existing.name}: cannot predict rows of the contract: {reason(error)}; its columns "
            f"are {', '.join([*fitted.numbers, *fitted.categories])}, in this order, with NaN for "
            'a missing number and "" for a missing category'
        ) from None


def _by_position(existing: Existing, table: Table, frame: pd.DataFrame, parity: float) -> Any:
    """The model, taking the matrix of the contract, whose columns have no names.

    One that was fitted on a DataFrame knows its columns by name: what selects them, at its head,
    is told their positions instead, and its predictions must stay what they were.
    """
    model, columns = existing.model, [*table.numbers, *table.categories]
    named = getattr(model, "feature_names_in_", None)
    if named is None:
        count = getattr(model, "n_features_in_", len(columns))
        if count != len(columns):
            raise UserError(
                f"{existing.name}: takes {count} columns, and the contract has {len(columns)}: "
                f"{', '.join(columns)}"
            )
        return model
    missing = [name for name in named if name not in columns]
    if missing:
        raise UserError(
            f"{existing.name}: takes {missing[0]}, which derive() of project/features.py does not "
            f"give; it gives {', '.join(columns)}"
        )
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    head = model.steps[0][1] if isinstance(model, Pipeline) else None
    rows = frame.iloc[-1000:]
    given = pd.DataFrame({name: table.derived[name][-len(rows) :] for name in named})
    for name in set(named) & set(snapshots.FIELDS):  # as it was fitted, with None and NaN
        given[name] = rows[name].to_numpy()
    before = _said(model, given)
    if isinstance(head, ColumnTransformer):
        _select_by_position(head, columns)
    elif list(named) != columns:
        raise UserError(
            f"{existing.name}: takes its columns in the order {', '.join(named)}, and the contract "
            f"gives {', '.join(columns)}; put a ColumnTransformer at its head, which selects by "
            "name, or change the order in project/features.py"
        )
    _forget_names(model)
    after = _said(model, table.matrix[-len(rows) :])
    off = differences(before, after, hasattr(model, "predict_proba"))
    if not off.max() <= parity:
        at = int(np.nan_to_num(off, nan=np.inf).argmax())
        empty = [n for n in named if n in snapshots.FIELDS and pd.isna(rows[n].iloc[at])]
        raise UserError(
            f"{existing.name}: predicts otherwise from the contract's columns"
            f"{' where ' + empty[0] + ' is missing' if empty else ''} (by {off[at]:.2g}), where a "
            'missing category is "" and a missing number NaN; fit it on such a table'
        )
    return model


def _said(model: Any, given: Any) -> np.ndarray:
    predict = getattr(model, "predict_proba", model.predict)
    return np.asarray(predict(given), dtype=np.float64)


def _select_by_position(head: Any, columns: list[str]) -> None:
    """Tells a fitted ColumnTransformer where the contract has the columns that it has by name."""
    places = [columns.index(name) for name in head.feature_names_in_]
    chosen = {
        name: [places[i] for i in indices]
        for name, indices in head._transformer_to_input_indices.items()
    }
    head.transformers_ = [
        (name, part, chosen.get(name, selected)) for name, part, selected in head.transformers_
    ]
    head._transformer_to_input_indices, head.n_features_in_ = chosen, len(columns)


def _forget_names(part: Any) -> None:
    """Takes the names of columns from an estimator and from all that it is made of."""
    if isinstance(part, list | tuple):
        for each in part:
            _forget_names(each)
    elif hasattr(part, "get_params") and not isinstance(part, type):
        vars(part).pop("feature_names_in_", None)
        for each in vars(part).values():
            _forget_names(each)
