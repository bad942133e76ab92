"""The releases that a project may be updated from."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import PARTS, ROOT, commit, git, snapshot
from variants import LATEST, RUNS, choices, covering

FIRST = {"v0.0.1": "7a2554969d457f468a3b31cf0bae7bcd2f3aed29"}
"""Before the first tag: the first commit that had tests."""
TAGS = git(ROOT, "tag", "--list", "v*", "--sort", "version:refname").split()
SUPPORTED = [*FIRST, *(tag for tag in TAGS if tag not in FIRST)]
"""Every release that is supported, oldest first."""
SHALLOW = git(ROOT, "rev-parse", "--is-shallow-repository").strip() == "true"


def offered(tag: str, answers: dict[str, Any]) -> bool:
    """Whether a release knew these answers already."""
    if SHALLOW:  # `history` says so
        return True
    asked = yaml.safe_load(git(ROOT, "show", f"{FIRST.get(tag, tag)}:copier.yml"))
    return all(value in choices(name, asked) for name, value in answers.items())


COVERING: list[dict[str, Any]] = [
    {name: made[name] for name in RUNS}
    for made in covering()
    if tuple(made[name] for name in RUNS) != LATEST
]
CASES = [(tag, answers) for tag in SUPPORTED for answers in COVERING if offered(tag, answers)]
"""The projects that are updated: of each release, those that it could render."""


def history(to: Path, data: bool = False) -> Path:
    """A clone whose tags are real, with the working tree as its newest release, v9.0.0.

    `data` keeps the sample data; else a small stand-in takes its place in the newest release.
    """
    if SHALLOW:
        pytest.fail("this clone is shallow: the releases are not in it; fetch with full history")
    git(ROOT, "clone", "--quiet", "--no-local", str(ROOT), str(to))
    for tag, made in FIRST.items():
        git(to, "tag", tag, made)
    for part in PARTS:
        git(to, "rm", "--quiet", "-r", part)
    snapshot(to, data)
    commit(to, "v9.0.0")
    return to
