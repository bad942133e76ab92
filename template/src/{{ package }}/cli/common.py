"""What the commands share: their options, what they leave in reports/, and what they work on."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from ..files import write
from ..settings import ENVIRONMENTS, VERSIONS, Settings

if TYPE_CHECKING:  # a command imports what it needs
    from ..registry.base import Registry

REPORTS = Path("reports")


def _known(environment: str) -> str:
    if environment not in ENVIRONMENTS:
        raise UserError(f"ENV={environment}: is no environment; use {', '.join(ENVIRONMENTS)}")
    return environment


Environment = Annotated[str, typer.Option("--env", help=" | ".join(ENVIRONMENTS), callback=_known)]


def write_report(name: str, result: Any) -> None:
    """Writes a command's result to reports/<name>.json."""
    value = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    write(REPORTS / f"{name}.json", json.dumps(value, indent=2, default=str) + "\n")


def peak_mb() -> int:
    """The most memory that this process held so far, in megabytes; that of workers not counted."""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def bundle_in(environment: str, settings: Settings, version: str = "") -> Any:
    """The bundle of a version, or else of the one that an environment holds."""
    from .. import bundle
    from ..registry.store import connect

    registry = connect(settings)
    if version:  # every registered version is among those of test
        return bundle.load(registry.pull(version, VERSIONS))
    return held_by(environment, registry)


def held_by(environment: str, registry: "Registry") -> Any:
    """The bundle of the version that an environment of a registry holds."""
    from .. import bundle
    from ..registry.base import version_in

    return bundle.load(registry.pull(version_in(environment, registry), VERSIONS, environment))


def trained() -> str:
    """The version that the last `make train` here registered; raises UserError if there is none."""
    try:
        return str(json.loads((REPORTS / "train.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        raise UserError(f"{REPORTS / 'train.json'}: names no version; run `make train`") from None


@contextmanager
def opened_journal(settings: Settings) -> Iterator[Any]:
    """The journal of the settings; raises UserError where none is kept."""
    from ..serving.journal.store import opened

    with opened(settings.journal.url) as journal:
        if journal is None:
            raise UserError("journal.url is empty, so no journal is kept; set JOURNAL_URL")
        yield journal
