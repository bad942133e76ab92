"""Says what is set up and what is not, and what to do about it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from ..console import status_line
from ..errors import UserError, shown
from ..settings import ENVIRONMENTS, Settings, load

app = typer.Typer()
DEPLOY = Path("scripts/deploy.py")
"""What knows the cluster, where the project is deployed to one."""


@app.command()
def doctor() -> None:
    """Say what is set up and what is not."""
    if not examine(load()):
        raise typer.Exit(1)


def examine(settings: Settings) -> bool:
    """Prints a line for each thing; returns whether all that is needed is there."""
    well = True
    for name, needed, check in _checks(settings):
        try:
            status_line("✓", "green", f"{name}: {check()}")
        except UserError as error:
            well &= not needed
            status_line(*(("✗", "red") if needed else ("-", "yellow")), f"{name}: {error}")
    return well


def _checks(settings: Settings) -> Iterator[tuple[str, bool, Callable[[], str]]]:
    yield "interpreter", True, _interpreter
    yield "lock", True, _lock
    yield "data", True, lambda: _data(settings)
    yield "registry", True, lambda: _registry(settings)
    yield "journal", True, lambda: _journal(settings)
    yield "signatures", True, _signatures
    yield "git", False, _git
    yield "engine", False, _engine
    yield "secrets", False, _secrets
    yield "compose", False, _compose
    if DEPLOY.exists():
        yield "cluster", False, _cluster


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
    from ..project.data import SOURCE, load

    uri = settings.data.uri or SOURCE
    return f"{shown(uri)}, {len(load(uri)):,} rows"


def _registry(settings: Settings) -> str:
    from ..registry.store import connect

    registry = connect(settings)
    return f"{registry.address}, {len(registry.versions())} versions of {registry.name}"


def _journal(settings: Settings) -> str:
    if not settings.journal.url:
        raise UserError("journal.url is empty: the monitor has no data")
    from ..serving.journal.store import opened

    with opened(settings.journal.url) as journal:
        labelled = journal.count(labelled=True) if journal else 0
    return f"{shown(settings.journal.url)}, {labelled:,} labelled rows"


def _signatures() -> str:
    from ..registry import signature

    signs, known = signature.signer(), len(signature.trusted())
    signed = "what is trained is signed" if signs else f"{signature.SIGNING} is not set"
    asked = f"{known} public keys are trusted" if known else f"{signature.TRUSTED} is not set"
    return f"{signed}, {asked}"


def _git() -> str:
    from ..training.provenance import git

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
    answer = subprocess.run(
        [name, "info", "--format", "{{.ServerVersion}}"],
        check=False,
        capture_output=True,
        text=True,
    )
    if answer.returncode:
        raise UserError(f"{name} does not answer; start it, or set DOCKER_HOST")
    return f"{name} {answer.stdout.strip()}"


def _secrets() -> str:
    from ..registry.store import credentials

    return credentials()


def _compose() -> str:
    own, example = Path(".env"), Path(".env.example")
    if not own.exists():
        raise UserError("no .env yet: `make up` creates it from .env.example")
    set_here = _names(own)
    if lacks := [name for name in _names(example) if name not in set_here]:
        raise UserError(f"{own} lacks {', '.join(lacks)}; copy them from {example}")
    return f"{own} sets every variable of {example}"


def _cluster() -> str:
    found = [
        subprocess.run(
            [sys.executable, DEPLOY, environment, "--check"],
            check=False,
            capture_output=True,
            text=True,
        )
        for environment in ENVIRONMENTS
    ]
    said = [(f.stdout + f.stderr).strip().removeprefix("error: ") for f in found]
    if any(f.returncode for f in found):
        raise UserError("; ".join(dict.fromkeys(said)))
    return "; ".join(said)


def _names(dotenv: Path) -> list[str]:
    lines = dotenv.read_text().splitlines() if dotenv.exists() else []
    return [line.partition("=")[0].strip() for line in lines if line[:1] not in ("", "#")]
