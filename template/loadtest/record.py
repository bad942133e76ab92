"""Keeps what Locust rounds or forgets: each response time, and why requests failed.

`make load` starts this beside locustfile.py and judges by what it writes to LOAD_RECORD: for each
request name its times (ms), its failures by reason, and when the first began and the last ended.
"""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from locust import events

RECORD = os.environ.get("LOAD_RECORD")
found: dict[str, Any] = defaultdict(lambda: {"times": [], "errors": {}, "start": None, "end": 0.0})


def keep(
    name: str, response_time: float | None, exception: Any, start_time: float, **_: Any
) -> None:
    """Takes in one request."""
    entry, ms = found[name], response_time or 0.0
    entry["times"].append(round(ms, 3))
    entry["start"] = min(entry["start"] or start_time, start_time)
    entry["end"] = max(entry["end"], start_time + ms / 1e3)
    if exception:
        kind = "" if isinstance(exception, str) else type(exception).__name__
        why = f"{kind}: {exception}".strip(": ").partition("\n")[0][:200]
        entry["errors"][why] = entry["errors"].get(why, 0) + 1


def write(**_: Any) -> None:
    """Writes all of it."""
    Path(str(RECORD)).write_text(json.dumps(found))


if RECORD:
    events.request.add_listener(keep)
    events.quitting.add_listener(write)
