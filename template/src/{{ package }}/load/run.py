"""Load tests: what clients meet, and how much a bundle can take.

Locust runs as a process of its own and is never imported: it patches sockets and threads.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import bundle as bundles
from ..bundle import Bundle
from ..contract import KINDS
from ..errors import UserError, shown
from ..files import write
from ..registry.base import Registry, require, version_in
from ..settings import VERSIONS, Load, Settings
from . import limits, targets

LOCUSTFILE = Path("loadtest/locustfile.py")
REPORT = Path("reports/load.json")
CAPACITY = Path("reports/capacity.json")
LONG = "x" * 10_000


def measure(
    settings: Settings, registry: Registry, environment: str, version: str = "", **how: Any
) -> dict[str, Any]:
    """Loads a version, by default what the environment holds, and notes the result on it.

    The gate of production reads that note. `how` goes to `run`. Raises UserError when the
    environment holds nothing, or the version is not registered.
    """
    if version:
        require(version, registry)
    else:
        version = version_in(environment, registry)
    report = run(settings, bundles.load(registry.pull(version, VERSIONS, environment)), **how)
    if report["passed"] is not None:
        note = {key: report[key] for key in ("bundle", "passed", "summary")}
        registry.tag(version, "load", json.dumps(note), environment)
    return report


def run(
    settings: Settings, bundle: Bundle, url: str = "", ui: bool = False, yes: bool = False
) -> dict[str, Any]:
    """Loads `bundle` as people would and writes reports/load.json; returns that report.

    With `url` the server that runs there is loaded, which must serve this very bundle; one that
    is not on this machine needs `yes`. With `ui` Locust's page is opened instead, and nothing is
    judged. `passed` in the report says whether the limits of [load] held.
    """
    load = settings.load
    if url and not yes and not targets.loopback(url):
        raise UserError(f"{shown(url)} is not on this machine; say YES=1 if it may be loaded")
    served = targets.running(bundle, url) if url else targets.server(bundle)
    with served as target, tempfile.TemporaryDirectory() as tmp:
        scenario = _scenario(settings, bundle, Path(tmp), outcomes=not url)
        if ui:
            _page(target, scenario, load)
            return {"passed": None, "bundle": bundle.digest}
        REPORT.parent.mkdir(exist_ok=True)
        how = (load.users, load.spawn_rate, load.run_time)
        entries = _attack(target, scenario, *how, html=REPORT.with_suffix(".html"))
    report = limits.report(bundle, entries, load) | {"url": shown(url) or "own server"}
    write(REPORT, json.dumps(report, indent=2) + "\n")
    return report


def capacity(settings: Settings, bundle: Bundle) -> dict[str, Any]:
    """Raises the rate in steps until the limits break; writes reports/capacity.json, returns it.

    The rate doubles until a step breaks, then the gap is halved until it is small; `rate` is the
    highest that held, in requests per second, and `limited_by` says what broke first.
    """
    load, steps = settings.load, []
    held, broken, rate = 0.0, math.inf, load.capacity_start
    with targets.server(bundle) as target, tempfile.TemporaryDirectory() as tmp:
        for _ in range(load.capacity_steps):
            users = max(10, math.ceil(rate / 10))
            scenario = _scenario(settings, bundle, Path(tmp), outcomes=True, rate=rate / users)
            entries = _attack(target, scenario, users, users, load.capacity_seconds)
            step = limits.report(bundle, entries, load) | {"asked": rate}
            if step["rate"] < 0.9 * rate:
                step["reasons"].append(f"{step['rate']:.0f} of {rate:.0f} requests/s were made")
            steps.append(step)
            if step["reasons"]:
                broken = rate
            else:
                held = rate
            rate = 2 * held if broken == math.inf else (held + broken) / 2
            if broken < 1.15 * held:
                break
    reasons = [reason for step in steps for reason in step["reasons"]]
    report = {
        "bundle": bundle.digest,
        "version": bundle.version,
        "rate": held,
        "limited_by": reasons[0] if reasons else "nothing: raise LOAD_CAPACITY_STEPS",
        "steps": steps,
        "machine": limits.machine(),
    }
    write(CAPACITY, json.dumps(report, indent=2) + "\n")
    return report


def _attack(
    url: str, scenario: Path, users: int, spawn_rate: float, seconds: int, html: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Loads `url` for some seconds; returns what loadtest/record.py kept, by request name.

    `html` is where Locust's own report goes. Raises UserError when Locust itself fails.
    """
    record = scenario.with_name("record.json")
    record.unlink(missing_ok=True)
    command = ["--headless", "--only-summary", "--run-time", f"{seconds}s", "--stop-timeout", "10"]
    command += ["--exit-code-on-error", "0"]
    command += ["--html", str(html)] if html else []
    done = _locust(
        url, scenario, users, spawn_rate, command, record, capture_output=True, text=True
    )
    if done.returncode or not record.exists():
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise UserError(f"load: Locust ended with {done.returncode}: {last}")
    return json.loads(record.read_text())


def _page(url: str, scenario: Path, load: Load) -> None:
    """Locust's own page, until Ctrl-C."""
    port = targets.free_port()
    print(f"load: open http://127.0.0.1:{port} and start; Ctrl-C ends it", flush=True)
    command = ["--web-host", "127.0.0.1", "--web-port", str(port)]
    with suppress(KeyboardInterrupt):
        _locust(url, scenario, load.users, load.spawn_rate, command)


def _locust(
    url: str,
    scenario: Path,
    users: int,
    spawn_rate: float,
    arguments: list[str],
    record: Path | None = None,
    **how: Any,
) -> subprocess.CompletedProcess[str]:
    files = f"{LOCUSTFILE},{LOCUSTFILE.with_name('record.py')}"
    command = [sys.executable, "-m", "locust", "-f", files, "--host", url]
    command += ["--users", str(users), "--spawn-rate", str(spawn_rate), *arguments]
    own = {"LOAD_SCENARIO": str(scenario), "LOAD_RECORD": str(record or "")}
    return subprocess.run(command, check=False, env=os.environ | own, **how)


def _scenario(
    settings: Settings, bundle: Bundle, tmp: Path, outcomes: bool, rate: float | None = None
) -> Path:
    rows = [example["features"] for example in bundle.examples]
    texts = {name: LONG for name, kind in KINDS.items() if kind == "category"}
    scenario = {
        "rows": rows,
        "long": [row | texts for row in rows[:20]],
        "largest": settings.serving.max_batch,
        "outcomes": outcomes,
        "rate": rate,
    }
    path = tmp / "scenario.json"
    path.write_text(json.dumps(scenario))
    return path
