"""Work that is stopped halfway."""

from collections.abc import Callable
from typing import Any


def interrupted_at(number: int, real: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """A function in the place of `real` whose call of that number is a Ctrl-C; and a list that gets
    an entry with each call."""
    calls: list[int] = []

    def instead(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return real(*arguments)

    return instead, calls
