"""Makes a release: `make release VERSION=1.2.0`.

It refuses a tree that is not clean, not on main, or that any test fails on. The version is written
in one place, the heading of CHANGELOG.md, and in git as the tag that Copier reads. The commit after
it adds both to tests/releases.txt, from which the tests know the releases where there are no tags.
"""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

CHANGELOG = Path("CHANGELOG.md")
RELEASES = Path("tests/releases.txt")
NEXT = "## Unreleased\n"
TODO = "**To do**"
VERSION = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}")


class Refused(Exception):
    """Why there is no release, and what to do."""


def git(*command: str) -> str:
    """What a git command says."""
    done = subprocess.run(["git", *command], check=True, capture_output=True, text=True)
    return done.stdout


def number(version: str) -> tuple[int, ...]:
    """A version as numbers; raises Refused for what is none."""
    if not VERSION.fullmatch(version):
        raise Refused(f"VERSION={version}: is no version; use three numbers, such as 1.2.0")
    return tuple(map(int, version.split(".")))


def release(version: str) -> None:
    """Tests, writes and tags a version; raises Refused, and then nothing has changed."""
    new = number(version)
    if dirty := git("status", "--porcelain"):
        raise Refused(f"the tree is not clean ({dirty.splitlines()[0].strip()}); commit first")
    if (branch := git("branch", "--show-current").strip()) != "main":
        raise Refused(f"this is {branch or 'no branch'}; releases are made on main")
    listed = [line.split()[0] for line in RELEASES.read_text().splitlines()]
    tags = [tag for tag in git("tag", "--list", "v*").split() if VERSION.fullmatch(tag[1:])]
    if lost := [tag for tag in tags if tag not in listed]:
        raise Refused(f"{RELEASES}: {lost[0]} is missing; add `{lost[0]} <its commit>` and commit")
    last = max((number(tag[1:]) for tag in listed), default=(0, 0, 0))
    tested = git("rev-parse", "HEAD")
    if new <= last:
        raise Refused(f"VERSION={version}: must be above {'.'.join(map(str, last))}")
    text = CHANGELOG.read_text()
    _, found, rest = text.partition(NEXT)
    changes = rest.partition("\n## ")[0].strip()
    if not found or not changes:
        raise Refused(f"{CHANGELOG}: nothing stands under {NEXT.strip()!r}; say what changed")
    if new[0] > last[0] and last > (0, 0, 0) and TODO not in changes:
        raise Refused(f"{CHANGELOG}: a major version says what a team must do, under {TODO!r}")
    # make exports VERSION=, and the verbs of the projects that are tested would take it for theirs.
    clean = {k: v for k, v in os.environ.items() if k not in ("VERSION", "MAKEFLAGS", "MAKELEVEL")}
    if subprocess.run(["make", "test-full"], check=False, env=clean).returncode:
        raise Refused("`make test-full` failed; nothing was written")
    if git("rev-parse", "HEAD") != tested or git("status", "--porcelain"):
        raise Refused("the tree is not what was tested any more; nothing was written")
    heading = f"## {version} ({datetime.now(UTC):%Y-%m-%d})\n"
    CHANGELOG.write_text(text.replace(NEXT, heading, 1))
    git("commit", "--quiet", "--message", f"Release {version}", str(CHANGELOG))
    git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    with RELEASES.open("a") as file:
        file.write(f"v{version} {git('rev-parse', 'HEAD')}")
    git("commit", "--quiet", "--message", f"Releases: {version} is one", str(RELEASES))
    print(f"v{version} is made; publish it: git push origin main v{version}")


if __name__ == "__main__":
    try:
        release(*sys.argv[1:2] or [""])
    except Refused as error:
        sys.exit(f"error: {error}")
