"""The releases that a project may be updated from."""

from pathlib import Path

import pytest
from harness import PARTS, ROOT, commit, git, snapshot

SUPPORTED = {"v0.1.0": "7a2554969d457f468a3b31cf0bae7bcd2f3aed29"}
"""Each with its commit, so that a clone without the tags can be given them."""


def history(to: Path, data: bool = False) -> Path:
    """A clone whose tags are real, with the working tree as its newest release, v9.0.0.

    `data` keeps the sample data; else a small stand-in takes its place in the newest release.
    """
    shallow = git(ROOT, "rev-parse", "--is-shallow-repository").strip() == "true"
    if shallow:
        pytest.fail("this clone is shallow: the releases are not in it; fetch with full history")
    git(ROOT, "clone", "--quiet", "--no-local", str(ROOT), str(to))
    for tag, made in SUPPORTED.items():
        if tag not in git(to, "tag").split():
            git(to, "tag", tag, made)
    for part in PARTS:
        git(to, "rm", "--quiet", "-r", part)
    snapshot(to, data)
    commit(to, "v9.0.0")
    return to
