"""The command that writes project/ for a table of one's own."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import say, table
from ..errors import UserError
from ..files import write
from ..settings import load

if TYPE_CHECKING:
    from ..own.table import Plan

app = typer.Typer()
WORDS = {"float": "number", "bool": "true or false", "str": "category", "datetime": "time"}


@app.command()
def own(
    data: str,
    target: str,
    key: Annotated[str, typer.Option(help="the column that names a row")] = "",
    time: Annotated[str, typer.Option(help="the column that says when")] = "",
    yes: Annotated[bool, typer.Option(help="write without asking")] = False,
) -> None:
    """Read a table and write project/ and tests/project/ for it."""
    from ..own import code
    from ..own.table import plan
    from ..training.fitting import classifies

    if not data or not target:
        raise UserError("give DATA and TARGET: make own DATA=customers.csv TARGET=churned")
    settings = load()
    made = plan(data, target, key, time, classifies=classifies())
    if made.labelled < settings.train.min_rows:
        raise UserError(
            f"{data}: {made.labelled:,} rows have a {target}, and `make train` needs "
            f"{settings.train.min_rows} (train.min_rows in settings.toml)"
        )
    written = code.files(made, __package__.partition(".")[0])
    _held_by_git(list(written))
    _show(made, [metric.__name__ for metric in code.METRICS[made.kind]])
    if settings.data.uri and settings.data.uri != data:
        say(f"warning: data.uri is set, and `make train` reads it instead of {data}", "yellow")
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"nothing is written; YES=1 writes {len(written)} files without asking")
        typer.confirm(f"Write {len(written)} files in project/ and tests/project/?", abort=True)
    for path, text in written.items():
        write(Path(path), text)
    code.tidy(list(written))
    say(f"{len(written)} files are written; see `git diff`, then run `make train`")


def _held_by_git(paths: list[str]) -> None:
    """Raises UserError for a file that would be lost."""
    there = [path for path in paths if Path(path).exists()]
    status = ["git", "status", "--porcelain", "--untracked-files=all", "--ignored", "--", *there]
    done = subprocess.run(status, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            "project/ would be written anew, and git does not hold it: git init && git add --all "
            "&& git commit --message Start"
        )
    if done.stdout:
        changed = ", ".join(line[3:] for line in done.stdout.splitlines())
        raise UserError(f"{changed}: has changes that git does not hold; commit or undo them first")


def _show(made: "Plan", metrics: list[str]) -> None:
    """Prints what was decided."""
    say(f"{made.source}: {made.rows:,} rows, {made.labelled:,} of them with a {made.target}")
    columns = {
        column.name: f"left out: {column.out}"
        if column.out
        else f"{WORDS[column.type]}{', may be missing' * column.missing}"
        for column in made.columns
    }
    table("columns", columns)
    decisions = {
        "target": f"{made.target}, {made.about}",
        "metrics": f"{', '.join(metrics)}; the first one decides",
        "key": made.key or "none; KEY= names one",
        "time": made.time.name if made.time else "none, the rows are shuffled; TIME= names one",
    }
    table("decisions", decisions)
