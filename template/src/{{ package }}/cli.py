"""The commands, a verb each; the Makefile calls them. Heavy imports stay inside."""

import json
import os
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import UserError
from .settings import ENVIRONMENTS, Settings, load

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The life cycle of the model, a command a step.",
)
REPORTS = Path("reports")
Environment = Annotated[str, typer.Option("--env", help=" | ".join(ENVIRONMENTS))]


def report(name: str, result: Any) -> None:
    """Keeps a command's result as reports/<name>.json."""
    REPORTS.mkdir(exist_ok=True)
    path = REPORTS / f"{name}.json"
    draft = path.with_suffix(".tmp")
    value = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
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
    from .promote import VERSIONS
    from .registry import Registry

    registry = Registry(settings)
    version = registry.alias(known(environment))
    if not version:
        verb = "make train" if environment == "test" else f"make promote ENV={environment}"
        raise UserError(f"{environment} holds no version; run `{verb}` first")
    return bundle.load(registry.pull(version, VERSIONS))


@app.command()
def data() -> None:
    """Load, validate and store the data as an immutable snapshot."""
    from . import data
    from .progress import step, table

    with step("load and validate"):
        snapshot = data.snapshot(load())
        frame = snapshot.read()
    table(
        "data",
        {
            "source": snapshot.source,
            "rows": f"{len(frame):,}",
            "fingerprint": snapshot.fingerprint,
            "snapshot": snapshot.path,
        },
    )
    report(
        "data",
        {
            "source": snapshot.source,
            "rows": len(frame),
            "fingerprint": snapshot.fingerprint,
            "snapshot": str(snapshot.path),
        },
    )


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
    report("train", trained)
    _examples(held("test", settings))
    table(
        f"{settings.model.name} version {trained.version}",
        {
            "rows": f"{trained.rows['train']:,} to train, {trained.rows['holdout']:,} held out",
            **trained.metrics,
            "data": stored.fingerprint[:12],
            "bundle": trained.bundle,
            "environment": "test",
            "next": "make serve",
        },
    )


def _examples(bundle: Any) -> None:
    """Leaves a request body and a table to try the API and the scoring with."""
    import pandas as pd

    rows = [example["features"] for example in bundle.examples]
    report("example", {"features": rows[0]})
    pd.DataFrame(rows).to_csv(REPORTS / "example.csv", index=False)


@app.command()
def promote(
    env: Environment,
    version: str = "",
    by: Annotated[str, typer.Option(envvar="BY")] = "",
    unattended: bool = False,
) -> None:
    """Move a version into an environment, if its gates let it."""
    from .progress import console
    from .promote import Refused, promote
    from .registry import Registry

    settings = load()
    try:
        move = promote(known(env), settings, Registry(settings), version, by, unattended)
    except Refused as error:
        report(
            "promote",
            {"environment": env, "promoted": False, "gates": [asdict(g) for g in error.gates]},
        )
        raise
    report("promote", {"environment": env, "promoted": bool(move), "move": move and asdict(move)})
    if move is None:
        console.print(f"{env} holds this version already")
        return
    for gate in move.gates.values():
        console.print(f"[green]✓[/] {gate['name']}: {gate['detail']}")
    console.print(
        f"{env} holds version {move.to}" + (f", before {move.back_from}" * bool(move.back_from))
    )


@app.command()
def rollback(env: Environment, by: Annotated[str, typer.Option(envvar="BY")] = "") -> None:
    """Go back to the version an environment held before."""
    from .progress import console
    from .promote import rollback
    from .registry import Registry

    move = rollback(known(env), Registry(load()), by)
    report("rollback", move)
    console.print(f"{env} holds version {move.to}, back from {move.back_from}")


@app.command()
def status() -> None:
    """What each environment holds, every version, and the last moves; repairs half-made ones."""
    from .progress import console
    from .registry import Registry
    from .status import show

    show(Registry(load()), console)


@app.command()
def serve(
    env: Environment = "test",
    port: int | None = None,
    host: str | None = None,
    follow: Annotated[bool, typer.Option(help="whether to fetch what is promoted")] = True,
) -> None:
    """Serve what an environment holds, and follow it as it changes."""
    from .serving.run import serve

    flags = {name: value for name, value in {"port": port, "host": host}.items() if value}
    serve(known(env), load(serving=flags), follow)


@app.command()
def follow(env: Environment = "test", once: bool = False) -> None:
    """Pull what an environment holds, again and again."""
    from .serving.follow import follow

    follow(known(env), load(), once=once)


@app.command()
def score(data: str, out: str, env: Environment = "test") -> None:
    """Predict every row of a file or table."""
    from .progress import console
    from .score import score

    if not data or not out:
        raise UserError(
            "say what to score and where to write it: make score DATA=rows.csv OUT=scores.csv"
        )
    bundle = held(env, load())
    n = score(bundle, data, out)
    report("score", {"rows": n, "out": out, "version": bundle.version, "bundle": bundle.digest})
    console.print(f"{n:,} rows scored by version {bundle.version} into {out}")


@app.command()
def monitor(
    env: Environment = "production",
    exit_code: Annotated[bool, typer.Option(help="0 ok, 10 warn, 20 retrain, 30 unknown")] = False,
) -> None:
    """Compare what is served with what was trained on, and predictions with late labels."""
    from . import monitor
    from .progress import console
    from .registry import Registry
    from .serving.journal import opened

    settings = load()
    with opened(settings.journal.url) as journal:
        verdict = monitor.run(settings, Registry(settings), journal, known(env))
    console.print(f"{verdict.verdict}: {verdict.reason}")
    if exit_code:
        raise typer.Exit({"ok": 0, "warn": 10, "retrain": 20, "unknown": 30}[verdict.verdict])
    if verdict.verdict == "unknown":  # what was not seen is no success
        raise typer.Exit(1)


@app.command("report")
def page() -> None:
    """Draw the last monitoring as a page."""
    from .progress import console
    from .report import write

    console.print(f"{write().resolve()}")


@app.command()
def cycle(force: Annotated[bool, typer.Option(help="retrain whatever is seen")] = False) -> None:
    """Monitor, and where the metric fell for sure: retrain, gate, promote."""
    from .cycle import turn
    from .progress import console
    from .registry import Registry

    settings = load()
    done = turn(settings, Registry(settings), force)
    report("cycle", done)
    console.print(f"{done.verdict}: {done.reason}")
    if done.version:
        held = ", ".join(done.promoted) or "no environment"
        console.print(f"trained version {done.version}, now in {held}")
    if done.refused:
        raise UserError(done.refused)
    if done.verdict == "unknown" and not done.version:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Say what is set up and what is not."""
    from .doctor import examine
    from .progress import console

    if not examine(load(), console):
        raise typer.Exit(1)


def main() -> None:
    """Runs a command; an error meant for a person is one line, without a traceback."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


from . import cli_load  # noqa: E402, F401  adds its commands

__all__ = ["app", "main"]
