"""Keeps several processes at one socket; each that ends is started again.

They are forked from a process that has imported what they need and does nothing else, so that they
share the memory of it, and one that is started again answers at once.
"""

import gc
import logging
import os
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
from ...settings import PACKAGE
from .meters import Meters

logger = logging.getLogger(__name__)
SHARED = [f"{PACKAGE}.serving.run", f"{PACKAGE}.serving.app", f"{PACKAGE}.predictor"]
"""What is imported once for all of them."""
REFUSED = 78
"""The exit code of a worker that told a person what is wrong: it would be so again."""
PAUSE = 1.0
"""Seconds before one is started again."""
LONGEST = 30.0
"""Seconds that the journal's last lines may take in a stop, once requests have ended."""


def keep(count: int, patience: float, work: Callable[..., None], *given: Any) -> None:
    """Runs `work(*given, Meters)` in so many processes, until SIGTERM or SIGINT.

    A stop waits `patience` seconds for their requests, and for the journal. Raises SystemExit where
    one of them cannot start for a reason that it has told.
    """
    context = get_context("forkserver" if os.name == "posix" else "spawn")
    context.set_forkserver_preload(SHARED)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    workers: list[BaseProcess] = []

    def start(number: int) -> BaseProcess:
        worker = context.Process(target=_run, args=(work, *given, Meters(Path(folder), number)))
        worker.start()
        return worker

    with TemporaryDirectory(prefix="serve-") as folder:
        try:
            workers += map(start, range(count))
            while True:
                wait([worker.sentinel for worker in workers])
                for number, worker in enumerate(workers):
                    if worker.is_alive():
                        continue
                    if worker.exitcode == REFUSED:
                        sys.exit(1)
                    logger.error("worker %d ended with %s, starts again", number, worker.exitcode)
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


def _run(work: Callable[..., None], *given: Any) -> None:
    """What a worker does: ends with the process that started it, even if that one was killed."""

    def ends_with_parent() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    gc.freeze()  # a collection would write to what is shared, and so copy it
    threading.Thread(target=ends_with_parent, name="parent", daemon=True).start()
    try:
        work(*given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(REFUSED)
