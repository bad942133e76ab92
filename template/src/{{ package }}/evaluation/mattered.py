"""Which parameters mattered in a search: a share each, and a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..registry.base import Trial
from .metric import MAIN
from .pictures import panels


def shares(trials: Sequence[Trial]) -> dict[str, float]:
    """The share, 0 to 1, of the order of the trials that each parameter explains alone.

    It is of the variance of the ranks of the main metric: by groups of equal values where these are
    few, else by Spearman's correlation; what chance explains is taken off. The largest comes first.
    Trials that failed do not count.
    """
    worked = [trial for trial in trials if trial.metrics]
    found = {name: _share(name, worked) for name in worked[0].parameters}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def draw(trials: Sequence[Trial], to: Path) -> None:
    """Draws the main metric of each trial against each parameter, into a PNG file."""
    worked, found = [trial for trial in trials if trial.metrics], shares(trials)
    with panels(to, (1 + 3 * len(found), 3.5), len(found)) as row:
        for axes, (name, share) in zip(row, found.items(), strict=True):
            values = [trial.parameters[name] for trial in worked]
            at = values if _numeric(values) else [str(value) for value in values]
            axes.scatter(at, [trial.metrics[MAIN] for trial in worked])
            axes.set(title=f"explains {share:.0%}", xlabel=name.rpartition("__")[2])
        row[0].set_ylabel(MAIN)


def _share(name: str, trials: Sequence[Trial]) -> float:
    ranks = rankdata([trial.metrics[MAIN] for trial in trials])
    values = [trial.parameters[name] for trial in trials]
    groups, n = [str(value) for value in values], len(trials)
    used = len(set(groups))
    if used < 2 or not ranks.std():
        return 0.0
    if _numeric(values) and used > n / 3:
        used, explained = 2, np.corrcoef(rankdata(values), ranks)[0, 1] ** 2
    else:
        means = pd.Series(ranks).groupby(groups).transform("mean")
        explained = means.var(ddof=0) / ranks.var()
    return max(0.0, float(1 - (1 - explained) * (n - 1) / (n - used))) if n > used else 0.0


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
