"""Events that wait for the webhook: a file each in var/events, until the webhook took it.

Commands end soon, so nothing is sent while they work: as it ends, each sends what waits, for some
seconds at most. What is not taken then waits for the next command. A process that is killed loses
nothing, so an event may come twice, with the same id.
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
MOST, OLDEST = 1000, 7 * 86400.0
"""Events that wait, and seconds that one waits, at most; others are dropped, and that is said."""
WAIT = 3.0
"""Seconds that a command lasts longer, at most, where the webhook is slow."""
TRIES, PAUSE = 3, 0.5
"""How often a command tries, and the seconds between: a runner's folder may be gone after it."""


def add(settings: Settings, event: dict[str, Any], id: str = "") -> None:
    """Keeps an event; nothing where no webhook is set. Never raises: what it tells of goes on.

    One of an `id` that waits already is left as it is.
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
    """Sends what waits, in its order, and says in a line what was not sent; never raises."""
    with suppress(UserError, KeyboardInterrupt):  # who has no settings has heard so already
        if not _waiting():
            return
        events, tally = load().events, Tally()
        if not events.webhook:
            return
        worker = threading.Thread(target=_deliver, args=(events, tally), daemon=True)
        worker.start()
        worker.join(WAIT)
        why = f"did not answer within {WAIT:g} s" if worker.is_alive() else tally.why
        if tally.dropped:
            _say(f"{tally.dropped} dropped: too many, too old, or no event")
        if why:
            _say(f"{len(_waiting())} wait in {FOLDER} for the next command: the webhook {why}")


@dataclass
class Tally:
    """What came of sending."""

    dropped: int = 0
    why: str = ""
    """What was wrong the last time; empty once all were taken."""


def _deliver(events: Events, tally: Tally) -> None:
    from . import webhook  # slow to import

    def tried() -> bool:
        """Whether to try again. One that is refused holds up no other."""
        tally.why = ""
        for path in _waiting():
            try:
                webhook.post(json.loads(path.read_text()), events)
            except webhook.NotTaken as error:
                tally.why = str(error)
                if error.refused:
                    continue
                return True
            except (ValueError, KeyError, TypeError):  # somebody wrote into the file
                tally.dropped += 1
            path.unlink(missing_ok=True)
        return False

    try:
        with _alone():
            tally.dropped += _prune()
            for attempt in range(TRIES):
                time.sleep(PAUSE if attempt else 0)
                if not tried():
                    return
    except OSError as error:
        tally.why = f"was not asked, {FOLDER}: {error.strerror}"


@contextmanager
def _alone() -> Iterator[None]:
    """Waits until no other command sends; whatever ends that one, its lock is gone."""
    import fcntl  # not on every system

    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prune() -> int:
    paths = _waiting()
    cut = f"{time.time_ns() - int(OLDEST * 1e9):020}"
    dropped = [path for i, path in enumerate(paths) if len(paths) - i > MOST or path.name < cut]
    for path in dropped:
        path.unlink(missing_ok=True)
    return len(dropped)


def _waiting() -> list[Path]:
    """Oldest first."""
    return sorted(FOLDER.glob("[0-9]*.json"))


def _say(text: str) -> None:
    print(f"events: {text}", file=sys.stderr)
