"""The commands of the cycle, from data to a new version in production."""

import json
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import console, say, status_line, step, table
from ..errors import UserError, shown
from ..settings import Settings, load
from .common import (
    REPORTS,
    Environment,
    bundle_in,
    held_by,
    opened_journal,
    peak_mb,
    write_report,
)

if TYPE_CHECKING:  # a command imports what it needs
    from ..registry.base import Registry
    from ..training.snapshots import Snapshot

app = typer.Typer()
EXIT = {"ok": 0, "new": 0, "warn": 10, "retrain": 20, "unknown": 30}
By = Annotated[str, typer.Option(help="who asks for it", envvar="BY")]


@app.command()
def data() -> None:
    """Load, validate and store the data as an immutable snapshot."""
    from ..training import snapshots

    with step("load and validate"):
        snapshot = snapshots.snapshot(load())
    made = {
        "source": snapshot.source,
        **snapshot.counts,
        "rows": len(snapshot.read()),
        "fingerprint": snapshot.fingerprint,
        "snapshot": str(snapshot.path),
        "peak_mb": peak_mb(),
    }
    write_report("data", made)
    table("data", made)


@app.command()
def train(
    snapshot: Annotated[str, typer.Option(help="fingerprint of an earlier snapshot")] = "",
) -> None:
    """Train on the data as it is now, register the version, and make it `test`."""
    from ..registry.store import connect

    settings = load()
    registry = connect(settings)  # first, so that a wrong password stops it before the work
    _train(settings, registry, _snapshot(settings, snapshot))


@app.command("import")
def import_model(
    model: str,
    yes: Annotated[bool, typer.Option(help="read a pickle, which may run any code")] = False,
) -> None:
    """Make a version of a model that is fitted already, and make it `test`."""
    from pathlib import Path

    from ..own import existing
    from ..registry.store import connect

    if not model:
        raise UserError("say which file: make import MODEL=model.skops")
    settings = load()
    registry = connect(settings)
    with step("read the model"):
        opened = existing.opened(Path(model), yes)
    stored = _snapshot(settings, "")
    with step("judge"):
        judged, fitted = existing.judged(opened, stored.read(), settings)
    say(
        f"warning: {opened.name}: the rows that judge it may be rows that it was fitted on; its "
        "metrics may be too good",
        style="yellow",
    )
    _train(settings, registry, stored, judged, fitted, opened.sha256)


@app.command()
def tune(
    trials: int = 20,
    timeout: Annotated[float | None, typer.Option(help="seconds")] = None,
    snapshot: Annotated[str, typer.Option(help="fingerprint of an earlier snapshot")] = "",
) -> None:
    """Search parameters for the model, and train with the best if they are better."""
    from ..evaluation import mattered
    from ..registry.store import connect
    from ..training import tune

    settings = load()
    registry = connect(settings)
    stored = _snapshot(settings, snapshot)
    found = tune.search(settings, stored, trials, timeout)
    shares = mattered.shares(found.trials)
    made = {**asdict(found), "mattered": shares, "data": stored.fingerprint, "peak_mb": peak_mb()}
    write_report("tune", made)
    pictures = REPORTS / "tune"
    mattered.draw(found.trials, pictures / "tune.png")
    show_trials(found.trials, shares)
    with step("log the trials"):
        registry.track(f"tune {stored.fingerprint[:8]}", found.trials, pictures)
    if not found.better:
        say("the parameters in force are as good as any that were tried; nothing is trained")
        return
    settings = tune.settings_of(found, settings)
    _train(settings, registry, stored)
    say("to keep these parameters for later trainings, write into settings.toml:")
    say(tune.toml(settings))


def show_trials(trials: Any, shares: dict[str, float]) -> None:
    """Prints the trials, the best first, and which parameters mattered."""
    from rich.table import Table

    from ..evaluation.metric import GREATER_IS_BETTER, MAIN

    def place(trial: Any) -> float:
        value = trial.metrics.get(MAIN, float("nan"))
        return -value if GREATER_IS_BETTER else value

    names = [name.rpartition("__")[2] for name in shares]
    grid = Table(title="Trials", title_justify="left")
    for name in ("trial", *names, MAIN, "seconds"):
        grid.add_column(name, overflow="fold")
    worked = sorted((trial for trial in trials if trial.metrics), key=place)
    for trial in [*worked, *(trial for trial in trials if not trial.metrics)]:
        values = [str(trial.parameters[name]) for name in shares]
        value = f"{trial.metrics[MAIN]:.4g}" if trial.metrics else trial.error
        number = f"{trial.number}{'' if trial.number else ' (in force)'}"
        grid.add_row(number, *values, value, f"{trial.seconds:.1f}")
    grid.add_section()
    grid.add_row("explains", *(f"{share:.0%}" for share in shares.values()))
    console.print(grid)


def _snapshot(settings: Settings, fingerprint: str) -> "Snapshot":
    from ..training import snapshots

    with step("load and validate"):
        if fingerprint:
            return snapshots.find(fingerprint, settings.data.store)
        return snapshots.snapshot(settings)


def _train(settings: Settings, registry: "Registry", stored: "Snapshot", *given: Any) -> None:
    """Trains, or takes what is `given`, makes the version `test`, and says what was made."""
    from ..registry.history import Overtaken
    from ..registry.promote import promote
    from ..training.train import train

    trained = train(settings, registry, stored, *given)
    environment = "test"
    with step("promote to test"):
        try:
            promote("test", settings, registry, version=trained.version)
        except Overtaken as error:  # by another training; this version is registered all the same
            say(f"warning: {error}", style="yellow")
            environment = "none"
    write_report("train", {**asdict(trained), "peak_mb": peak_mb()})
    write_examples(held_by("test", registry))
    table(
        f"{settings.model.name} version {trained.version}",
        {
            "rows": f"{trained.rows['train']:,}; {trained.rows['judged']:,} judged first",
            **trained.metrics,
            "data": stored.fingerprint[:12],
            "bundle": trained.bundle,
            "environment": environment,
            "peak memory": f"{peak_mb():,} MB",
            "next": "make serve",
        },
    )


def write_examples(bundle: Any) -> None:
    """Leaves a request body and a table to try the API and the scoring with."""
    import pandas as pd

    from ..project import data

    rows = [example["features"] for example in bundle.examples]
    write_report("example", {"features": rows[0]})
    own = getattr(data, "CSV", {})  # as scoring reads it
    how = {name: own[name] for name in ("sep", "decimal", "encoding") if name in own}
    pd.DataFrame(rows).to_csv(REPORTS / "example.csv", index=False, **how)


@app.command()
def reproduce(version: str) -> None:
    """Train a version again from its commit, lock, snapshot and settings, and compare."""
    from ..registry.store import connect
    from ..training.reproduce import reproduce

    settings = load()
    found = reproduce(version, settings, connect(settings))
    write_report("reproduce", found)
    if not found.same:
        raise UserError(found.summary)
    say(found.summary)


@app.command()
def prune(
    yes: Annotated[str, typer.Option(help="1 deletes those here; store, the store's as well")] = "",
) -> None:
    """List the snapshots that no registered version was trained on, and delete them if asked to."""
    from ..registry.store import connect
    from ..training import retention

    if yes not in ("", "1", "store"):
        raise UserError(
            f"YES={yes}: is neither 1 (delete here) nor store (delete here and in the store)"
        )
    settings = load()
    registry = connect(settings)
    found = retention.unneeded(settings, registry)
    if yes == "store" and not registry.numbers():
        raise UserError(
            f"{registry.name} has no version in {registry.address}, so all of the store would go: "
            "is that the registry of those who use the store? Nothing was deleted"
        )
    if yes:
        retention.delete(found, settings.data.store if yes == "store" else "")
    write_report("prune", {**asdict(found), "deleted": yes})
    for where, digests in asdict(found).items():
        done = "deleted" if yes == "store" or (yes and where == "here") else "not needed"
        for digest in digests:
            say(f"{done} {where}: {digest}")
    say(
        f"{len(found.here)} snapshots here and {len(found.stored)} in the store are older than a "
        f"day, and no version of {registry.name} in {registry.address} was trained on them",
    )


@app.command()
def promote(env: Environment, version: str = "", by: By = "", unattended: bool = False) -> None:
    """Move a version into an environment, if its gates let it."""
    from ..registry.promote import Refused, promote
    from ..registry.store import connect

    settings = load()
    try:
        move = promote(env, settings, connect(settings), version, by, unattended)
    except Refused as error:
        gates = [asdict(gate) for gate in error.gates]
        write_report("promote", {"environment": env, "promoted": False, "gates": gates})
        raise
    write_report(
        "promote", {"environment": env, "promoted": bool(move), "move": move and asdict(move)}
    )
    if move is None:
        say(f"{env} holds this version already")
        return
    for gate in move.gates.values():
        status_line("✓", "green", f"{gate['name']}: {gate['detail']}")
    before = f", before that {move.back_from}" if move.back_from else ""
    say(f"{env} holds version {move.to}{before}")


@app.command()
def rollback(env: Environment, by: By = "") -> None:
    """Go back to the version an environment held before."""
    from ..events.notify import moved
    from ..registry.history import rollback
    from ..registry.store import connect

    settings = load()
    move = rollback(env, connect(settings), by, partial(moved, settings))
    write_report("rollback", move)
    say(f"{env} holds version {move.to}, back from {move.back_from}")


@app.command()
def status() -> None:
    """What each environment holds, every version, and the last moves; repairs half-made ones."""
    from ..events.notify import moved
    from ..registry.status import show
    from ..registry.store import connect

    settings = load()
    show(connect(settings), console, on_move=partial(moved, settings))


@app.command()
def score(
    data: str,
    out: str,
    env: Environment = "test",
    journal: Annotated[bool, typer.Option(help="keep the rows in the journal, too")] = False,
) -> None:
    """Predict every row of a file or table."""
    from ..batch.score import score

    if not data or not out:
        raise UserError("give DATA and OUT: make score DATA=rows.csv OUT=scores.csv")
    settings = load()
    bundle = bundle_in(env, settings)
    with opened_journal(settings) if journal else nullcontext() as kept:
        rows = score(bundle, data, out, kept, env, settings.engine)
    out = shown(out)
    made = {"rows": rows, "out": out, "version": bundle.version, "bundle": bundle.digest}
    write_report("score", {**made, "engine": settings.engine.name, "peak_mb": peak_mb()})
    say(f"{rows:,} rows scored by version {bundle.version} into {out}")


@app.command()
def outcomes(
    data: str,
    env: Environment = "test",
    new: Annotated[bool, typer.Option(help="take classes that the model does not know")] = False,
) -> None:
    """Set the late labels of a file or table in the journal."""
    from ..batch.outcomes import refusal, write_outcomes

    if not data:
        raise UserError("say where the labels are: make outcomes DATA=labels.csv")
    settings = load()
    classes = bundle_in(env, settings).manifest.classes
    with opened_journal(settings) as journal:
        written = write_outcomes(journal, classes, data, new)
    write_report("outcomes", written)
    if written.refused:
        raise UserError(refusal(written, data))
    say(
        f"{written.labels:,} labels written: {written.matched:,} of predictions that are there, "
        f"{written.early:,} early; {written.replaced:,} replace an earlier one; "
        f"{written.without:,} rows have none yet",
    )


@app.command()
def monitor(
    env: Environment = "production",
    exit_code: Annotated[bool, typer.Option(help=str(EXIT)[1:-1].replace("'", ""))] = False,
) -> None:
    """Compare what is served with what was trained on, and predictions with late labels."""
    from ..monitoring import monitor
    from ..registry.store import connect
    from ..serving.journal.store import opened

    settings = load()
    with opened(settings.journal.url) as journal:
        verdict = monitor.run(settings, connect(settings), journal, env)
    say(f"{verdict.verdict}: {verdict.reason}")
    if verdict.shadow:
        say(f"shadow: {verdict.shadow['said']}")
    if exit_code:
        raise typer.Exit(EXIT[verdict.verdict])
    if verdict.verdict == "unknown":  # what was not seen is no success
        raise typer.Exit(1)


@app.command()
def report() -> None:
    """Draw the last monitoring as a page."""
    from ..monitoring.report import write

    say(str(write().resolve()))


@app.command()
def show(what: str) -> None:
    """Print a value of reports/*.json, named as in train.version, the way pipelines take it."""
    name, _, key = what.partition(".")
    path = REPORTS / f"{name}.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    if key not in report:
        there = f"{path} has {', '.join(report)}" if report else "say WHAT=train.version"
        raise UserError(f"WHAT={what}: is no value of a report; {there}")
    value = report[key] or ""
    typer.echo(f"{key}={' '.join(value) if isinstance(value, list) else value}")


@app.command()
def cycle(force: Annotated[bool, typer.Option(help="train whatever is seen")] = False) -> None:
    """Monitor, compare a candidate with what is served, and promote what is better."""
    from ..cycle import turn
    from ..registry.store import connect

    settings = load()
    done = turn(settings, connect(settings), force)
    write_report("cycle", done)
    if done.version:
        where = ", ".join(done.promoted) or "no environment"
        say(f"trained version {done.version}, now in {where}")
    if done.back and done.promoted:
        say(f"version {done.back} is back in {', '.join(done.promoted)}")
    say(f"the monitor says {done.verdict}: {done.reason}")
    if done.refused:
        raise UserError(done.refused)
    if done.verdict == "unknown" and not done.version:
        raise typer.Exit(1)
