"""What a load test found, judged by the limits of [load]."""

import math
import os
import platform
from collections.abc import Iterator
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


def report(bundle: Bundle, record: dict[str, dict[str, Any]], limits: Load) -> dict[str, Any]:
    """The report of what loadtest/record.py kept; `passed` says whether all limits held."""
    figures = {name: _figures(entry) for name, entry in record.items()}
    requests = sum(entry["requests"] for entry in figures.values())
    failures = sum(entry["failures"] for entry in figures.values())
    begun, ended = ([entry[key] for entry in record.values()] for key in ("start", "end"))
    seconds = max(ended, default=0) - min(begun, default=0)
    rate = round(requests / max(seconds, 1.0), 1)
    judged = figures.get(JUDGED, {})
    times = ", ".join(f"{name} {judged.get(name, math.nan):.0f} ms" for name in PERCENTILES)
    if judged:
        reasons = [*_too_many(failures, requests, figures, limits), *_too_slow(judged, limits)]
    else:
        reasons = ["no request was made"]
    return {
        "bundle": bundle.digest,
        "version": bundle.version,
        "passed": not reasons,
        "reasons": reasons,
        "summary": "; ".join(reasons) or f"{times} at {rate:.0f} requests/s",
        "requests": requests,
        "failures": failures,
        "rate": rate,
        **{name: judged.get(name) for name in PERCENTILES},
        "by_name": figures,
        "limits": limits.model_dump(),
        "machine": machine(),
    }


def _too_many(
    failures: int, requests: int, figures: dict[str, dict[str, Any]], limits: Load
) -> Iterator[str]:
    """Says that too many requests failed, and why most of them did."""
    most = limits.max_failure_ratio
    if failures / requests > most:
        errors = ((n, why, name) for name, e in figures.items() for why, n in e["errors"].items())
        n, why, name = max(errors)
        text = f"{failures} of {requests} requests failed, {n} of them '{name}' with {why}"
        yield f"{text} (LOAD_MAX_FAILURE_RATIO={most:g})"


def _too_slow(judged: dict[str, Any], limits: Load) -> Iterator[str]:
    """Says which limits of time do not hold."""
    for name in ("p95", "p99"):
        most = getattr(limits, f"{name}_ms")
        if judged[name] > most:
            text = f"{name} of {JUDGED} is {round(judged[name], 2):g} ms, above {most:g}"
            yield f"{text} (LOAD_{name.upper()}_MS)"


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    """Requests, failures, their reasons, and percentiles in milliseconds, by nearest rank."""
    times, errors = sorted(entry["times"]), entry["errors"]
    figures = {
        name: times[math.ceil(len(times) * percent / 100) - 1]
        for name, percent in PERCENTILES.items()
    }
    failures = sum(errors.values())
    return {"requests": len(times), "failures": failures, "errors": errors, **figures}
