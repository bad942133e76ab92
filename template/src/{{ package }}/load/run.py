"""Load tests: what clients meet, and how much a bundle can take.

Locust runs as a process of its own and is never imported: it patches sockets and threads.
"""

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version as installed
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
HERE = "127.0.0.1"


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
    settings: Settings,
    bundle: Bundle,
    url: str = "",
    ui: bool = False,
    yes: bool = False,
    bind: str = "",
) -> dict[str, Any]:
    """Loads `bundle` as people would and writes reports/load.json; returns that report.

    With `url` the server that runs there is loaded, which must serve this very bundle; one that
    is not on this machine needs `yes`. With `ui` Locust's page is opened instead, and nothing is
    judged. `passed` in the report says whether the limits of [load] held.

    The clients are shared by the settings' workers: processes of this machine, or, with `bind`, an
    address of it, those that connect to that. Raises UserError when one does not come, or is lost.
    """
    load = settings.load
    if url and not yes and not targets.loopback(url):
        raise UserError(f"{shown(url)} is not on this machine; say YES=1 if it may be loaded")
    if bind and not targets.loopback(f"//{bind}") and targets.loopback(url or f"//{HERE}"):
        raise UserError(f"BIND={bind}: say URL=, a server's address that other machines reach")
    served = targets.running(bundle, url) if url else targets.server(bundle)
    with served as target, tempfile.TemporaryDirectory() as tmp:
        scenario = _scenario(settings, bundle, Path(tmp), outcomes=not url)
        crew = _crew(load, bind)
        if ui:
            _page(target, scenario, load, crew)
            return {"passed": None, "bundle": bundle.digest}
        REPORT.parent.mkdir(exist_ok=True)
        how = (load.users, load.spawn_rate, load.run_time)
        entries = _attack(target, scenario, *how, crew, html=REPORT.with_suffix(".html"))
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
            how = (users, users, load.capacity_seconds)
            entries = _attack(target, scenario, *how, _crew(load))
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


def _crew(load: Load, bind: str = "") -> list[str]:
    """Locust's arguments for a master and its workers; none if one process does it all.

    With `bind` the workers are started by hand, with the command that is printed.
    """
    if bind:
        port = str(load.worker_port)
        host = socket.gethostname() if targets.anywhere(bind) else bind
        print(
            f"load: waiting {load.worker_wait} s for WORKERS={load.workers}; start each on its "
            f"machine, where Locust {installed('locust')} is installed:\n"
            f"locust -f - --worker --master-host {host} --master-port {port}",
            flush=True,
        )
        crew = ["--master", "--expect-workers", str(load.workers)]
    elif load.workers > 1:
        port = str(targets.free_port())
        crew = ["--processes", str(load.workers), "--master-port", port]
    else:
        return []
    crew += ["--master-bind-host", bind or HERE, "--master-bind-port", port]
    return [*crew, "--expect-workers-max-wait", str(load.worker_wait)]


def _attack(
    url: str,
    scenario: Path,
    users: int,
    spawn_rate: float,
    seconds: int,
    crew: Sequence[str] = (),
    html: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Loads `url` for some seconds; returns what loadtest/record.py kept, by request name.

    `crew` is what _crew returns, `html` where Locust's own report goes. Raises UserError when
    Locust itself fails, or a worker was lost.
    """
    record = scenario.with_name("record.json")
    record.unlink(missing_ok=True)
    command = ["--headless", "--only-summary", "--run-time", f"{seconds}s", "--stop-timeout", "10"]
    command += ["--exit-code-on-error", "0", *crew]
    command += ["--html", str(html)] if html else []
    done = _locust(
        url, scenario, users, spawn_rate, command, record, capture_output=True, text=True
    )
    if "Gave up waiting for workers" in done.stderr:
        raise UserError("load: not all workers came; start them first, or raise LOAD_WORKER_WAIT")
    if done.returncode or not record.exists():
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise UserError(f"load: Locust ended with {done.returncode}: {last}")
    kept = json.loads(record.read_text())
    if kept["lost"]:
        lost = f"{kept['lost']} of {kept['workers']} workers"
        raise UserError(f"load: {lost} ended before the test did; nothing was judged")
    return kept["found"]


def _page(url: str, scenario: Path, load: Load, crew: list[str]) -> None:
    """Locust's own page, until Ctrl-C."""
    port = targets.free_port()
    print(f"load: open http://{HERE}:{port} and start; Ctrl-C ends it", flush=True)
    command = ["--web-host", HERE, "--web-port", str(port), *crew]
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
        "long": [row | texts for row in rows[:1]],
        "largest": settings.serving.max_batch,
        "outcomes": outcomes,
        "rate": rate,
    }
    path = tmp / "scenario.json"
    path.write_text(json.dumps(scenario))
    return path
