"""How often the statistics are wrong, where the truth is known.

    python benchmarks/false_alarms.py PROJECT [--seeds 400] [--json FILE]

PROJECT is a rendered project; run it with that project's own Python. The first table gives how
often one of two equally good models passes the gate, 2.5 % where its interval is right, for our
intervals and for a bootstrap of the same groups; the second how often a window of a column that
has not moved is called drift, 1 % where thresholds are right.
"""

import argparse
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

DRAWS = 200


def auc(actual: np.ndarray, predicted: np.ndarray) -> float:
    ranks, ones = rankdata(predicted), int(actual.sum())
    pairs = ones * (len(actual) - ones)
    return float((ranks[actual == 1].sum() - ones * (ones + 1) / 2) / pairs) if pairs else np.nan


def mae(actual: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(np.abs(actual - predicted)))


def classes(groups: int, size: int, shared: float, rate: float) -> Callable:
    """Groups of rows; each model's error and the truth share so much of their variance there."""

    def draw(rng: np.random.Generator) -> tuple:
        def noise() -> np.ndarray:
            own = rng.normal(size=groups * size) * np.sqrt(1 - shared)
            return own + np.repeat(rng.normal(size=groups), size) * np.sqrt(shared)

        truth = noise()
        label = truth + rng.normal(size=len(truth))
        actual = (label > np.quantile(label, 1 - rate)).astype(int)
        return auc, actual, truth + noise(), truth + noise(), np.repeat(np.arange(groups), size)

    return draw


def values(rows: int, noise: Callable) -> Callable:
    def draw(rng: np.random.Generator) -> tuple:
        actual = noise(rng, rows)
        both = actual + noise(rng, rows), actual + noise(rng, rows)
        return mae, actual, *both, np.arange(rows)

    return draw


GATES = {
    "auc, 300 rows, one in ten": classes(300, 1, 0, 0.1),
    "auc, 1,000 rows": classes(1000, 1, 0, 0.3),
    "auc, 50 customers of 20": classes(50, 20, 1, 0.3),
    "auc, 12 days of 100": classes(12, 100, 0.3, 0.3),
    "auc, 90 days of 30": classes(90, 30, 0.3, 0.3),
    "mae, 300 rows, t(3)": values(300, lambda rng, n: rng.standard_t(3, n)),
    "mae, 1,000 rows, lognormal": values(1000, lambda rng, n: rng.lognormal(0, 1.5, n)),
}


def names(picked: np.ndarray) -> np.ndarray:
    return np.array([f"k{i}" for i in picked], dtype=object)


COLUMNS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "lognormal(0, 1)": lambda rng, n: rng.lognormal(0, 1, n),
    "lognormal(10, 2)": lambda rng, n: rng.lognormal(10, 2, n),
    "Pareto 1.1": lambda rng, n: rng.pareto(1.1, n),
    "Cauchy": lambda rng, n: rng.standard_cauchy(n),
    "Poisson 0.3": lambda rng, n: rng.poisson(0.3, n).astype(float),
    "0.2 % are 999999": lambda rng, n: np.where(rng.random(n) < 0.002, 999999, rng.normal(size=n)),
    "90 % are 0": lambda rng, n: np.where(rng.random(n) < 0.9, 0, rng.exponential(size=n)),
    "3 categories": lambda rng, n: names(rng.integers(0, 3, n)),
    "300 categories": lambda rng, n: names(rng.integers(0, 300, n)),
    "5,000 categories": lambda rng, n: names(rng.integers(0, 5000, n)),
    "Zipf 1.5": lambda rng, n: names(rng.zipf(1.5, n)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    source = next((given.project / "src").glob("*/settings.py")).parent
    sys.path.insert(0, str(source.parent))
    resampling, drift = (
        import_module(f"{source.name}.{m}") for m in ("evaluation.resampling", "monitoring.drift")
    )
    result: dict[str, Any] = {"gates": {}, "drift": {}}
    print(
        f"equal models that pass, 2.5 % is right     ours   rows alone   bootstrap, {DRAWS} draws"
    )
    for name, draw in GATES.items():
        found = np.array([passes(resampling, draw, seed) for seed in range(given.seeds)])
        result["gates"][name] = found.mean(axis=0).tolist()
        print(
            f"  {name:38}" + "   ".join(f"{share:7.1%}" for share in found.mean(axis=0)), flush=True
        )
    sizes = [(rows, window) for rows in (1000, 20_000) for window in (100, 1000)]
    print("false drift, 1 % is right" + "".join(f"{w:>8,} of {r:>6,}" for r, w in sizes))
    for name, shape in COLUMNS.items():
        found = [alarms(drift, shape, *size, max(1, given.seeds // 10)) for size in sizes]
        result["drift"][name] = found
        print(f"  {name:23}" + "".join(f"{share:18.1%}" for share in found), flush=True)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


def passes(resampling: Any, draw: Callable, seed: int) -> list[bool]:
    """Whether the gain's lower bound is over 0: ours, ours without groups, and the bootstrap's."""
    rng = np.random.default_rng(seed)
    metric, actual, own, other, groups = draw(rng)
    alone = len(np.unique(groups)) == len(groups)
    ours = resampling.paired(metric, actual, own, other, None if alone else groups).low
    blind = resampling.paired(metric, actual, own, other).low
    parts = np.split(np.arange(len(groups)), np.flatnonzero(np.diff(groups)) + 1)
    gains = []
    for _ in range(DRAWS):
        rows = np.concatenate([parts[i] for i in rng.integers(0, len(parts), len(parts))])
        gains.append(metric(actual[rows], own[rows]) - metric(actual[rows], other[rows]))
    return [bool(bound >= 0) for bound in (ours, blind, np.nanpercentile(gains, 2.5))]


def alarms(drift: Any, shape: Callable, rows: int, window: int, seeds: int) -> float:
    """The share of 10 windows of each of some references that is over the threshold."""
    over = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        reference = drift.reference({"x": shape(rng, rows)})
        limit = drift.thresholds(reference, window, 0.0)["x"]
        over += [
            drift.distances(reference, {"x": shape(rng, window)})["x"] > limit for _ in range(10)
        ]
    return float(np.mean(over))


if __name__ == "__main__":
    main()
