"""Gathers the rows of one turn of the event loop, so that they share one run of the model."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

MOST = 128
"""Rows in one run: a longer one would keep the first of them waiting."""


class Gather:
    """`run` maps rows to as many results; a result that is an exception is raised for its row."""

    def __init__(self, run: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self.run = run
        self._rows: list[Any] = []
        self._waiting: list[asyncio.Future[Any]] = []

    def __call__(self, row: Any) -> asyncio.Future[Any]:
        """The result of one row, once this turn of the event loop is over."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not self._rows:
            loop.call_soon(self._go)
        self._rows.append(row)
        self._waiting.append(future)
        if len(self._rows) >= MOST:
            self._go()
        return future

    def _go(self) -> None:
        rows, waiting = self._rows, self._waiting
        if not rows:
            return
        self._rows, self._waiting = [], []
        try:
            results = self.run(rows)
        except Exception as error:
            results = [error] * len(rows)
        for future, result in zip(waiting, results, strict=True):
            if future.done():  # its client went away
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
