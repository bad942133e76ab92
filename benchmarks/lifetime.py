"""One stream lived through in turns, by the rendered project's own code, with no service between.

    python lifetime.py STREAM SEEDS

Runs in the environment of a rendered project, with that project's package on PYTHONPATH, whose
contract is the stream's. Prints a JSON object: for each seed and each way of keeping a model the
mean metric, its worst tenth, the candidates fitted, the promotions, the seconds; and of ciclo the
promotions to a version that is no better on all rows that come.
"""

import json
import sys
import time
import warnings
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from kept import contract, cycle
from kept.evaluation.metric import METRIC, no_worse
from kept.monitoring import concept, monitor, verdict
from kept.project.data import SOURCE
from kept.project.data import load as flights
from kept.project.features import TIME
from kept.serving.journal.store import Record
from kept.settings import Settings, load
from kept.training import fitting, snapshots
from kept.training.fitting import Fitted, Table
from streams import STREAMS, Stream, frame

EVERY, WINDOWS = (1, 2, 5, 10), (None, 4000, 2000, 1000, 500)
"""The calendars: a new model each so many turns, of all rows or so many of the newest."""


def main() -> None:
    warnings.simplefilter("ignore")
    name, seeds = sys.argv[1], int(sys.argv[2])
    stream = STREAMS.get(name) or FLIGHTS
    real = stream.drift == "real"
    print(json.dumps([one(stream, seed) for seed in range(1 if real else seeds)]))


FLIGHTS = Stream(lambda _: (np.empty(0), np.empty(0)), "real", train=7500, turn=600, delay=500)
"""Those of the template, in the contract of the template: labels a week late, a turn a week."""


def one(stream: Stream, seed: int) -> dict[str, Any]:
    """A seed of a stream, kept in every way."""
    if stream is FLIGHTS:
        rows = snapshots.labelled(flights(SOURCE), SOURCE).sort_values(TIME or "", kind="stable")
    else:
        rows = frame(stream, seed)
    rows = snapshots.validated(rows, "the stream")
    settings = load(monitor={"window": 200}, gates={"min_rows": 200})
    life = Life(stream, rows, Table.of(rows), settings)
    ways: dict[str, Any] = {"never": life.calendar(0, None)}
    for every in EVERY:
        for window in WINDOWS:
            ways[f"each {every}, {window or 'all'}"] = life.calendar(every, window)
    return ways | {"ciclo": life.ciclo()}


@dataclass
class Life:
    """A stream, and what is known of it at each turn."""

    stream: Stream
    rows: pd.DataFrame
    table: Table
    settings: Settings
    models: dict[tuple[int, int], Fitted] = field(default_factory=dict)

    def turns(self) -> list[tuple[int, int]]:
        """At how many rows a turn is, and how many of them have a label by then."""
        s = self.stream
        return [(t, t - s.delay) for t in range(s.train + s.turn, len(self.rows), s.turn)]

    def fit(self, start: int, stop: int) -> Fitted:
        """A model of some rows, each fitted once for all calendars."""
        if (start, stop) not in self.models:
            self.models[start, stop] = fitting.fit(
                self.table, start, stop, self.settings.train.seed
            )
        return self.models[start, stop]

    def calendar(self, every: int, window: int | None) -> dict[str, Any]:
        """A new model each so many turns, whatever happens; never with 0."""
        begun, model = time.perf_counter(), self.fit(0, self.stream.train)
        held = [(self.stream.train, model)]
        for number, (at, known) in enumerate(self.turns(), start=1):
            if every and number % every == 0:
                held.append((at, self.fit(max(0, known - window) if window else 0, known)))
        return self.judged(held, len(held) - 1, begun)

    def ciclo(self) -> dict[str, Any]:
        """The loop as it is: `monitor` and `choose` at each turn, and nothing of their own here."""
        begun, tried = time.perf_counter(), 0
        judged = fitting.judge(self.rows.iloc[: self.stream.train], self.settings.train)
        holder = self.version(judged, judged.refit(self.settings.train.seed), "1")
        held, earlier = [(self.stream.train, holder)], list[Any]()
        records: list[Record] = []
        compared = self.stream.train
        for at, known in self.turns():
            records += self.served(holder, at, len(records))
            if known - compared < self.settings.cycle.rows:
                continue
            fell = self.fell(holder, records, known)
            tried, compared = tried + 1, known
            seen = self.rows.iloc[:known]
            found = cycle.choose(seen, holder, self.settings, fell, None, earlier)
            new = next((old for old in earlier if old.version == found.back), None)
            if new is None and found.gate.passed:
                fitted = found.judged.refit(self.settings.train.seed)
                new = self.version(found.judged, fitted, str(len(held) + 1))
            if new is not None:
                others = [holder, *(old for old in earlier if old is not new)]
                earlier = others[: self.settings.cycle.earlier]
                holder = new
                held.append((at, holder))
        vain = sum(self.vain(old, *new) for (_, old), new in pairwise(held))
        return self.judged(held, len(held) - 1, begun) | {"tried": tried, "vain": vain}

    def version(self, judged: fitting.Judged, fitted: Fitted, name: str) -> Any:
        """What a bundle is to the loop."""

        def scores(columns: contract.Columns) -> np.ndarray:
            derived = contract.derive(columns)
            given = contract.matrices(
                derived, fitted.numbers, fitted.categories, self.table.matrix.dtype
            )
            return fitted.scores(contract.stack(*given)).astype(float)

        return SimpleNamespace(
            version=name,
            path=Path("nowhere"),
            scores_or_nan=scores,
            fitted=fitted,
            reference={"baseline": concept.baseline(judged.actual, judged.scores)},
            manifest=SimpleNamespace(
                trained_until=snapshots.until(judged.frame), classes=fitted.classes, metrics={}
            ),
        )

    def served(self, holder: Any, until: int, first: int) -> list[Record]:
        """The journal's rows of what was answered up to `until`; only labels and scores matter."""
        start = self.stream.train + first
        scores = holder.fitted.scores(self.table.matrix[start:until])
        made = []
        for i, score in zip(range(start, until), scores.tolist(), strict=True):
            label = self.table.labels[i].item()
            if holder.fitted.classes is None:
                answer = {"prediction": score}
            else:
                names = [str(c).lower() for c in holder.fitted.classes]
                answer = {"probabilities": dict(zip(names, score, strict=True))}
            at = self.rows["at" if "at" in self.rows else snapshots.TIME].iloc[i].to_pydatetime()
            made.append(Record(str(i), None, at, holder.version, "", {}, answer, label))
        return made

    def fell(self, holder: Any, records: list[Record], known: int) -> bool:
        """What the monitor says of the labelled rows."""
        seen = verdict.Verdict("unknown", "", "production", holder.version)
        journal = Journal(records[: max(0, known - self.stream.train)])
        now = self.rows["at" if "at" in self.rows else snapshots.TIME].iloc[known - 1]
        monitor.watch(seen, holder, journal, self.settings.monitor, now.to_pydatetime())
        return seen.verdict == "retrain"

    def judged(self, held: list[tuple[int, Any]], promotions: int, begun: float) -> dict[str, Any]:
        """The metric of the rows that came, each scored by what was held when it came."""
        ends = [*(at for at, _ in held[1:]), len(self.rows)]
        parts = [self.scores(m, at, end) for (at, m), end in zip(held, ends, strict=True)]
        scores, first = np.concatenate(parts), self.stream.train
        labels = self.rows[fitting.TARGET].iloc[first:]
        actual = fitting.codes(labels, self.classes())
        both = zip(np.array_split(actual, 10), np.array_split(scores, 10), strict=True)
        tenths = [METRIC(*part) for part in both]
        return {
            "metric": float(np.mean(tenths)),
            "worst": float(np.min(tenths)),
            "promotions": promotions,
            "tried": promotions,
            "seconds": time.perf_counter() - begun,
        }

    def vain(self, before: Any, at: int, since: Any) -> bool:
        """Whether a new version is no better than the one before on all rows that come."""
        end = len(self.rows)
        actual = fitting.codes(self.rows[fitting.TARGET].iloc[at:], self.classes())
        old, new = (float(METRIC(actual, self.scores(m, at, end))) for m in (before, since))
        return no_worse(old, new)

    def scores(self, model: Any, start: int, stop: int) -> np.ndarray:
        """What a model says of some rows, over all classes of the stream."""
        fitted = getattr(model, "fitted", model)
        found = fitted.scores(self.table.matrix[start:stop])
        return fitting.aligned(found, fitted.classes, self.classes())

    def classes(self) -> list[Any] | None:
        return fitting.classes_of(self.table.labels)


class Journal:
    """Labelled rows in memory; of the others, whose drift decides nothing, it holds none."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def rows(self, version: Any = None, labelled: bool = False, limit: int = 0, **_: Any) -> Any:
        rows = [r for r in self.records if labelled and version in (None, r.version)]
        return rows[-limit:]

    def count(self, version: Any = None, labelled: bool = False, **_: Any) -> int:
        return len(self.rows(version, labelled))


if __name__ == "__main__":
    main()
