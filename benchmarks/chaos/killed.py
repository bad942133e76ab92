"""Processes that are ended while they are under load."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

from frame import FLUSH, WRITE, Case, fault, wait_for


def killing(case: Case, how: signal.Signals) -> list[tuple[float, float]]:
    """Ends the server by a signal and starts it again, some times; what it lost is in `case`.

    Returns when it was away. Requests may fail then, and at no other time.
    """
    with case.served(JOURNAL_FLUSH_SECONDS=str(FLUSH)) as server:
        away = []
        for _ in case.times(10, 2):
            time.sleep(1 + random.uniform(0, 2))
            follower, at = server.follower(), time.monotonic()
            server.stop(how)
            server.start()
            away.append((at, time.monotonic()))
            wait_for(partial(ended, follower), "the follower ends with its server", 30)
        wait_for(lambda: server.load.times[-1][0] > away[-1][1], "an answer")
    # What failed was sent shortly before the signal at the earliest.
    late = [
        why for at, why in server.load.failed
        if not any(start - 1 <= at <= end + 0.5 for start, end in away)
    ]  # fmt: skip
    case.expect(not late, f"a request failed while the server was there: {late[:1]}")
    case.notes.append(f"{len(away)} times, away {sum(b - a for a, b in away) / len(away):.1f} s")
    case.answered = server.load.answered
    return away


def ended(pid: int | None) -> bool:
    """Whether there is no such process."""
    return pid is None or not Path(f"/proc/{pid}").exists()


@fault("SIGTERM of the server")
def terminated(case: Case) -> None:
    """A clean stop answers what is under way and writes all that was answered."""
    killing(case, signal.SIGTERM)
    case.expect(not case.lost, f"{len(case.lost)} rows are not in the journal")


def bounded(case: Case, away: list[tuple[float, float]]) -> None:
    """Breaks where a row is lost that was answered long before what was killed."""
    limit = FLUSH + WRITE
    ages = [
        min((at - case.answered[id] for at, _ in away if at + 1 > case.answered[id]), default=99)
        for id in case.lost
    ]
    case.notes.append(f"oldest loss answered {max(ages, default=0):.2f} s before the kill")
    too_old = [age for age in ages if age > limit]
    case.expect(not too_old, f"{len(too_old)} lost rows were answered over {limit} s before")


@fault("SIGKILL of the server")
def killed(case: Case) -> None:
    """A kill loses what was answered since the last write."""
    bounded(case, killing(case, signal.SIGKILL))


@fault("SIGKILL of one of two workers")
def worker(case: Case) -> None:
    """The other one answers, and the server starts a third."""
    with case.served(SERVING_WORKERS="2", JOURNAL_FLUSH_SECONDS=str(FLUSH)) as server:
        away = []
        for _ in case.times(10, 2) if server.workers() else ():
            wait_for(lambda: len(server.workers()) == 2, "there are two workers")
            time.sleep(2 + random.uniform(0, 2))
            away.append((time.monotonic(), 0.0))
            os.kill(random.choice(server.workers()), signal.SIGKILL)
            time.sleep(2)
    case.notes.append(f"{len(away)} times" if away else "skipped: it has no workers")
    case.answered = server.load.answered
    # What it was answering is not answered: at most a request of each connection.
    failed = len(server.load.failed)
    case.expect(failed <= 4 * len(away), f"{failed} requests failed: {server.load.failed[-1:]}")
    bounded(case, away)


@fault("SIGTERM and SIGKILL of the follower")
def followers(case: Case) -> None:
    """The server answers on, starts another, and that one follows."""
    with case.served() as server:
        for number in case.times(10, 2):
            wait_for(lambda: server.follower() is not None, "another follower")
            time.sleep(random.uniform(0, 2))
            follower = server.follower()
            assert follower
            os.kill(follower, (signal.SIGKILL, signal.SIGTERM)[number % 2])
            server.follows(case.promote())
    case.none_failed(server)
    case.notes.append(f"{number + 1} times, each followed by a promotion")
