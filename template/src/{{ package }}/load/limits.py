"""What a load test found, judged by the limits of [load]."""

import math
import os
import platform
from typing import Any

from ..bundle import Bundle
from ..settings import Load

PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}
JUDGED = "one row"
"""Response times are judged on one-row predictions; failures on every request."""


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def exceeded(entries: dict[str, dict[str, Any]], limits: Load) -> list[str]:
    """Why the limits do not hold, each in one line; empty when they do.

    `entries` are the figures by request name, as `_figures` gives them.
    """
    total = sum(entry["requests"] for entry in entries.values())
    if not total or JUDGED not in entries:
        return ["no request was made"]
    reasons = []
    failures = sum(entry["failures"] for entry in entries.values())
    if failures / total > limits.max_failure_ratio:
        errors = ((n, why, name) for name, e in entries.items() for why, n in e["errors"].items())
        n, why, name = max(errors)
        ratio, most = f"{failures} of {total} requests failed", limits.max_failure_ratio
        text = f"{ratio}, {n} of them '{name}' with {why}"
        reasons.append(f"{text} (LOAD_MAX_FAILURE_RATIO={most:g})")
    for name in ("p95", "p99"):
        most, given = getattr(limits, f"{name}_ms"), entries[JUDGED].get(name, math.inf)
        if given > most:
            text = f"{name} of {JUDGED} is {round(given, 2):g} ms, above {most:g}"
            reasons.append(f"{text} (LOAD_{name.upper()}_MS)")
    return reasons


def report(bundle: Bundle, record: dict[str, dict[str, Any]], limits: Load) -> dict[str, Any]:
    """The report of what loadtest/record.py kept; `passed` says whether all limits held."""
    figures = {name: _figures(entry) for name, entry in record.items()}
    reasons = exceeded(figures, limits)
    entries = record.values()
    seconds = max((e["end"] for e in entries), default=0) - min(
        (e["start"] for e in entries), default=0
    )
    requests = sum(entry["requests"] for entry in figures.values())
    judged = figures.get(JUDGED, {})
    rate = round(requests / max(seconds, 1.0), 1)
    times = ", ".join(f"{name} {judged.get(name, math.nan):.0f} ms" for name in PERCENTILES)
    return {
        "bundle": bundle.digest,
        "version": bundle.version,
        "passed": not reasons,
        "reasons": reasons,
        "summary": "; ".join(reasons) or f"{times} at {rate:.0f} requests/s",
        "requests": requests,
        "failures": sum(entry["failures"] for entry in figures.values()),
        "rate": rate,
        **{name: judged.get(name) for name in PERCENTILES},
        "by_name": figures,
        "limits": limits.model_dump(),
        "machine": machine(),
    }


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    """Requests, failures, their reasons, and percentiles in milliseconds, by nearest rank."""
    times, errors = sorted(entry["times"]), entry["errors"]
    figures = {
        name: times[math.ceil(len(times) * percent / 100) - 1]
        for name, percent in PERCENTILES.items()
    }
    failures = sum(errors.values())
    return {"requests": len(times), "failures": failures, "errors": errors, **figures}
