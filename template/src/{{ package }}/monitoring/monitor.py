"""Watches what is served: the rows against those of the training, predictions against late labels.

The verdict is `retrain` when the metric fell significantly, `warn` when only the inputs drifted,
`ok`, `new` when what is served has too few labelled rows yet and labels arrive as usual, or
`unknown` with the reason: what was not seen is never called good, and what is only late is not
called missing.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from .. import bundle as bundles
from .. import contract
from ..bundle import Bundle
from ..evaluation import metric
from ..evaluation.metric import Value, codes
from ..events import notify
from ..predict import label
from ..project.features import TIME
from ..registry.base import Registry
from ..serving.journal.store import Journal, Record
from ..settings import CANDIDATE, VERSIONS, Monitor, Settings
from . import concept, drift, shadow
from .verdict import Verdict

LIMIT = 50_000
"""Rows that are read at most: labelled ones the newest, others spread over their span."""
SHOWN = 12
"""Windows that are measured, the newest ones, or more if the verdict looks at more."""
FEWEST = 30
"""Rows of a window; the threshold of so few is wide."""
SPANS = {"day": timedelta(days=1), "week": timedelta(days=7)}
PATIENCE, LATEST = 3, timedelta(hours=1)
"""A label is missing when it is later than so many times the usual delay, and an hour more."""


def run(
    settings: Settings,
    registry: Registry,
    journal: Journal | None,
    env: str = "production",
) -> Verdict:
    """Looks at the version that `env` holds, stores the verdict and tags the version with it.

    Without a journal the verdict is the one that is noted on the version, if it is fresh. Raises
    RegistryUnavailable, BundleError.
    """
    now = datetime.now(UTC)
    version = registry.alias(env)
    at = now.isoformat(timespec="seconds")
    seen = Verdict("unknown", "", env, version, at)
    if version is None:
        seen.reason = f"{env} holds no version: nothing is served, so nothing is watched"
    elif journal is None:
        seen.recall(registry.note(version, "monitor"))
    else:
        bundle = bundles.load(registry.pull(version, VERSIONS, env), any_contract=True)
        watch(seen, bundle, journal, settings.monitor, now.replace(tzinfo=None))
        if env == "production":
            _shadow(seen, journal, registry, settings.monitor)
    seen.store()
    if seen.at == at:  # not a recalled one: its event was sent when it was new
        notify.judged(settings, seen)
    if version is not None and journal is not None:
        registry.tag(version, "monitor", seen.note())
    return seen


def watch(
    seen: Verdict, bundle: Bundle, journal: Journal, settings: Monitor, now: datetime
) -> None:
    """Fills in what the journal's rows say at the time `now` (UTC, without a zone)."""
    version, env = seen.version, seen.environment
    newest = journal.rows(environment=env, limit=1)
    if newest:
        seen.until = newest[0].at.isoformat()
        _data(seen, bundle, journal, newest[0].at, settings)
    labelled = journal.rows(version=version, environment=env, labelled=True, limit=LIMIT)
    if len(labelled) == LIMIT and isinstance(settings.window, int):
        # a window begins where it began before there were so many
        older = journal.count(version, labelled=True, environment=env) - LIMIT
        labelled = labelled[-older % settings.window :]
    _metric(seen, bundle, labelled, settings)
    _judge(seen, journal, settings, now)


def _shadow(seen: Verdict, journal: Journal, registry: Registry, settings: Monitor) -> None:
    candidate = registry.alias(CANDIDATE)
    if candidate is None or seen.version in (None, candidate):
        return
    known = candidate, registry.note(candidate, "bundle")
    found = shadow.compare(journal, known, seen.version, settings.threshold)
    if found.rows or found.failed:
        seen.shadow = asdict(found) | {"said": found.told(metric.MAIN)}


def _data(
    seen: Verdict, bundle: Bundle, journal: Journal, newest: datetime, settings: Monitor
) -> None:
    """Compares windows of the environment's rows, whichever version answered, with the training.

    With TIME a window is a day, or a week where a day has few rows: shorter ones would differ in
    all that goes round with the hour. Without, it is `window` rows.
    """
    windows = _drift_windows(journal, seen.environment, newest, settings)
    seen.rows = sum(map(len, windows))
    if not windows:
        return
    reference, size = bundle.reference, min(map(len, windows))
    limits = drift.thresholds(reference, size, settings.threshold)
    span = (windows[-1][-1].at - windows[-1][0].at) / SPANS["day"]
    usual = reference.get("spread", {}).get("week" if span > 1 else "day", {})
    for window in windows:
        try:
            found = drift.distances(reference, derived(window))
        except (ValidationError, KeyError):  # of another contract: nothing can be said of them
            seen.drift = []
            seen.unseen = "its rows do not fit the contract of what is served"
            return
        seen.drift.append({**_span(window), "distances": found})
    for name in limits:
        limit = max(limits[name], usual.get(name, 0.0))
        over = [window["distances"][name] > limit for window in seen.drift]
        seen.columns[name] = {
            "distance": seen.drift[-1]["distances"][name],
            "threshold": limit,
            "drifted": over[-1],
            "confirmed": sum(over) >= settings.confirm,
        }
    seen.texts = drift.unseen(reference)
    own = [row for row in windows[-1] if row.version == seen.version]
    if len(own) >= FEWEST:
        scores = _scores(bundle, own)
        seen.score = drift.score_drift(reference, scores, settings.threshold)


def _drift_windows(
    journal: Journal, env: str, newest: datetime, settings: Monitor
) -> list[list[Record]]:
    """The newest windows, oldest first, each of FEWEST rows or more."""
    least = settings.window if isinstance(settings.window, int) else FEWEST
    if TIME:
        for span in SPANS.values():
            since = newest - settings.recent * span
            many = journal.count(environment=env, since=since)
            if many < settings.recent * least and span is not SPANS["week"]:
                continue
            rows = journal.rows(environment=env, since=since, every=ceil(many / LIMIT))
            ages = [int((newest - row.at) / span) for row in rows]
            found = [[r for r, a in zip(rows, ages, strict=True) if a == age] for age in set(ages)]
            found = [window for window in found if len(window) >= FEWEST]
            if found and (len(found[0]) >= least or span is SPANS["week"]):
                return sorted(found, key=lambda window: window[0].at)
    rows = journal.rows(environment=env, limit=settings.recent * least)
    size = min(least, len(rows))
    if size < FEWEST:
        return []
    return [rows[i : i + size] for i in range(len(rows) % size, len(rows), size)]


def _metric(seen: Verdict, bundle: Bundle, rows: list[Record], settings: Monitor) -> None:
    classes = bundle.manifest.classes
    baseline = bundle.reference.get("baseline")
    if baseline and baseline["metric"] == metric.MAIN:
        before = Value(baseline["value"], baseline["error"], baseline["rows"])
    else:
        before = Value(bundle.manifest.metrics.get(metric.MAIN), 0.0, 0)
    seen.metric = {
        "name": metric.MAIN,
        "greater_is_better": metric.GREATER_IS_BETTER,
        "baseline": before.value,
        "interval": before.interval,
        "rows": before.rows,
    }
    seen.labelled = len(rows)
    if classes is not None:
        known = set(classes)
        rows = [row for row in rows if row.outcome in known]
        seen.strange = seen.labelled - len(rows)
    actual = codes(pd.Series([row.outcome for row in rows]), classes)
    predicted = _scores(bundle, rows)
    for window in _metric_windows(rows, settings)[-max(SHOWN, settings.recent) :]:
        part = rows[window]
        value = metric.measure(actual[window], predicted[window], concept.groups(part))
        seen.windows.append(
            {
                **_span(part),
                "value": value.value,
                "interval": value.interval,
                "violated": concept.violated(value, before, settings.margin),
            }
        )
    if seen.windows:
        seen.window = seen.windows[-1]["until"]
    for change in concept.changes(concept.losses(actual, predicted)):
        seen.adwin.append({"at": rows[change["row"]].at.isoformat(), **change})


def _metric_windows(rows: list[Record], settings: Monitor) -> list[slice]:
    """Whole windows of labelled rows: so many, or a day's or a week's, of FEWEST rows or more."""
    if isinstance(settings.window, int):
        size = settings.window
        return [slice(i, i + size) for i in range(0, len(rows) - size + 1, size)]
    span = {"day": "D", "week": "W-SUN"}[settings.window]
    starts = pd.Series([row.at for row in rows], dtype="datetime64[us]").dt.to_period(span)
    edges = np.flatnonzero((starts != starts.shift()).to_numpy()).tolist()
    whole = [slice(a, b) for a, b in pairwise(edges)]  # the last is not over
    return [window for window in whole if window.stop - window.start >= FEWEST]


def _judge(seen: Verdict, journal: Journal, settings: Monitor, now: datetime) -> None:
    name, last = metric.MAIN, seen.windows[-settings.recent :]
    fell = sum(window["violated"] for window in last)
    moved = [column for column, found in seen.columns.items() if found["confirmed"]]
    drifted = f"; the inputs have drifted: {', '.join(moved)}" if moved else ""
    if seen.unseen:
        drifted = f"; whether the inputs have drifted could not be measured: {seen.unseen}"
    if seen.texts:
        drifted += f"; of {', '.join(seen.texts)} only the length is watched"
    late = overdue(journal, seen.environment, now)
    if late:
        reason = late
    elif not last:
        usable = seen.labelled - seen.strange
        whole = f"a whole {settings.window} of {FEWEST} or more"
        needed = settings.window if isinstance(settings.window, int) else whole
        reason = f"version {seen.version} has {usable:,} labelled rows; needed: {needed}"
        reason += " (monitor.window)"
        if journal.count(environment=seen.environment, labelled=True) > seen.labelled:
            seen.verdict = "new"
            reason += "; labels arrive as usual"
    elif seen.metric["baseline"] is None:
        reason = f"{name} was not defined on the rows that judged, so nothing can be compared"
    elif all(window["value"] is None for window in last):
        reason = f"{name} is not defined on any window: one class only?"
    else:
        seen.verdict = "retrain" if fell >= settings.confirm else "ok"
        if seen.verdict == "ok" and (moved or seen.unseen):
            seen.verdict = "warn"
        newest = next(w["value"] for w in reversed(last) if w["value"] is not None)
        reason = (
            f"{name} is {newest:.4g}, {seen.metric['baseline']:.4g} at training; "
            f"significantly worse in {fell} of the last {len(last)} windows"
        )
    seen.reason = reason + drifted


def overdue(journal: Journal, env: str, now: datetime) -> str:
    """Says that labels stopped to come, if they did; empty if they come, or never came.

    The usual delay is that of 9 of 10 of the newest labelled rows, from when the prediction was
    written to when its label was.
    """
    known = journal.rows(environment=env, labelled=True, limit=1000)
    pairs = [(r.written, r.labelled_at) for r in known if r.written and r.labelled_at]
    if not pairs:
        return ""
    newest = max(written for written, _ in pairs)
    delay = sorted(labelled - predicted for predicted, labelled in pairs)[len(pairs) * 9 // 10]
    due = now - PATIENCE * max(delay, timedelta(0)) - LATEST
    waiting = journal.rows(environment=env, labelled=False, limit=LIMIT)
    missing = sum(1 for r in waiting if r.written and newest < r.written <= due)
    if missing < FEWEST:
        return ""
    return (
        f"labels stopped coming: none of the {missing:,} predictions since "
        f"{newest.isoformat(' ', 'minutes')} UTC has one, though they are older than {PATIENCE} "
        "times the usual delay"
    )


def derived(rows: list[Record]) -> contract.Columns:
    """What the model saw of these rows."""
    return contract.derive(contract.columns(contract.read([r.features for r in rows])))


def _span(rows: Sequence[Record]) -> dict[str, Any]:
    return {"from": rows[0].at.isoformat(), "until": rows[-1].at.isoformat(), "rows": len(rows)}


def _scores(bundle: Bundle, rows: list[Record]) -> np.ndarray:
    """The predictions as they were given: probabilities (n, k) or values (n,)."""
    if bundle.manifest.classes is None:
        return np.array([r.prediction["prediction"] for r in rows], dtype=np.float64)
    keys = [label(c) for c in bundle.manifest.classes]
    given = [[r.prediction["probabilities"][key] for key in keys] for r in rows]
    return np.array(given, dtype=np.float64).reshape(len(rows), len(keys))
