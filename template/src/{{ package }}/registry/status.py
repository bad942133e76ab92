"""What each environment holds, every version, and how they came there."""

from datetime import datetime

from rich.console import Console
from rich.table import Table

from ..errors import NotPermitted
from ..settings import ENVIRONMENTS
from .base import Move, Registry, Version
from .history import OnMove, do_nothing, repair, rolled_back


def show(
    registry: Registry, console: Console, moves: int = 10, on_move: OnMove = do_nothing
) -> None:
    """Prints the versions and the last moves; repairs moves that were killed half way."""
    for environment in ENVIRONMENTS:
        try:
            for line in repair(environment, registry, on_move):
                console.print(f"repaired {line}", style="yellow", soft_wrap=True)
        except NotPermitted as error:  # who may only read still sees what there is
            said = f"not repaired {environment}: {error}"
            console.print(said, style="yellow", soft_wrap=True)
    versions = registry.versions()
    if not versions:
        console.print(f"{registry.name}: no version yet; run `make train`")
        return
    metrics = [n for n in versions[0].tags if n.startswith("metric.")]
    names = [m.removeprefix("metric.") for m in metrics]
    table = _table(registry.name, "version", "holds it", "made", *names, "data", "commit", "image")
    for v in versions:
        table.add_row(
            v.version,
            " ".join(e for e in ENVIRONMENTS if e in v.environments),
            _time(v.created),
            *[f"{float(v.tags[m]):.4f}" if m in v.tags else "" for m in metrics],
            v.tags.get("data", "")[:8],
            v.tags.get("commit", "")[:8],
            v.tags.get("image.model", "").rpartition(":")[2][:8],
        )
    console.print(table)
    history = _table("moves", "when", "move", "version", "by", "why")
    made = sorted((m for e in ENVIRONMENTS for m in registry.moves(e)), key=lambda m: m.at)
    for m in made[-moves:]:
        why = next((g["detail"] for n, g in m.gates.items() if n not in ("bundle", "size")), "")
        history.add_row(
            _time(m.at), f"{m.kind} {m.environment}", f"{m.back_from or '-'} to {m.to}", m.by, why
        )
    console.print(history)
    if version := _waiting(versions, made):
        console.print(
            f"version {version} waits in staging for a person: `make promote ENV=production`"
        )


def _waiting(versions: list[Version], moves: list[Move]) -> str:
    """What staging holds, if production holds an older one or none and nobody went back from it."""
    back = rolled_back([move for move in moves if move.environment == "production"])
    held = {environment: v.version for v in versions for environment in v.environments}
    staging = held.get("staging", "-1")
    newer = int(staging) > int(held.get("production", "-1"))
    return staging if newer and staging not in back else ""


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%m-%d %H:%M")
