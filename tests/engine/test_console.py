"""What a person sees, and what CI does not."""

import io

import pytest
from rich.console import Console

from flight_delays import console


@pytest.mark.parametrize("shown", [True, False])
def test_a_step_is_shown_to_people_and_quiet_elsewhere(
    monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=told, force_terminal=shown))
    monkeypatch.setattr(console, "_shown", shown)
    with console.step("fit"):
        pass
    assert ("fit" in told.getvalue()) == shown


def test_the_closing_table_is_always_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=told, width=80))
    console.table("flights version 1", {"roc_auc": 0.69281, "next": "make serve"})
    for text in ("flights version 1", "0.6928", "make serve"):
        assert text in told.getvalue()
