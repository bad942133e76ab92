"""The outbox: a file in var/events for each event that the webhook has not accepted yet.

Nothing is sent while a command works. As it ends, it sends what waits, for a few seconds at most;
an event that is not accepted waits for the next command. A kill loses no event that is in the
outbox, so the same event may be sent twice, with the same id.
"""

import json
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write
from ..settings import Events, Settings, load

FOLDER = Path("var/events")
MAX_EVENTS, MAX_AGE = 1000, 7 * 86400.0
"""How many events wait at most, and for how many seconds; the others are dropped and counted."""
MAX_SECONDS = 3.0
"""How many seconds a slow webhook delays the end of a command at most."""
TRIES, PAUSE = 3, 0.5
"""How often a command tries, and the seconds between: a CI runner may delete the folder next."""


def add(settings: Settings, event: dict[str, Any], id: str = "") -> None:
    """Keeps an event if a webhook is set. Never raises, so that the command goes on.

    If an event with this `id` waits already, nothing changes.
    """
    if not settings.events.webhook:
        return
    id = id or uuid.uuid4().hex
    whole = {"id": id, "at": datetime.now(UTC).isoformat(timespec="seconds"), **event}
    try:
        if not list(FOLDER.glob(f"*-{id}.json")):
            write(FOLDER / f"{time.time_ns():020}-{id}.json", json.dumps(whole, default=str))
    except OSError as error:
        _say(f"one was not kept, {FOLDER}: {error.strerror}")


def send() -> None:
    """Sends what waits, oldest first, and prints in one line what was not sent; never raises."""
    with suppress(UserError, KeyboardInterrupt):  # the command itself has reported wrong settings
        if not _waiting():
            return
        events, result = load().events, Result()
        if not events.webhook:
            return
        worker = threading.Thread(target=_deliver, args=(events, result), daemon=True)
        worker.start()
        worker.join(MAX_SECONDS)
        why = f"did not answer within {MAX_SECONDS:g} s" if worker.is_alive() else result.why
        if result.dropped:
            _say(f"{result.dropped} dropped: too many, too old, or not readable")
        if why:
            _say(f"{len(_waiting())} wait in {FOLDER} for the next command: the webhook {why}")


@dataclass
class Result:
    """The result of sending."""

    dropped: int = 0
    why: str = ""
    """The last error, to follow `the webhook`; empty once all were accepted."""


def _deliver(events: Events, result: Result) -> None:
    from . import webhook  # slow to import

    def send_all() -> bool:
        """Sends each; returns whether to try again. A refused one does not stop the others."""
        result.why = ""
        for path in _waiting():
            try:
                webhook.post(json.loads(path.read_text()), events)
            except webhook.NotDelivered as error:
                result.why = str(error)
                if error.refused:
                    continue
                return True
            except (ValueError, KeyError, TypeError):  # a file that somebody edited
                result.dropped += 1
            path.unlink(missing_ok=True)
        return False

    try:
        with _locked():
            result.dropped += _prune()
            for attempt in range(TRIES):
                time.sleep(PAUSE if attempt else 0)
                if not send_all():
                    return
    except OSError as error:
        result.why = f"was not called, {FOLDER}: {error.strerror}"


@contextmanager
def _locked() -> Iterator[None]:
    """Waits until no other command sends. A command that is killed frees its lock."""
    import fcntl  # not on every system

    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prune() -> int:
    paths = _waiting()
    cut = f"{time.time_ns() - int(MAX_AGE * 1e9):020}"
    dropped = [
        path for i, path in enumerate(paths) if len(paths) - i > MAX_EVENTS or path.name < cut
    ]
    for path in dropped:
        path.unlink(missing_ok=True)
    return len(dropped)


def _waiting() -> list[Path]:
    """Oldest first."""
    return sorted(FOLDER.glob("[0-9]*.json"))


def _say(text: str) -> None:
    print(f"events: {text}", file=sys.stderr)
