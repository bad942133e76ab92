"""Keeps several processes at one socket; each that ends is started again.

They are forked from a process that has imported what they need and does nothing else, so that they
share the memory of it, and one that is started again answers at once.
"""

import gc
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import UserError
from ...files import write
from ...settings import PACKAGE
from .meters import Meters

logger = logging.getLogger(__name__)
SHARED = [f"{PACKAGE}.serving.run", f"{PACKAGE}.serving.app", f"{PACKAGE}.predictor"]
"""What is imported once for all of them."""
PAUSE = 1.0
"""Seconds before one is started again."""
LOOK = 0.25
"""Seconds between a worker's looks at the processes it stems from. Where the one that forks was
killed, its workers are taken for ended, so they must end."""
LONGEST = 15.0
"""Seconds that the journal's last lines may take in a stop, once requests have ended."""


def keep(count: int, patience: float, work: Callable[..., None], *given: Any) -> None:
    """Runs `work(*given, Meters)` in so many processes, until SIGTERM or SIGINT.

    A stop waits `patience` seconds for their requests, and for the journal. Raises UserError where
    they cannot start at all.
    """
    if os.name != "posix":
        raise UserError("serving.workers: more than one needs Linux or macOS; set it to 1")
    context = get_context("forkserver")
    context.set_forkserver_preload(SHARED)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    workers: list[BaseProcess] = []

    with TemporaryDirectory(prefix="serve-") as folder:
        refusals = [Path(folder, f"{number}.refused") for number in range(count)]

        def start(number: int) -> BaseProcess:
            meters = Meters(Path(folder), number)
            arguments = refusals[number], work, *given, meters
            worker = context.Process(target=_run, args=arguments)
            worker.start()
            return worker

        try:
            workers += map(start, range(count))
            first = set(workers)
            while True:
                wait([worker.sentinel for worker in workers])
                for number, (worker, refusal) in enumerate(zip(workers, refusals, strict=True)):
                    if worker.is_alive():
                        continue
                    why = refusal.read_text() if refusal.exists() else f"code {worker.exitcode}"
                    if refusal.exists() and worker in first:
                        raise UserError(why)
                    refusal.unlink(missing_ok=True)
                    logger.error("worker %d ended (%s) and is started again", number, why)
                    time.sleep(PAUSE)
                    workers[number] = start(number)
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _stop(workers, patience + LONGEST)
            signal.signal(signal.SIGTERM, before)


def _stop(workers: list[BaseProcess], seconds: float) -> None:
    latest = time.monotonic() + seconds
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(max(0.0, latest - time.monotonic()))
        worker.kill()


def _run(refusal: Path, work: Callable[..., None], *given: Any) -> None:
    """What a worker does: ends with the two processes it stems from, even if one was killed.

    Why it cannot start, it writes into `refusal`.
    """
    forked_by, parent = os.getppid(), parent_process()
    assert parent

    def ends_with_parents() -> None:
        while parent.is_alive() and os.getppid() == forked_by:
            parent.join(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    gc.freeze()  # a collection would write to what is shared, and so copy it
    threading.Thread(target=ends_with_parents, name="parent", daemon=True).start()
    try:
        work(*given)
    except UserError as error:
        write(refusal, str(error))
        sys.exit(1)
    finally:
        if not parent.is_alive():  # nobody else would
            shutil.rmtree(refusal.parent, ignore_errors=True)
