"""What a load test found, judged by the limits of [load]."""

import math
import os
import platform
from typing import Any

from .bundle import Bundle
from .settings import Load

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


def judge(entries: dict[str, dict[str, Any]], limits: Load) -> list[str]:
    """Why the limits do not hold, each in one line; empty when they do.

    `entries` are the figures by request name, as `_figures` gives them.
    """
    total = sum(entry["requests"] for entry in entries.values())
    if not total or JUDGED not in entries:
        return ["no request was made"]
    reasons = []
    failures = sum(entry["failures"] for entry in entries.values())
    if failures / total > limits.max_failure_ratio:
        worst = max(entries, key=lambda name: entries[name]["failures"])
        ratio, most = f"{failures} of {total} requests failed", limits.max_failure_ratio
        reasons.append(f"{ratio}, most of them '{worst}' (LOAD_MAX_FAILURE_RATIO={most:g})")
    for name in ("p95", "p99"):
        most, given = getattr(limits, f"{name}_ms"), entries[JUDGED].get(name, math.inf)
        if given > most:
            text = f"{name} of {JUDGED} is {given:.0f} ms, above {most:g}"
            reasons.append(f"{text} (LOAD_{name.upper()}_MS)")
    return reasons


def report(bundle: Bundle, entries: list[dict[str, Any]], limits: Load) -> dict[str, Any]:
    """The report of Locust's statistics; `passed` says whether all limits held."""
    figures = {entry["name"]: _figures(entry) for entry in entries}
    reasons = judge(figures, limits)
    seconds = max((e["last_request_timestamp"] or 0 for e in entries), default=0) - min(
        (e["start_time"] for e in entries), default=0
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
    """Requests, failures and percentiles in milliseconds of one entry of Locust's statistics."""
    times = sorted((float(ms), count) for ms, count in entry["response_times"].items())
    total, figures = sum(count for _, count in times), {}
    for name, percent in PERCENTILES.items():
        left = math.ceil(total * percent / 100)
        for ms, count in times:
            left -= count
            if left <= 0:
                figures[name] = ms
                break
    return {"requests": entry["num_requests"], "failures": entry["num_failures"], **figures}
