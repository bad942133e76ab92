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


def test_what_is_in_brackets_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """A column may be called so, and an error may name it."""
    name = "a[/b] [red]"
    console.say(f"{name} moved")
    console.status_line("-", "yellow", name)
    console.table(name, {name: name})
    said = capsys.readouterr().out
    assert said.count(name) == 5
    assert f"- {name}\n" in said


def test_the_closing_table_is_always_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=told, width=80))
    console.table("flights version 1", {"roc_auc": 0.69281, "next": "make serve"})
    for text in ("flights version 1", "0.6928", "make serve"):
        assert text in told.getvalue()
