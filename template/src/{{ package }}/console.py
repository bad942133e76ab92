"""What a person sees while a command works: a spinner and a line a step; nothing in CI."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console(highlight=False)
_shown = console.is_terminal and not os.environ.get("CI")


def say(text: str, style: str | None = None) -> None:
    """Prints a text in one line, and as it is: what it has in brackets is no markup."""
    console.print(text, style=style, markup=False, soft_wrap=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Shows that a step runs, and how long it took."""
    start = time.perf_counter()
    if not _shown:
        yield
        return
    with console.status(name):
        yield
    console.print(f"[green]✓[/] {name} [dim]{time.perf_counter() - start:.1f} s[/]")


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Prints names and values."""
    grid = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        grid.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(grid)
