"""How often the monitor is wrong, on streams whose answer is known.

    python benchmarks/monitor.py PROJECT [--seeds 40] [--windows 10] [--sizes 500] [--json FILE]

PROJECT is a rendered project; run it with that project's own Python. River's Agrawal generator
makes the rows and labels, its ConceptDriftStream changes the rule half way, and the verdict is
asked after each window, as in production. A model is a forest of the first rule, its promise the
ROC AUC on 1,500 held-out rows. The table gives the share of seeds in which a verdict was
`retrain`, before the change (false) and after it (found), and the labelled rows until then.
"""

import argparse
import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from river.datasets.base import SyntheticDataset
from river.datasets.synth import Agrawal, ConceptDriftStream
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier

TRAIN, HELD = 6000, 1500
NOISE, MORE = 0.22, 0.26
"""Share of labels that are wrong, so that no model is perfect; `weak` drift makes it more."""
CHANGES = {  # the rule after the change, its width in windows, the noise after it
    "none": (0, 0.1, NOISE),
    "weak": (0, 0.1, MORE),
    "gradual": (2, 4.0, NOISE),
    "abrupt": (2, 0.1, NOISE),
}
# The project's own, which `load` finds.
concept: Any
drift: Any
metric: Any
monitor: Any
settings: Any
verdict: Any
Record: Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--windows", type=int, default=10, help="before the change, and after it")
    parser.add_argument("--sizes", type=int, nargs="+", default=[500], help="rows in a window")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    load(given.project)
    rows = []
    for size in given.sizes:
        for name in CHANGES:
            found = [one(seed, size, given.windows, name) for seed in range(given.seeds)]
            delays = [f["found"] for f in found if f["found"] is not None]
            row = {"window": size, "change": name, "found": len(delays) / len(found)}
            row |= {k: float(np.mean([f[k] for f in found])) for k in ("false", "before", "after")}
            row["delay"] = float(np.median(delays)) if delays else None
            rows.append(row)
            show(row, len(rows) == 1)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


def load(project: Path) -> None:
    """Imports the project's monitor, and gives it rows of River's instead of the project's."""
    global concept, drift, metric, monitor, verdict, settings, Record
    source = next((project / "src").glob("*/settings.py")).parent
    sys.path.insert(0, str(source.parent))
    from importlib import import_module

    concept, drift, monitor, verdict = (
        import_module(f"{source.name}.monitoring.{m}")
        for m in ("concept", "drift", "monitor", "verdict")
    )
    settings = import_module(f"{source.name}.settings")
    metric = import_module(f"{source.name}.evaluation.metric")
    Record = import_module(f"{source.name}.serving.journal.store").Record
    metric.MAIN, metric.METRIC, metric.GREATER_IS_BETTER = "roc_auc", auc, True
    monitor.derived = lambda rows: columns([r.features for r in rows])


def auc(actual: np.ndarray, predicted: np.ndarray) -> float:
    ranks, ones = rankdata(predicted[:, 1]), int(actual.sum())
    pairs = ones * (len(actual) - ones)
    return float((ranks[actual == 1].sum() - ones * (ones + 1) / 2) / pairs) if pairs else np.nan


def columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}


def take(stream: SyntheticDataset, n: int) -> tuple[list[dict[str, float]], np.ndarray]:
    made = list(stream.take(n))
    return [{k: float(v) for k, v in x.items()} for x, _ in made], np.array([y for _, y in made])


def flipped(y: np.ndarray, noise: float | np.ndarray, seed: int) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(len(y)) < noise, 1 - y, y)


def one(seed: int, size: int, windows: int, change: str) -> dict[str, Any]:
    """One life of a model: as many windows of its own rule as of what comes after."""
    rule, width, noise = CHANGES[change]
    half, width = size * windows, round(size * width)
    x, y = take(Agrawal(classification_function=0, seed=1000 + seed), TRAIN + HELD)
    y = flipped(y, NOISE, seed)
    forest = RandomForestClassifier(30, min_samples_leaf=30, random_state=seed)
    forest.fit(matrix(x[:TRAIN]), y[:TRAIN])
    held = forest.predict_proba(matrix(x[TRAIN:]))
    reference = drift.reference(columns(x[:TRAIN]), held)
    reference["baseline"] = concept.baseline(y[TRAIN:], held)
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(classes=[0, 1], metrics={}), reference=reference
    )
    stream = ConceptDriftStream(
        Agrawal(classification_function=0, seed=5000 + seed),
        Agrawal(classification_function=rule, seed=9000 + seed),
        seed=seed, position=half, width=width,
    )  # fmt: skip
    x, y = take(stream, 2 * half)
    y = flipped(y, np.repeat([NOISE, noise], half), 7000 + seed)
    p = forest.predict_proba(matrix(x))
    start, records = datetime(2024, 1, 1), []
    for i in range(2 * half):
        answer = {"prediction": 0, "probabilities": {"0": p[i, 0], "1": p[i, 1]}}
        at = start + timedelta(minutes=i)
        records.append(Record(str(i), None, at, "1", "", x[i], answer, int(y[i])))
    rules, fired = settings.Monitor(window=size), []
    for end in range(size, 2 * half + 1, size):
        seen = verdict.Verdict("unknown", "", "production", "1")
        monitor.watch(seen, bundle, Journal(records[:end]), rules, records[end - 1].at)
        if seen.verdict == "retrain":
            fired.append(end)
    begins = half - width // 2
    after = [end for end in fired if end > begins]
    return {
        "false": any(end <= begins for end in fired),
        "found": after[0] - begins if after else None,
        "before": auc(y[:begins], p[:begins]),
        "after": auc(y[half + width // 2 :], p[half + width // 2 :]),
    }


def matrix(rows: list[dict[str, float]]) -> np.ndarray:
    return np.array([list(row.values()) for row in rows])


class Journal:
    """In memory."""

    def __init__(self, records: list) -> None:
        self.records = records

    def rows(
        self,
        labelled: bool | None = None,
        limit: int = 0,
        since: Any = None,
        every: int = 1,
        **_: Any,
    ) -> list:
        if labelled is False:  # every row has a label at once
            return []
        rows = [r for r in self.records if since is None or r.at >= since][::every]
        return rows[-limit:] if limit else rows

    def count(self, *_: Any, **named: Any) -> int:
        return len(self.rows(**named))


def show(row: dict[str, Any], first: bool) -> None:
    if first:
        print("window  change    AUC before, after  false retrain  found  median rows until found")
    delay = "" if row["delay"] is None else f"{row['delay']:,.0f}"
    auc = f"{row['before']:.3f}, {row['after']:.3f}"
    shares = f"{row['false']:13.1%}  {row['found']:5.0%}"
    print(f"{row['window']:6}  {row['change']:8}  {auc:>17}  {shares}  {delay:>23}", flush=True)


if __name__ == "__main__":
    main()
