"""Searches parameters for the estimator: `SEARCH` in project/model.py says which to try.

Each trial is judged forward in time, as a training is, on the rows before the newest share
`train.holdout`: those newest rows, by which the gates compare versions, stay unseen by the search.
A trial is written to var/tune/ when it is done, so a search that was stopped goes on from there.
"""

import hashlib
import inspect
import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..batch import engine
from ..console import progress
from ..errors import UserError, reason
from ..evaluation import metric
from ..evaluation.metric import GREATER_IS_BETTER, MAIN, codes
from ..evaluation.resampling import groups_of
from ..files import sha256, whole, write
from ..project import model as project
from ..project.metrics import METRICS
from ..project.target import TARGET
from ..registry.base import Trial
from ..settings import Settings, Train
from .fitting import built, classes_of, judge, require, split
from .provenance import lock
from .snapshots import Snapshot

WORK = Path("var/tune")
HOW = 'such as SEARCH = {"randomforestclassifier__min_samples_leaf": [5, 10, 20]}'
DRAWS = 1000
"""Draws in a row that give nothing new, after which there is nothing new."""
PLAIN = (bool, int, float, str, type(None))
"""What settings.toml can hold of a parameter, and lists of these."""
Scored = tuple[dict[str, float], np.ndarray | None, float, str]
"""Of a trial: its metrics, the scores of the rows that judge, its seconds, and why it failed."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    trials: list[Trial]
    """Those that are done, by their number; 0 has the parameters in force."""
    best: Trial
    better: bool
    """Whether the best is better than the parameters in force by more than its standard error."""


def search(
    settings: Settings, snapshot: Snapshot, trials: int, seconds: float | None = None
) -> Found:
    """Tries the parameters in force and those of SEARCH, `trials` in all, for at most `seconds`.

    A trial that failed is one of them. Raises UserError where there is nothing to search, where a
    parameter is none of the estimator's, and where no trial could be judged.
    """
    in_force = _in_force(settings.train)
    frame, _ = split(snapshot.read(), settings.train)
    tried = [in_force, *islice(_candidates(in_force, settings.train.seed), max(0, trials - 1))]
    folder = WORK / _digest(settings.train, snapshot)
    done = {number: kept for number in range(len(tried)) if (kept := _read(folder, number))}
    # The first is judged by what is in force, whatever settings.toml could not hold of it.
    todo = ((n, parameters if n else {}) for n, parameters in enumerate(tried) if n not in done)
    results = engine.each(settings.engine, _judged, (frame, settings.train), todo, seconds)
    with progress("trials", len(tried), len(done)) as advance, closing(results):
        for number, scored in results:
            done[number] = _write(folder, number, tried[number], *scored)
            advance(1)
    order = [done[number] for number in sorted(done)]
    worked = [trial for trial in order if trial.metrics]
    if not order:
        raise UserError(f"no trial was done within {seconds} seconds; set TIMEOUT higher")
    if not worked:
        raise UserError(f"all of the {len(order)} trials failed; the first: {order[0].error}")
    best = (max if GREATER_IS_BETTER else min)(worked, key=lambda trial: trial.metrics[MAIN])
    better = best.number > 0 and _better(folder, best, order[0], frame, settings.train)
    return Found(order, best, better)


def settings_of(found: Found, settings: Settings) -> Settings:
    """The settings with the best parameters in force."""
    parameters = {**settings.train.parameters, **found.best.parameters}
    train = settings.train.model_copy(update={"parameters": parameters})
    return settings.model_copy(update={"train": train})


def toml(settings: Settings) -> str:
    """The lines of settings.toml that keep the parameters."""
    pairs = [
        f"{name if re.fullmatch('[A-Za-z0-9_-]+', name) else json.dumps(name)} = "
        f"{json.dumps('None' if value is None else value)}"
        for name, value in settings.train.parameters.items()
    ]
    return f"[train]\nparameters = {{ {', '.join(pairs)} }}"


def _in_force(train: Train) -> dict[str, Any]:
    """The value of each parameter of SEARCH as it is; raises UserError if there is none such."""
    space = _space()
    model = built(1, 0, train.seed, train.parameters)
    require(model, space, "project/model.py: SEARCH")
    known = model.get_params()
    return {name: v if isinstance(v := known[name], PLAIN) else str(v) for name in space}


def _space() -> dict[str, Any]:
    space = getattr(project, "SEARCH", None)
    if not isinstance(space, dict) or not space:
        raise UserError(
            f"project/model.py: SEARCH does not say which parameters to try; add it, {HOW}"
        )
    return space


def _candidates(in_force: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """Sets of parameters, each once and other than those in force.

    Each is drawn with a seed of its own, so the n-th is the same however many are asked for.
    """
    from sklearn.model_selection import ParameterSampler

    space, seen, misses = _space(), [in_force], 0
    for number in count():
        try:
            random = np.random.RandomState([seed, number])
            (drawn,) = ParameterSampler(space, 1, random_state=random)
        except (TypeError, ValueError) as error:
            raise UserError(f"project/model.py: SEARCH: {reason(error)}") from None
        drawn = {name: _plain(name, drawn[name]) for name in in_force}
        misses = misses + 1 if drawn in seen else 0
        if misses > DRAWS:
            return
        if not misses:
            seen.append(drawn)
            yield drawn


def _plain(name: str, value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    value = [_plain(name, one) for one in value] if isinstance(value, list | tuple) else value
    if not isinstance(value, (*PLAIN, list)):
        raise UserError(
            f"project/model.py: SEARCH: {name} has {reason(ValueError(value))}, which "
            "settings.toml cannot hold; use numbers, texts, booleans and None"
        )
    return value


def _digest(train: Train, snapshot: Snapshot) -> str:
    """Names what a trial depends on beside its parameters."""
    code = [sha256(path) for path in sorted(Path(inspect.getfile(project)).parent.glob("*.py"))]
    what = [snapshot.fingerprint, train.model_dump(mode="json"), lock(), *code]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _judged(shared: tuple[pd.DataFrame, Train], parameters: dict[str, Any]) -> Scored:
    """One trial, wherever it runs."""
    frame, train = shared
    start = time.perf_counter()
    try:
        own = {"parameters": {**train.parameters, **parameters}}
        judged = judge(frame, train.model_copy(update=own))
        values = {name: float(of(judged.actual, judged.scores)) for name, of in METRICS.items()}
    except Exception as error:  # whatever an estimator raises: the other trials go on
        return {}, None, time.perf_counter() - start, reason(error)
    metrics = {name: value for name, value in values.items() if np.isfinite(value)}
    return metrics, judged.scores, time.perf_counter() - start, ""


def _write(
    folder: Path,
    number: int,
    parameters: dict[str, Any],
    metrics: dict[str, float],
    scores: np.ndarray | None,
    seconds: float,
    error: str,
) -> Trial:
    trial = Trial(number, parameters, metrics, seconds, error)
    if scores is not None:
        with whole(folder / f"{number:04}.npy") as draft, draft.open("wb") as file:
            np.save(file, scores)
    write(folder / f"{number:04}.json", json.dumps(asdict(trial)))
    return trial


def _read(folder: Path, number: int) -> Trial | None:
    path = folder / f"{number:04}.json"
    return Trial(**json.loads(path.read_text())) if path.exists() else None


def _better(folder: Path, best: Trial, first: Trial, frame: pd.DataFrame, train: Train) -> bool:
    """By chance one of many is best: it must be so by more than the standard error."""
    if first.number or not first.metrics:  # what is in force was not judged in time, or failed
        return first.number == 0
    _, late = split(frame, train)
    actual = codes(late[TARGET], classes_of(frame[TARGET].to_numpy()))
    own, other = (np.load(folder / f"{trial.number:04}.npy") for trial in (best, first))
    gain = metric.gain(actual, own, other, groups_of(late))
    return gain.value > gain.error
