"""Keeps what Locust rounds or forgets: each response time, and why requests failed.

`make load` starts this beside locustfile.py and judges by what it writes to LOAD_RECORD: for each
request name its times (ms), its failures by reason, and when the first began and the last ended.
If there are workers, the master collects what they kept when the test ends, and alone writes. It
asks for that itself: Locust's own last reports miss the requests that are still under way.
"""

import json
import math
import os
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from locust import events
from locust.env import Environment
from locust.rpc.protocol import Message
from locust.runners import STATE_MISSING, MasterRunner, Runner, WorkerRunner

RECORD = os.environ.get("LOAD_RECORD")
PATIENCE = 60
"""Seconds in which a worker must send what it kept, once its requests have ended."""
found: dict[str, Any] = defaultdict(
    lambda: {"times": [], "errors": Counter(), "start": math.inf, "end": 0.0}
)
started: set[str] = set()
"""On the master: the workers that the test began with."""
finished: set[str] = set()
"""On the master: the workers that sent what they kept."""


def keep(
    name: str, response_time: float | None, exception: Any, start_time: float, **_: Any
) -> None:
    """Takes in one request."""
    ms = response_time or 0.0
    kind = "" if isinstance(exception, str) else type(exception).__name__
    why = f"{kind}: {exception}".strip(": ").partition("\n")[0][:200]
    add(name, [round(ms, 3)], {why: 1} if exception else {}, start_time, start_time + ms / 1e3)


def add(name: str, times: list[float], errors: dict[str, int], start: float, end: float) -> None:
    """Adds requests of one name to what was found."""
    entry = found[name]
    entry["times"] += times
    entry["errors"].update(errors)
    entry["start"] = min(entry["start"], start)
    entry["end"] = max(entry["end"], end)


def send(environment: Environment, msg: Message, **_: Any) -> None:
    """On a worker: waits for its requests to end, and sends what it kept, in the master's time."""
    ahead = time.time() - msg.data["time"]
    environment.runner.stop()
    for entry in found.values():
        entry["start"] -= ahead
        entry["end"] -= ahead
    environment.runner.send_message("found", found)


def receive(msg: Message, **_: Any) -> None:
    """On the master: takes in what a worker kept."""
    finished.add(msg.node_id)
    for name, entry in msg.data.items():
        add(name, **entry)


def count(environment: Environment, **_: Any) -> None:
    """On the master: notes which workers there are."""
    started.update(worker.id for worker in environment.runner.clients.ready)


def collect(environment: Environment, **_: Any) -> None:
    """On the master: asks the workers for what they kept, before they are told to quit."""
    runner = environment.runner
    runner.send_message("send", {"time": time.time()})
    end = time.monotonic() + environment.stop_timeout + PATIENCE
    while time.monotonic() < end and any(
        worker.id not in finished and worker.state != STATE_MISSING for worker in runner.clients.all
    ):
        time.sleep(0.1)


def write(**_: Any) -> None:
    """Writes all of it, and how many of the workers were lost."""
    kept = {"found": found, "workers": len(started), "lost": len(started - finished)}
    Path(str(RECORD)).write_text(json.dumps(kept))


@events.init.add_listener
def listen(runner: Runner, **_: Any) -> None:
    """Gives each kind of process its part."""
    if isinstance(runner, WorkerRunner):
        runner.register_message("send", send)
        events.request.add_listener(keep)
    elif RECORD:
        if isinstance(runner, MasterRunner):
            runner.register_message("found", receive)
            events.test_start.add_listener(count)
            events.test_stopping.add_listener(collect)
        events.request.add_listener(keep)
        events.quitting.add_listener(write)
