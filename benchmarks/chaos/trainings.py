"""Work that is killed at random moments: what is registered is whole, and the next run works."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from frame import Case, Connection, fault, few_rows, post


def whole(case: Case) -> int:
    """How many versions are registered; each must be whole, and what is held be one of them."""
    registry, load = case.registry, case.module("bundle").load
    numbers = registry.numbers()
    for number in numbers:
        load(registry.pull(number, Path("var/pulled")))
    for environment in ("test", "staging", "production"):
        held = registry.alias(environment)
        case.expect(held is None or held in numbers, f"{environment} holds {held}, which is none")
    return len(numbers)


def killed_at_random(case: Case, *arguments: str, **settings: str) -> None:
    """Runs a command to its end, then kills it at random moments, then runs it again."""
    start = time.monotonic()
    done = case.run(*arguments, **settings)
    case.expect(done.returncode == 0, f"{arguments[0]}: {done.stderr.strip()[-300:]}")
    takes, before = time.monotonic() - start, whole(case)
    for _ in case.times(20, 2):
        process = subprocess.Popen(
            [sys.executable, "-m", case.package, *arguments],
            cwd=case.folder, env=case.environment | settings, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(random.uniform(0, takes))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        whole(case)
    done = case.run(*arguments, **settings)
    case.expect(done.returncode == 0, f"{arguments[0]} after a kill: {done.stderr.strip()[-300:]}")
    after = whole(case)
    case.expect(case.run("status").returncode == 0, "make status fails")
    n = len(case.times(20, 2))
    case.notes.append(f"{n} kills within {takes:.0f} s, {after - before} more versions, all whole")


@fault("training killed at random moments")
def train(case: Case) -> None:
    """A version is registered whole or not at all."""
    killed_at_random(case, "train", DATA_URI=str(few_rows(case.folder)))
    case.expect(case.registry.alias("test") == case.registry.numbers()[0], "test holds another")


@fault("the cycle killed at random moments")
def cycle(case: Case) -> None:
    """Labelled rows, a candidate, promotions: each may be cut anywhere."""
    free = {"GATES_LOAD": "false", "GATES_MIN_ROWS": "100", "GATES_MARGIN": "-1",
            "GATES_UNATTENDED": "true", "MONITOR_WINDOW": "100", "CYCLE_ROWS": "1",
            "DATA_URI": str(few_rows(case.folder))}  # fmt: skip
    with case.served(rate=10) as server:
        connection = Connection(server.port)
        for number in range(300):
            row = case.rows[number % len(case.rows)] | {"key": f"k{number}"}
            _, body = connection.ask(post("/predictions", row))
            id = body.split(b'"id":"')[1].split(b'"')[0].decode()
            path = f"/predictions/{id}/outcome"
            request = post(path, {"outcome": number % 3 == 0}).replace(b"POST", b"PUT", 1)
            status, answer = connection.ask(request)
            case.expect(status == 202, f"an outcome was answered {status} {answer!r}")
    case.none_failed(server)
    for environment in ("staging", "production"):
        done = case.run("promote", "--env", environment, **free)
        case.expect(done.returncode == 0, f"promote: {done.stderr.strip()[-300:]}")
    killed_at_random(case, "cycle", "--force", **free)
