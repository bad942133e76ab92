"""What a person sees while a command works: a spinner and a line a step; nothing in CI."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

console = Console(highlight=False, markup=False)
"""Text in brackets is printed as it is, since names of columns and errors may contain it."""
_shown = console.is_terminal and not os.environ.get("CI")


def say(text: str, style: str | None = None) -> None:
    """Prints a text in one line, however long it is."""
    console.print(text, style=style, soft_wrap=True)


def status_line(sign: str, style: str, text: str) -> None:
    """Prints a coloured sign, such as ✓, and a text in one line."""
    console.print(Text.assemble((sign, style), " ", text), soft_wrap=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Shows that a step runs, and how long it took."""
    start = time.perf_counter()
    if not _shown:
        yield
        return
    with console.status(name):
        yield
    status_line("✓", "green", f"{name} {time.perf_counter() - start:.1f} s")


@contextmanager
def progress(name: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Shows a bar; gives what to call with how many more are done. A `total` may not be known."""
    if not _shown:
        yield lambda _: None
        return
    columns = name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=total, completed=done)
        yield lambda more: bar.advance(task, more)


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Prints names and values."""
    grid = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        grid.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(grid)
