"""Work that is killed at random moments: what is registered is whole, and the next run works."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from frame import Case, fault, few_rows


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
    # On a busy machine the next one may take longer: some must be cut near their end, too.
    takes, before = 1.5 * (time.monotonic() - start), whole(case)
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
        case.labelled(server, 300)
    case.none_failed(server)
    for environment in ("staging", "production"):
        done = case.run("promote", "--env", environment, **free)
        case.expect(done.returncode == 0, f"promote: {done.stderr.strip()[-300:]}")
    killed_at_random(case, "cycle", "--force", **free)


@fault("two trainers, two promoters and a rollback at once")
def at_once(case: Case) -> None:
    """All move `test`: each says what it did in a line, and what is served is the last one's."""
    few, (one, other) = str(few_rows(case.folder)), case.answers
    before, overtaken = whole(case), 0
    rounds = case.times(5, 1)
    with case.served(rate=20) as server:
        for number in rounds:
            known = len(case.registry.moves("test"))
            trainings = [
                started(case, "train", TRAIN_SEED=str(2 * number + i), DATA_URI=few) for i in (2, 3)
            ]
            time.sleep(random.uniform(0, 10))
            moves = [
                started(case, *words, "--env", "test")
                for words in (("promote", "--version", one), ("rollback",),
                              ("promote", "--version", other))
            ]  # fmt: skip
            for process in (*trainings, *moves):
                said = process.communicate(timeout=300)[1]
                fine = process.returncode == 0 or said.startswith("error: ")
                case.expect(fine and "Traceback" not in said, f"{process.args!r}: {said[-300:]}")
                overtaken += process.returncode != 0
            made, held = case.registry.moves("test"), case.registry.alias("test")
            times = [move.at for move in made]
            case.expect(times == sorted({*times}), "two moves have one place in the history")
            missing = {*case.registry.numbers()[:2]} - {move.to for move in made[known:]}
            case.expect(not missing, f"no move to {missing} is in the history")
            case.expect(held == made[-1].to, f"test holds {held}, and {made[-1].to} came last")
            begun = case.registry.moves("test", closed=False)
            case.expect(not begun, f"moves neither made nor given up: {begun}")
            server.follows(held)
    case.none_failed(server)
    more = whole(case) - before
    case.expect(more == 2 * len(rounds), f"{more} more versions")
    case.notes.append(
        f"{len(rounds)} rounds, {more} more versions, {overtaken} told it was overtaken"
    )


def started(case: Case, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """A command of the package, as it begins."""
    return subprocess.Popen(
        [sys.executable, "-m", case.package, *arguments],
        cwd=case.folder, env=case.environment | settings, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
