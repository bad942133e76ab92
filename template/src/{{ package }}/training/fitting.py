"""Fits models forward in time: judged on rows they have not seen, then fitted on all of them.

The newest rows are cut into blocks, and each block is scored by a model that was fitted on the rows
before it (prequential evaluation: Dawid 1984; Gama, Sebastiao and Rodrigues 2013). So what is
judged is a procedure: which window of the newest rows is fitted on. The procedure that did best is
then run on all rows, the newest ones too, and that model is what is served.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .. import contract, predictor
from ..contract import Columns
from ..errors import UserError, reason
from ..evaluation import metric
from ..evaluation.metric import MAIN, METRIC, codes
from ..evaluation.resampling import groups_of
from ..project import data as project
from ..project.metrics import GREATER_IS_BETTER
from ..project.model import build
from ..project.target import TARGET
from ..settings import Train


@dataclass(frozen=True)
class Table:
    """Rows as a model takes them, each computed once however many models are fitted."""

    derived: Columns
    """What project/features.py derives, (n,) a column."""
    numbers: list[str]
    categories: list[str]
    matrix: np.ndarray
    """(n, numbers + categories)"""
    labels: np.ndarray
    """(n,)"""

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Table":
        """The table of a snapshot's rows; raises UserError for a column that no model takes."""
        derived = contract.derive(contract.from_frame(frame))
        numbers, categories = contract.names(derived, len(frame))
        matrix = contract.stack(*contract.matrices(derived, numbers, categories, predictor.DTYPE))
        return cls(derived, numbers, categories, matrix, frame[TARGET].to_numpy())


@dataclass(frozen=True)
class Fitted:
    """A model, and what it takes."""

    model: Any
    classes: list[Any] | None
    """The labels in the order of the probabilities; None for a regression."""
    numbers: list[str]
    categories: list[str]

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Probabilities (n, k) or values (n,) of a table's rows, as the estimator gives them."""
        predict = self.model.predict if self.classes is None else self.model.predict_proba
        return np.asarray(predict(matrix))

    def scores(self, matrix: np.ndarray) -> np.ndarray:
        """The same; raises UserError where it refuses any."""
        try:
            return self.predict(matrix)
        except ValueError as error:
            raise UserError(
                f"project/model.py: the model cannot predict new rows: "
                f"{reason(error)}; make it accept such values, as OneHotEncoder does with "
                "handle_unknown='ignore'"
            ) from None


@dataclass(frozen=True)
class Judged:
    """Rows in order of time, the newest of which were scored by models that had not seen them."""

    frame: pd.DataFrame
    table: Table
    first: int
    """The first row that was scored."""
    window: int
    """How many of the newest rows the best procedure is fitted on."""
    classes: list[Any] | None
    scores: np.ndarray
    """Of the rows from `first` on, by the best procedure: (m, k) or (m,)."""
    blocks: int
    """How many models scored them, each a block."""
    tried: dict[int, float]
    """The main metric of each window that was tried, by its rows."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Those of `train.parameters`, which `refit` sets, too."""

    @property
    def late(self) -> pd.DataFrame:
        """The rows that were scored."""
        return self.frame.iloc[self.first :]

    @cached_property
    def actual(self) -> np.ndarray:
        """Their labels as the metrics take them, (m,)."""
        return codes(self.late[TARGET], self.classes)

    @property
    def fitted_on(self) -> Columns:
        """What `refit` fits on: the derived columns of the window."""
        return {name: column[-self.window :] for name, column in self.table.derived.items()}

    def refit(self, seed: int) -> Fitted:
        """The model of the best procedure, fitted on the newest rows, judged ones included."""
        rows = len(self.frame)
        return fit(self.table, max(0, rows - self.window), rows, seed, self.parameters)


def judge(frame: pd.DataFrame, settings: Train) -> Judged:
    """Scores the newest rows of a snapshot by models fitted on the rows before them.

    The newest share `train.holdout` is judged. Of each window of `train.windows` that knows every
    class, the one whose main metric is best is taken. Raises UserError where nothing can be fitted,
    or where the metric is not defined on the rows that judge.
    """
    early, late = split(frame, settings)
    used, first = pd.concat([early, late]), len(early)
    table = Table.of(used)
    classes = classes_of(table.labels)
    edges = np.linspace(first, len(used), min(settings.folds, len(late)) + 1).round().astype(int)
    blocks = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    found: dict[int, np.ndarray] = {}
    for window in _windows(table, settings, classes):
        scores = _forward(table, blocks, window / len(used), settings, classes)
        if scores is not None:
            found[window] = scores
    actual = codes(used[TARGET].iloc[first:], classes)
    with np.errstate(all="ignore"):
        tried = {window: float(METRIC(actual, scores)) for window, scores in found.items()}
    tried = {window: value for window, value in tried.items() if np.isfinite(value)}
    if not tried:
        raise UserError(
            f"{MAIN} is not defined on the {len(late):,} newest rows, which judge the model: do "
            "they hold one class only? Set train.holdout higher"
        )
    longest, best = max(tried), (max if GREATER_IS_BETTER else min)(tried, key=lambda w: tried[w])
    if best != longest:  # by chance one of several is best: a shorter one must be so by its error
        gain = metric.gain(actual, found[best], found[longest], groups_of(late))
        best = best if gain.value > gain.error else longest
    scores, parameters = found[best], settings.parameters
    return Judged(used, table, first, best, classes, scores, len(blocks), tried, parameters)


def split(frame: pd.DataFrame, settings: Train) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to train on, and the newest, which judge: of the newest `train.window` rows.

    Raises UserError where there is none of either.
    """
    used = frame.iloc[-settings.window :] if settings.window else frame
    early, late = project.split(used, settings.holdout)
    if not len(early) or not len(late):
        raise UserError(
            f"project/data.py: split gives {len(early):,} rows to train on and {len(late):,} to "
            f"judge by, of {len(used):,}; both are needed"
        )
    return early, late


def built(numbers: int, categories: int, seed: int, parameters: Mapping[str, Any]) -> Any:
    """An unfitted estimator of project/model.py, for so many columns, with these parameters set.

    Raises UserError naming a parameter that the estimator does not have.
    """
    model = build(list(range(numbers)), [numbers + i for i in range(categories)], seed)
    require(model, parameters, "[train] parameters")
    return model.set_params(**parameters)


def require(model: Any, names: Iterable[str], where: str) -> None:
    """Raises UserError for a name that is no parameter of an estimator."""
    known = model.get_params()
    for name in names:
        if name not in known:
            close = " or ".join(get_close_matches(name, known, 2)) or "one of its get_params()"
            raise UserError(
                f"{where}: {name} is no parameter of the estimator of project/model.py; is "
                f"{close} meant?"
            )


def fit(
    table: Table, start: int, stop: int, seed: int, parameters: Mapping[str, Any] | None = None
) -> Fitted:
    """Fits on the rows from `start` to `stop`; raises UserError where that is vain."""
    model = built(len(table.numbers), len(table.categories), seed, parameters or {})
    labels = table.labels[start:stop]
    if hasattr(model, "predict_proba") and len(pd.unique(labels)) < 2:
        raise UserError(
            f"{TARGET}: the {len(labels):,} rows to train on hold one class only, {labels[0]}; "
            "add rows of other classes"
        )
    try:
        model.fit(table.matrix[start:stop], labels)
    except ValueError as error:
        raise UserError(f"project/model.py: cannot fit: {reason(error)}") from None
    one_thread(model)
    classes = model.classes_.tolist() if hasattr(model, "predict_proba") else None
    return Fitted(model, classes, table.numbers, table.categories)


def one_thread(model: Any) -> None:
    """Lets a model predict in one thread: several add up the trees in any order, and the last bit
    of a score would vary."""
    jobs = [name for name in model.get_params() if name.rpartition("__")[2] == "n_jobs"]
    model.set_params(**dict.fromkeys(jobs, 1))


def classifies() -> bool:
    """Whether project/model.py builds a classifier."""
    return hasattr(build([0], [], 0), "predict_proba")


def classes_of(labels: np.ndarray) -> list[Any] | None:
    """The classes in the order in which scikit-learn keeps them; None for a regressor.

    Raises UserError for labels that are no classes.
    """
    if not classifies():
        return None
    classes = np.unique(labels).tolist()
    broken = [c for c in classes if isinstance(c, float) and not c.is_integer()]
    if broken:
        raise UserError(
            f"{TARGET}: {broken[0]} is no class, and project/model.py builds a classifier; let "
            "project/target.py give classes, or build a regressor"
        )
    return classes


def _windows(table: Table, settings: Train, classes: list[Any] | None) -> list[int]:
    """Rows of the windows that are tried, the longest first: all of them know every class."""
    rows = len(table.labels)
    sizes = {max(round(share * rows), min(settings.min_rows, rows)) for share in settings.windows}
    if classes is not None:
        every = {n for n in sizes if len(pd.unique(table.labels[rows - n :])) == len(classes)}
        sizes = every or {rows}
    return sorted(sizes, reverse=True)


def _forward(
    table: Table,
    blocks: list[tuple[int, int]],
    share: float,
    settings: Train,
    classes: list[Any] | None,
) -> np.ndarray | None:
    """Each block's rows, scored by a model of the rows before; None if a shorter window is too
    short to fit on, or to know what comes."""
    parts = []
    for start, stop in blocks:
        window = max(round(share * start), min(settings.min_rows, start))
        try:
            fitted = fit(table, start - window, start, settings.seed, settings.parameters)
            scores = fitted.scores(table.matrix[start:stop])
        except UserError:
            if share < 1:
                return None
            raise
        parts.append(aligned(scores, fitted.classes, classes))
    return np.concatenate(parts)


def aligned(scores: np.ndarray, given: list[Any] | None, wanted: list[Any] | None) -> np.ndarray:
    """Probabilities (n, k) in the order of other classes; 0 for those the model does not know."""
    if given is None or wanted is None or given == wanted:
        return scores
    full = np.zeros((len(scores), len(wanted)), dtype=scores.dtype)
    for column, label in enumerate(given):
        if label in wanted:
            full[:, wanted.index(label)] = scores[:, column]
    return full
