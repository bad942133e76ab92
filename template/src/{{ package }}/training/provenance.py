"""Where a model comes from: the commit, the lock, the packages, the machine."""

import getpass
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..files import sha256
from ..settings import PACKAGE

LOCK = Path("locks/dev.txt")
PROJECT = Path("pyproject.toml")


def git() -> tuple[str, bool]:
    """The commit, or "none" where there is no repository, and whether files differ from it.

    Changes in locks/ do not count, since the manifest keeps the digest of the lock.
    """

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain", "--", ":/", ":!locks"))
    except (OSError, subprocess.CalledProcessError):
        return "none", False


def user() -> str:
    """The account's name, or "uid 54321" where it has none, as in a container of somebody's."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # until Python 3.12 it was one of the others
        return f"uid {os.getuid()}"


def lock(path: Path = LOCK) -> str:
    """Digest of the locked environment, or "none"."""
    return sha256(path)[:12] if path.exists() else "none"


def machine() -> str:
    """The kind of machine, such as "Linux x86_64"."""
    return f"{platform.system()} {platform.machine()}"


def requirements() -> list[str]:
    """What loads the version elsewhere, at the versions that are here."""
    found = []
    try:
        wanted = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    names = [re.split(r"[^\w.-]", w)[0] for w in wanted if "extra ==" not in w]
    for name in [*names, "pandas", "pyarrow"]:
        with suppress(importlib.metadata.PackageNotFoundError):  # for another platform
            found.append(f"{name}=={importlib.metadata.version(name)}")
    return found


def not_served(modules: Iterable[str]) -> list[str]:
    """The packages of these modules that `dependencies` in pyproject.toml does not bring."""
    if not PROJECT.exists():
        return []
    wanted = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    served: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        name = _plain(re.split(r"[^\w.-]", requirement)[0])
        if "extra ==" in requirement or name in served:
            continue
        served.add(name)
        with suppress(importlib.metadata.PackageNotFoundError):  # for another platform
            wanted += importlib.metadata.requires(name) or []
    tops = {module.partition(".")[0] for module in modules} - {PACKAGE, *sys.stdlib_module_names}
    brought = importlib.metadata.packages_distributions()
    return sorted(top for top in tops if not served & {_plain(p) for p in brought.get(top, ())})


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
