"""Says what is set up and what is not, and what to do about it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from .errors import UserError, shown
from .settings import Settings


def examine(settings: Settings, console: Console) -> bool:
    """Prints a line for each thing; returns whether all that is needed is there."""
    well = True
    for name, needed, check in _checks(settings):
        try:
            console.print(f"[green]✓[/] {name}: {check()}")
        except UserError as error:
            well &= not needed
            console.print(f"{'[red]✗[/]' if needed else '[yellow]-[/]'} {name}: {error}")
    return well


def _checks(settings: Settings) -> Iterator[tuple[str, bool, Callable[[], str]]]:
    yield "interpreter", True, _interpreter
    yield "lock", True, _lock
    yield "data", True, lambda: _data(settings)
    yield "registry", True, lambda: _registry(settings)
    yield "journal", True, lambda: _journal(settings)
    yield "git", False, _git
    yield "engine", False, _engine
    yield "secrets", False, _secrets


def _interpreter() -> str:
    wanted = Path(".python-version")
    here = ".".join(map(str, sys.version_info[:2]))
    if wanted.exists() and wanted.read_text().strip() != here:
        return f"Python {here} ({wanted} and the image say {wanted.read_text().strip()})"
    return f"Python {sys.version.split()[0]} at {sys.executable}"


def _lock() -> str:
    lock = Path("locks/dev.txt")
    if not lock.exists():
        raise UserError("locks/dev.txt is missing; run `make lock` and commit it")
    return f"{lock}, {lock.read_text().count('==')} packages"


def _data(settings: Settings) -> str:
    from .project.data import SOURCE, load

    uri = settings.data.uri or SOURCE
    return f"{shown(uri)}, {len(load(uri)):,} rows"


def _registry(settings: Settings) -> str:
    from .registry import Registry

    versions = Registry(settings).versions()
    where = (
        shown(os.environ.get("MLFLOW_TRACKING_URI", ""))
        or "var/mlflow.db (set MLFLOW_TRACKING_URI for a server)"
    )
    return f"{where}, {len(versions)} versions of {settings.model.name}"


def _journal(settings: Settings) -> str:
    if not settings.journal.url:
        raise UserError("journal.url is empty: nothing can be watched")
    from .serving.journal import opened

    with opened(settings.journal.url) as journal:
        labelled = journal.count(labelled=True) if journal else 0
    return f"{shown(settings.journal.url)}, {labelled:,} labelled rows"


def _git() -> str:
    from .provenance import git

    commit, dirty = git()
    if commit == "none":
        raise UserError(
            "no commit yet: git init -b main, git add ., git commit; models then name their code"
        )
    return commit[:12] + (", with changes" if dirty else "")


def _engine() -> str:
    name = os.environ.get("ENGINE", "docker")
    if not shutil.which(name):
        raise UserError(
            f"{name} is not installed; `make image` and `make up` need it (ENGINE=podman)"
        )
    asked = subprocess.run(
        [name, "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True
    )
    if asked.returncode:
        raise UserError(f"{name} does not answer; start it, or set DOCKER_HOST")
    return f"{name} {asked.stdout.strip()}"


def _secrets() -> str:
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    found = [name for name in names if os.environ.get(name)]
    if not found:
        raise UserError("none of MLflow's credentials is set; a server without log-in needs none")
    return ", ".join(found)
