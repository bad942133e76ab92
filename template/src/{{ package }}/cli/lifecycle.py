"""The commands, a verb each; the Makefile calls them. Heavy imports stay inside."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import UserError, shown
from .progress import console
from .settings import ENVIRONMENTS, VERSIONS, Settings, load

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The life cycle of the model, a command a step.",
)
REPORTS = Path("reports")
EXIT = {"ok": 0, "new": 0, "warn": 10, "retrain": 20, "unknown": 30}
Environment = Annotated[str, typer.Option("--env", help=" | ".join(ENVIRONMENTS))]
By = Annotated[str, typer.Option(help="who asks for it", envvar="BY")]


def keep(name: str, result: Any) -> None:
    """Keeps a command's result as reports/<name>.json."""
    REPORTS.mkdir(exist_ok=True)
    path = REPORTS / f"{name}.json"
    value = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(value, indent=2, default=str) + "\n")
    draft.replace(path)


def known(environment: str) -> str:
    """Raises UserError for an environment that is not there."""
    if environment not in ENVIRONMENTS:
        raise UserError(f"ENV={environment}: is no environment; use {', '.join(ENVIRONMENTS)}")
    return environment


def held(environment: str, settings: Settings) -> Any:
    """The bundle of the version that an environment holds."""
    from . import bundle
    from .registry import Registry

    registry = Registry(settings)
    version = registry.holder(known(environment))
    return bundle.load(registry.pull(version, VERSIONS, environment))


@contextmanager
def kept_journal(settings: Settings) -> Iterator[Any]:
    """The journal of the settings; raises UserError where none is kept."""
    from .serving.journal import opened

    with opened(settings.journal.url) as journal:
        if journal is None:
            raise UserError("journal.url is empty, so no journal is kept; set JOURNAL_URL")
        yield journal


@app.command()
def data() -> None:
    """Load, validate and store the data as an immutable snapshot."""
    from . import data
    from .progress import step, table

    with step("load and validate"):
        snapshot = data.snapshot(load())
    made = {
        "source": snapshot.source,
        **snapshot.counts,
        "rows": len(snapshot.read()),
        "fingerprint": snapshot.fingerprint,
        "snapshot": str(snapshot.path),
    }
    keep("data", made)
    table("data", made)


@app.command()
def train(
    snapshot: Annotated[str, typer.Option(help="fingerprint of an earlier snapshot")] = "",
) -> None:
    """Train on the data as it is now, register the version, and make it `test`."""
    from . import data
    from .progress import step, table
    from .promote import promote
    from .registry import Registry
    from .train import train

    settings = load()
    with step("load and validate"):
        stored = data.find(snapshot) if snapshot else data.snapshot(settings)
    registry = Registry(settings)
    trained = train(settings, registry, stored)
    with step("promote to test"):
        promote("test", settings, registry, version=trained.version)
    keep("train", trained)
    examples(held("test", settings))
    table(
        f"{settings.model.name} version {trained.version}",
        {
            "rows": f"{trained.rows['train']:,}; {trained.rows['judged']:,} judged first",
            **trained.metrics,
            "data": stored.fingerprint[:12],
            "bundle": trained.bundle,
            "environment": "test",
            "next": "make serve",
        },
    )


def examples(bundle: Any) -> None:
    """Leaves a request body and a table to try the API and the scoring with."""
    import pandas as pd

    rows = [example["features"] for example in bundle.examples]
    keep("example", {"features": rows[0]})
    pd.DataFrame(rows).to_csv(REPORTS / "example.csv", index=False)


@app.command()
def promote(env: Environment, version: str = "", by: By = "", unattended: bool = False) -> None:
    """Move a version into an environment, if its gates let it."""
    from .promote import Refused, promote
    from .registry import Registry

    settings = load()
    try:
        move = promote(known(env), settings, Registry(settings), version, by, unattended)
    except Refused as error:
        gates = [asdict(gate) for gate in error.gates]
        keep("promote", {"environment": env, "promoted": False, "gates": gates})
        raise
    keep("promote", {"environment": env, "promoted": bool(move), "move": move and asdict(move)})
    if move is None:
        console.print(f"{env} holds this version already")
        return
    for gate in move.gates.values():
        console.print(f"[green]✓[/] {gate['name']}: {gate['detail']}")
    before = f", before that {move.back_from}" if move.back_from else ""
    console.print(f"{env} holds version {move.to}{before}")


@app.command()
def rollback(env: Environment, by: By = "") -> None:
    """Go back to the version an environment held before."""
    from .history import rollback
    from .registry import Registry

    move = rollback(known(env), Registry(load()), by)
    keep("rollback", move)
    console.print(f"{env} holds version {move.to}, back from {move.back_from}")


@app.command()
def status() -> None:
    """What each environment holds, every version, and the last moves; repairs half-made ones."""
    from .registry import Registry
    from .status import show

    show(Registry(load()), console)


@app.command()
def score(
    data: str,
    out: str,
    env: Environment = "test",
    journal: Annotated[bool, typer.Option(help="keep the rows in the journal, too")] = False,
) -> None:
    """Predict every row of a file or table."""
    from .score import score

    if not data or not out:
        raise UserError("say what and where to: make score DATA=rows.csv OUT=scores.csv")
    settings = load()
    bundle = held(env, settings)
    with kept_journal(settings) if journal else nullcontext() as kept:
        rows = score(bundle, data, out, kept, env)
    out = shown(out)
    keep("score", {"rows": rows, "out": out, "version": bundle.version, "bundle": bundle.digest})
    console.print(f"{rows:,} rows scored by version {bundle.version} into {out}")


@app.command()
def outcomes(
    data: str,
    env: Environment = "test",
    new: Annotated[bool, typer.Option(help="take classes that the model does not know")] = False,
) -> None:
    """Set the late labels of a file or table in the journal."""
    from .outcomes import refusal, tell

    if not data:
        raise UserError("say where the labels are: make outcomes DATA=labels.csv")
    settings = load()
    classes = held(env, settings).manifest.classes
    with kept_journal(settings) as journal:
        told = tell(journal, classes, data, new)
    keep("outcomes", told)
    if told.refused:
        raise UserError(refusal(told, data))
    console.print(
        f"{told.labels:,} labels written: {told.matched:,} of predictions that are there, "
        f"{told.early:,} early; {told.replaced:,} replace an earlier one; "
        f"{told.without:,} rows have none yet",
        soft_wrap=True,
    )


@app.command()
def monitor(
    env: Environment = "production",
    exit_code: Annotated[bool, typer.Option(help=str(EXIT)[1:-1].replace("'", ""))] = False,
) -> None:
    """Compare what is served with what was trained on, and predictions with late labels."""
    from . import monitor
    from .registry import Registry
    from .serving.journal import opened

    settings = load()
    with opened(settings.journal.url) as journal:
        verdict = monitor.run(settings, Registry(settings), journal, known(env))
    console.print(f"{verdict.verdict}: {verdict.reason}")
    if exit_code:
        raise typer.Exit(EXIT[verdict.verdict])
    if verdict.verdict == "unknown":  # what was not seen is no success
        raise typer.Exit(1)


@app.command()
def report() -> None:
    """Draw the last monitoring as a page."""
    from .report import write

    console.print(str(write().resolve()))


@app.command()
def show(what: str) -> None:
    """Print a value of reports/*.json, named as in train.version, the way pipelines take it."""
    name, _, key = what.partition(".")
    path = REPORTS / f"{name}.json"
    if not key or not path.exists():
        raise UserError(f"WHAT={what}: is no value of a report; say WHAT=train.version")
    value = json.loads(path.read_text()).get(key) or ""
    typer.echo(f"{key}={' '.join(value) if isinstance(value, list) else value}")


@app.command()
def cycle(force: Annotated[bool, typer.Option(help="train whatever is seen")] = False) -> None:
    """Monitor, compare a candidate with what is served, and promote what is better."""
    from .cycle import turn
    from .registry import Registry

    settings = load()
    done = turn(settings, Registry(settings), force)
    keep("cycle", done)
    console.print(f"{done.verdict}: {done.reason}")
    if done.version:
        where = ", ".join(done.promoted) or "no environment"
        console.print(f"trained version {done.version}, now in {where}")
    if done.back and done.promoted:
        console.print(f"version {done.back} is back in {', '.join(done.promoted)}")
    if done.refused:
        raise UserError(done.refused)
    if done.verdict == "unknown" and not done.version:
        raise typer.Exit(1)


def main() -> None:
    """Runs a command; an error meant for a person is one line, without a traceback."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:  # no file of a person's: ours to find
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)


from . import cli_serving  # noqa: E402, F401  adds its commands

__all__ = ["app", "main"]
