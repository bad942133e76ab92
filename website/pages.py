"""Builds the documentation as a site in build/site, with the explorer; every link is checked.

The pages are those of docs/ and of the repository's root, and a reference that is made here.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import explore
import reference
from harness import fast

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "website"
FRONT = {"README.md": "index.md"} | {
    name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
}
"""The pages at the repository's root, and where they are in the site."""


def gather(to: Path, known: dict[str, Any]) -> None:
    """All that the site is made of."""
    shutil.copytree(ROOT / "docs", to)
    (to / "decisions" / "README.md").rename(to / "decisions" / "index.md")
    for name, place in FRONT.items():
        shutil.copy(ROOT / name, to / place)
    for page in to.rglob("*.md"):
        page.write_text(moved(page.read_text()))
    project = explore.texts(known)
    (to / "commands.md").write_text(reference.commands(project))
    (to / "settings.md").write_text(reference.settings(project))
    for name in ("extra.css", "iframe-worker.js"):
        shutil.copy(HERE / name, to)
    shutil.copytree(HERE / "explorer", to / "explorer")
    explore.write(known, to / "explorer" / "known.js")


def moved(text: str) -> str:
    """A page with its links as they are in the site, where docs/ and the root are one folder."""
    text = re.sub(r"\]\((docs/|\.\./(?=[A-Z]+\.md))", "](", text)
    return text.replace("decisions/README.md", "decisions/index.md")


def build(to: Path, known: dict[str, Any]) -> Path:
    """Makes the site in a folder, and returns where; a broken link ends it."""
    for old in ("pages", "site"):
        shutil.rmtree(to / old, ignore_errors=True)
    to.mkdir(parents=True, exist_ok=True)
    gather(to / "pages", known)
    shutil.copy(HERE / "zensical.toml", to)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=to, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: the site is not sound:\n{done.stdout}{done.stderr}")
    for page in (to / "site" / "pt").glob("*.html"):  # a screen reader reads it by its language
        page.write_text(page.read_text().replace('<html lang="en"', '<html lang="pt-BR"'))
    return to / "site"


if __name__ == "__main__":
    with fast():
        known = explore.known(explore.covering())
    print(build(ROOT / "build", known) / "index.html")
