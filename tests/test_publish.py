"""`make release`: what it refuses, and what a release is."""

import os
import subprocess
import sys

import pytest
from harness import ROOT, commit, git

LIST = "tests/releases.txt"
MAKE = """#!/bin/sh
echo "$*$VERSION" >>"$LOG"
exit ${FAILS:-0}
"""


@pytest.fixture
def repository(tmp_path):
    """A repository with a changelog and one release, and how to make the next."""
    made = tmp_path / "ciclo"
    made.mkdir()
    (made / "CHANGELOG.md").write_text("# Changes\n\n## Unreleased\n\nMore.\n\n## 1.0.0\n\nAll.\n")
    commit(made, "v1.0.0")
    (made / "tests").mkdir()
    (made / LIST).write_text(f"v1.0.0 {git(made, 'rev-parse', 'HEAD')}")
    commit(made)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "make").write_text(MAKE)
    (tools / "make").chmod(0o755)

    def release(version: str, fails: int = 0) -> tuple[int, str, str]:
        who = {f"GIT_{role}_{part}": "ada" for role in ("AUTHOR", "COMMITTER")
               for part in ("NAME", "EMAIL")}  # fmt: skip
        own = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
        (tmp_path / "log").write_text("")
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/release.py", version], cwd=made,
            env=os.environ | own | who | {"FAILS": str(fails), "VERSION": version},
            capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr, (tmp_path / "log").read_text()

    return made, release


def test_a_release_is_tested_written_once_and_tagged(repository):
    made, release = repository
    code, said, ran = release("1.1.0")
    assert (code, ran) == (0, "test-full\n"), said
    text = (made / "CHANGELOG.md").read_text()
    assert text.count("1.1.0") == 1
    assert "## 1.1.0 (20" in text
    assert "Unreleased" not in text
    (tagged,) = git(made, "rev-list", "--max-count=1", "v1.1.0").split()
    assert (made / LIST).read_text().splitlines()[1] == f"v1.1.0 {tagged}"
    assert git(made, "diff", "--name-only", "v1.1.0", "HEAD").split() == [LIST]
    assert git(made, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("", "is no version"),
        ("v1.1.0", "is no version"),
        ("1.1", "is no version"),
        ("1.0.0", "must be above 1.0.0"),
        ("2.0.0", "says what a team must do"),
    ],
)
def test_a_version_that_cannot_be_is_refused(version, said, repository):
    _, release = repository
    code, told, ran = release(version)
    assert (code, ran) == (1, "")
    assert told.startswith("error: ")
    assert said in told


def test_a_tree_that_is_dirty_untested_or_elsewhere_is_refused(repository):
    made, release = repository
    before = git(made, "rev-parse", "HEAD")
    (made / "new").write_text("x")
    assert "the tree is not clean (?? new)" in release("1.1.0")[1]
    (made / "new").unlink()
    code, said, _ = release("1.1.0", fails=2)
    assert (code, "`make test-full` failed; nothing was written" in said) == (1, True)
    git(made, "switch", "--quiet", "--create", "side")
    assert "this is side; releases are made on main" in release("1.1.0")[1]
    git(made, "switch", "--quiet", "main")
    assert git(made, "rev-parse", "HEAD") == before
    assert git(made, "status", "--porcelain") == ""
    assert git(made, "tag").split() == ["v1.0.0"]


def test_a_release_that_is_not_listed_is_named(repository):
    made, release = repository
    git(made, "tag", "v1.0.1")
    assert f"{LIST}: v1.0.1 is missing; add" in release("1.1.0")[1]


def test_the_last_version_is_known_without_tags(repository):
    made, release = repository
    git(made, "tag", "--delete", "v1.0.0")
    assert "must be above 1.0.0" in release("1.0.0")[1]


def test_a_changelog_that_says_nothing_is_refused(repository):
    made, release = repository
    (made / "CHANGELOG.md").write_text("# Changes\n\n## Unreleased\n\n## 1.0.0\n\nAll.\n")
    commit(made)
    assert "say what changed" in release("1.1.0")[1]
