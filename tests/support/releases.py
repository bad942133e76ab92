"""The releases that a project may be updated from."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import PARTS, ROOT, commit, git, snapshot
from variants import LATEST, RUNS, choices, covering

RELEASES = dict(line.split() for line in (ROOT / "tests" / "releases.txt").read_text().splitlines())
"""The commit of every release that is supported, oldest first: a clone may come without tags."""
SUPPORTED = list(RELEASES)
SHALLOW = git(ROOT, "rev-parse", "--is-shallow-repository").strip() == "true"


def offered(tag: str, answers: dict[str, Any]) -> bool:
    """Whether a release knew these answers already."""
    if SHALLOW:  # `history` says so
        return True
    asked = yaml.safe_load(git(ROOT, "show", f"{RELEASES[tag]}:copier.yml"))
    return all(value in choices(name, asked) for name, value in answers.items())


COVERING: list[dict[str, Any]] = [
    {name: made[name] for name in RUNS}
    for made in covering()
    if tuple(made[name] for name in RUNS) != LATEST
]
CASES = [(tag, answers) for tag in SUPPORTED for answers in COVERING if offered(tag, answers)]
"""The projects that are updated: of each release, those that it could render."""


def history(to: Path, data: bool = False) -> Path:
    """A clone with every release's tag, and with the working tree as its newest one, v9.0.0.

    `data` keeps the sample data; else a small stand-in takes its place in the newest release.
    """
    if SHALLOW:
        pytest.fail("this clone is shallow: the releases are not in it; fetch with full history")
    git(ROOT, "clone", "--quiet", "--no-local", str(ROOT), str(to))
    for tag, made in RELEASES.items():
        git(to, "tag", "--force", tag, made)
    for part in PARTS:
        git(to, "rm", "--quiet", "-r", part)
    snapshot(to, data)
    commit(to, "v9.0.0")
    return to
