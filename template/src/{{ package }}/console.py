"""What a person sees while a command works: a spinner and a line a step; nothing in CI."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console(highlight=False, markup=False)
"""What is in brackets is no markup: names of columns and errors hold some."""
_shown = console.is_terminal and not os.environ.get("CI")


def say(text: str, style: str | None = None) -> None:
    """Prints a text in one line, however long it is."""
    console.print(text, style=style, soft_wrap=True)


def mark(sign: str, style: str, text: str) -> None:
    """Prints a coloured sign and a text, in one line."""
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
    mark("✓", "green", f"{name} {time.perf_counter() - start:.1f} s")


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Prints names and values."""
    grid = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        grid.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(grid)
