"""Watches what is served: the rows against those of the training, predictions against late labels.

The verdict is `retrain` when the metric fell for sure, `warn` when only the data moved, `ok`, or
`unknown` with the reason: what was not seen is never called good.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydantic import ValidationError

from . import bundle as bundles
from . import concept, contract, drift
from .bundle import Bundle
from .concept import Value
from .predict import label
from .registry import Registry
from .serving.journal import Journal, Record
from .settings import VERSIONS, Monitor, Settings
from .verdict import Verdict

LIMIT = 50_000
"""Labelled rows that are read, the newest ones."""
SHOWN = 12
"""Windows that are measured, the newest ones."""
FEWEST = 30
"""Rows that are compared with the training's; their threshold is wide."""


def run(
    settings: Settings,
    registry: Registry,
    journal: Journal | None,
    env: str = "production",
) -> Verdict:
    """Looks at the version that `env` holds, stores the verdict and tags the version with it.

    Without a journal the verdict is the one that is noted on the version, if it is fresh.
    The same journal gives the same verdict. Raises RegistryUnavailable, BundleError.
    """
    version = registry.alias(env)
    seen = Verdict("unknown", "", env, version, datetime.now(UTC).isoformat(timespec="seconds"))
    if version is None:
        seen.reason = f"{env} holds no version: nothing is served, so nothing is watched"
    elif journal is None:
        seen.recall(registry.note(version, "monitor"))
    else:
        bundle = bundles.load(registry.pull(version, VERSIONS, env), any_contract=True)
        watch(seen, bundle, journal, settings.monitor)
    seen.store()
    if version is not None and journal is not None:
        registry.tag(version, "monitor", seen.note())
    return seen


def watch(seen: Verdict, bundle: Bundle, journal: Journal, settings: Monitor) -> None:
    """Fills in what the journal's rows of one version say."""
    version, env = seen.version, seen.environment
    newest = settings.recent * settings.window
    recent = journal.rows(version=version, environment=env, limit=newest)
    if not recent:
        seen.reason = f"the journal holds no row of version {version} that {env} served"
        return
    seen.rows, seen.until = len(recent), recent[-1].at.isoformat()
    _data(seen, bundle, recent, settings)
    labelled = journal.rows(version=version, environment=env, labelled=True, limit=LIMIT)
    if len(labelled) == LIMIT:  # a window begins where it began before there were so many
        older = journal.count(version, labelled=True, environment=env) - LIMIT
        labelled = labelled[-older % settings.window :]
    _metric(seen, bundle, labelled, settings)
    _judge(seen, any(r.outcome is not None for r in recent), settings)


def _data(seen: Verdict, bundle: Bundle, rows: list[Record], settings: Monitor) -> None:
    size = min(settings.window, len(rows))
    if size < FEWEST:
        return
    first = len(rows) % size
    reference = bundle.reference
    limits = drift.thresholds(reference, size, settings.threshold)
    for window in _windows(rows[first:], size):
        try:
            found = drift.distances(reference, derived(window))
        except (ValidationError, KeyError):  # served by code of another contract
            seen.drift = []
            return
        seen.drift.append({**_span(window), "distances": found})
    for name, limit in limits.items():
        over = [window["distances"][name] > limit for window in seen.drift]
        seen.columns[name] = {
            "distance": seen.drift[-1]["distances"][name],
            "threshold": limit,
            "drifted": over[-1],
            "confirmed": sum(over) >= settings.confirm,
        }
    scores = _scores(bundle, rows[-size:])
    seen.score = drift.score_drift(reference, scores, settings.threshold)


def _metric(seen: Verdict, bundle: Bundle, rows: list[Record], settings: Monitor) -> None:
    classes = bundle.manifest.classes
    promised = bundle.reference.get("baseline")
    if promised and promised["metric"] == concept.MAIN:
        before = Value(promised["value"], promised["error"], promised["rows"])
    else:
        before = Value(bundle.manifest.metrics.get(concept.MAIN), 0.0, 0)
    seen.metric = {
        "name": concept.MAIN,
        "greater_is_better": concept.GREATER_IS_BETTER,
        "baseline": before.value,
        "interval": before.interval,
        "rows": before.rows,
    }
    seen.labelled = len(rows)
    if classes is not None:
        known = {c: i for i, c in enumerate(classes)}
        rows = [r for r in rows if r.outcome in known]
        seen.strange = seen.labelled - len(rows)
        actual = np.array([known[r.outcome] for r in rows], dtype=np.int64)
    else:
        actual = np.array([r.outcome for r in rows], dtype=np.float64)
    predicted = _scores(bundle, rows)
    at = range(0, len(rows) - settings.window + 1, settings.window)
    for start in at[-SHOWN:]:
        window = slice(start, start + settings.window)
        value = concept.measure(actual[window], predicted[window])
        seen.windows.append(
            {
                **_span(rows[window]),
                "value": value.value,
                "interval": value.interval,
                "violated": concept.violated(value, before, settings.margin),
            }
        )
    if seen.windows:
        seen.window = seen.windows[-1]["until"]
    for change in concept.changes(concept.losses(actual, predicted)):
        seen.adwin.append({"at": rows[change["row"]].at.isoformat(), **change})


def _judge(seen: Verdict, labels_come: bool, settings: Monitor) -> None:
    name, last = concept.MAIN, seen.windows[-settings.recent :]
    fell = sum(window["violated"] for window in last)
    moved = [column for column, found in seen.columns.items() if found["confirmed"]]
    drifted = f"; the data moved: {', '.join(moved)}" if moved else ""
    if not last:
        usable = seen.labelled - seen.strange
        reason = f"{usable:,} labelled rows, {settings.window:,} are needed (monitor.window)"
    elif not labels_come:
        reason = f"none of the newest {seen.rows:,} rows has a label: labels stopped coming"
    elif seen.metric["baseline"] is None:
        reason = f"{name} was not defined on the hold-out, so there is nothing to compare with"
    elif all(window["value"] is None for window in last):
        reason = f"{name} is not defined on any window: one class only?"
    else:
        seen.verdict = "retrain" if fell >= settings.confirm else "warn" if moved else "ok"
        newest = next(w["value"] for w in reversed(last) if w["value"] is not None)
        reason = (
            f"{name} is {newest:.4g}, {seen.metric['baseline']:.4g} when promoted; "
            f"worse for sure in {fell} of the last {len(last)} windows"
        )
    seen.reason = reason + drifted


def derived(rows: list[Record]) -> contract.Columns:
    """What the model saw of these rows."""
    return contract.derive(contract.columns(contract.read([r.features for r in rows])))


def _windows(rows: list[Record], size: int) -> Iterator[list[Record]]:
    for start in range(0, len(rows) - size + 1, size):
        yield rows[start : start + size]


def _span(rows: list[Record]) -> dict[str, Any]:
    return {"from": rows[0].at.isoformat(), "until": rows[-1].at.isoformat(), "rows": len(rows)}


def _scores(bundle: Bundle, rows: list[Record]) -> np.ndarray:
    """The predictions as they were given: probabilities (n, k) or values (n,)."""
    if bundle.manifest.classes is None:
        return np.array([r.prediction["prediction"] for r in rows], dtype=np.float64)
    keys = [label(c) for c in bundle.manifest.classes]
    given = [[r.prediction["probabilities"][key] for key in keys] for r in rows]
    return np.array(given, dtype=np.float64).reshape(len(rows), len(keys))
