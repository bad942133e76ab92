"""Gathers the rows that come together, so that they share one run of the model.

Requests that wait at the sockets are read over several turns of the event loop, so the gathering
goes on as long as each turn brings more of them. With what one turn brings, batches were half as
large and the slowest requests half again as slow, since the connections fell into groups that
waited for each other. Nothing is waited for: a lone row is run two turns later, microseconds.

A slow run is given to a thread, so that the event loop goes on; what comes meanwhile is gathered
for the next one.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

MOST = 128
"""Rows in one run: a longer one would keep the first of them waiting."""
TURNS = 6
"""Turns in one gathering, at most, for the same reason."""


class Gather:
    """`run` maps rows to as many results; a result that is an exception is raised for its row.

    `slow` says whether the next run takes so long that it needs a thread.
    """

    def __init__(
        self, run: Callable[[Sequence[Any]], Sequence[Any]], slow: Callable[[], bool]
    ) -> None:
        self.run, self.slow = run, slow
        self._thread = ThreadPoolExecutor(1, "model")  # starts with the first slow run
        self._busy = False
        self._rows: list[Any] = []
        self._waiting: list[asyncio.Future[Any]] = []

    def __call__(self, row: Any) -> asyncio.Future[Any]:
        """The result of one row, once no more come with it."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._rows.append(row)
        self._waiting.append(future)
        if len(self._rows) == 1 and not self._busy:
            loop.call_soon(self._turn, loop, 0, TURNS)
        return future

    def _turn(self, loop: asyncio.AbstractEventLoop, before: int, left: int) -> None:
        rows = len(self._rows)
        if before < rows < MOST and left:
            loop.call_soon(self._turn, loop, rows, left - 1)
        else:
            self._go(loop)

    def _go(self, loop: asyncio.AbstractEventLoop) -> None:
        rows, waiting = self._rows[:MOST], self._waiting[:MOST]
        self._rows, self._waiting = self._rows[MOST:], self._waiting[MOST:]
        if self.slow():
            self._busy = True
            running = loop.run_in_executor(self._thread, self._results, rows)
            running.add_done_callback(partial(self._done, loop, waiting))
            return
        if self._rows:  # others come first: answers, and requests about the process
            loop.call_soon(self._go, loop)
        self._give(waiting, self._results(rows))

    def _done(
        self,
        loop: asyncio.AbstractEventLoop,
        waiting: Sequence[asyncio.Future[Any]],
        running: asyncio.Future[Sequence[Any]],
    ) -> None:
        self._busy = False
        if self._rows:
            loop.call_soon(self._go, loop)
        self._give(waiting, running.result())

    def _results(self, rows: Sequence[Any]) -> Sequence[Any]:
        try:
            return self.run(rows)
        except Exception as error:
            return [error] * len(rows)

    def _give(self, waiting: Sequence[asyncio.Future[Any]], results: Sequence[Any]) -> None:
        for future, result in zip(waiting, results, strict=True):
            if future.done():  # its client went away
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
