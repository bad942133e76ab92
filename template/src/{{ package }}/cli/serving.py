"""The commands around serving: serve and follow, load test and capacity, images."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import say, table
from ..errors import UserError
from ..settings import Settings
from ..settings import load as settings_in_force
from .common import REPORTS, Environment, bundle_in, opened_journal, trained, write_report

app = typer.Typer()
Folder = Annotated[str, typer.Option(help="a bundle's folder, instead of what ENV holds")]
Version = Annotated[str, typer.Option(help="a version, instead of the one ENV holds")]
Workers = Annotated[str, typer.Option(help="Locust's processes; with --bind, elsewhere")]


def _load_settings(workers: str) -> Settings:
    return settings_in_force(load={"workers": workers} if workers else {})


def _bundle(env: str, folder: str, version: str = "") -> Any:
    """The bundle in a folder, or in its only folder; without one a version's, or `env`'s."""
    from .. import bundle

    if not folder:
        return bundle_in(env, settings_in_force(), trained() if version == "trained" else version)
    found = [*Path(folder).glob("manifest.json"), *Path(folder).glob("*/manifest.json")]
    if len(found) != 1:
        raise UserError(f"{folder}: holds {len(found)} bundles, not one; see `make bundle`")
    return bundle.load(found[0].parent)


@app.command()
def bundle(
    env: Environment = "test",
    out: Path = Path("build/bundle"),
    version: Version = "",
    bundle: Folder = "",
) -> None:
    """Copy the model as it is served into a folder, which `serve` takes as SERVING_BUNDLES."""
    from ..bundle import POINTER, put

    found = _bundle(env, bundle, version)
    old = [path for path in out.iterdir() if path.name != POINTER] if out.is_dir() else []
    if others := [path.name for path in old if not (path / "manifest.json").exists()]:
        raise UserError(
            f"OUT={out}: holds other things than bundles ({min(others)}); choose a new folder"
        )
    if found.path.parent.resolve() == out.resolve():
        raise UserError(f"OUT={out}: is where bundles are kept; choose a new folder")
    for path in old:
        shutil.rmtree(path)
    target = put(found, out)
    say(f"version {found.version} ({found.digest}) is in {target}")


@app.command()
def sbom(env: Environment = "test", version: Version = "", bundle: Folder = "") -> None:
    """Add a bundle to the SBOM that `make sbom` wrote to reports/sbom.json."""
    from ..bundle import component
    from ..files import write

    found, path = _bundle(env, bundle, version), REPORTS / "sbom.json"
    known = json.loads(path.read_text())
    known["components"].append(component(found))
    write(path, json.dumps(known, indent=2) + "\n")
    say(f"{path} names version {found.version} ({found.digest})")


@app.command()
def load(
    env: Environment = "test",
    version: Version = "",
    bundle: Folder = "",
    url: Annotated[str, typer.Option(help="a server that runs, instead of one of our own")] = "",
    ui: Annotated[bool, typer.Option(help="open Locust's page")] = False,
    yes: Annotated[bool, typer.Option(help="load a server that is not on this machine")] = False,
    workers: Workers = "",
    bind: Annotated[str, typer.Option(help="an address that workers elsewhere connect to")] = "",
) -> None:
    """Load-test a version; the result is noted on it, and the gate of production asks for it."""
    from ..load import run
    from ..registry.store import connect

    settings = _load_settings(workers)
    how: dict[str, Any] = {"url": url, "ui": ui, "yes": yes, "bind": bind}
    if bundle:
        found = run.run(settings, _bundle(env, bundle), **how)
    else:
        found = run.measure(settings, connect(settings), env, version, **how)
    if found["passed"] is None:
        return
    table(
        f"load of version {found['version']}",
        {name: found[name] for name in ("requests", "failures", "rate", "p50", "p95", "p99")},
    )
    if not found["passed"]:
        raise UserError(found["summary"])


@app.command()
def capacity(env: Environment = "test", bundle: Folder = "", workers: Workers = "") -> None:
    """Find the highest rate of requests within the limits."""
    from ..load import run

    found = run.capacity(_load_settings(workers), _bundle(env, bundle))
    table(
        f"capacity of version {found['version']}",
        {"requests/s": found["rate"], "limited by": found["limited_by"]},
    )
    if not found["rate"]:
        raise UserError(f"not even the first step held: {found['limited_by']}")


@app.command()
def smoke(
    image: str,
    env: Environment = "test",
    bundle: Folder = "",
    engine: Annotated[str, typer.Option(envvar="ENGINE")] = "docker",
    baked: Annotated[bool, typer.Option(help="the image has the bundle in it")] = False,
) -> None:
    """Start an image with no rights, compare its answers to the bundle's examples, stop it."""
    from ..load import targets

    found = _bundle(env, bundle)
    with targets.container(found, image, engine, baked) as url:
        n = targets.smoke(found, url)
    write_report(
        "smoke", {"image": image, "version": found.version, "bundle": found.digest, "rows": n}
    )
    say(f"{image}: {n} examples answered as version {found.version} should")


@app.command()
def pushed(bundle: Path) -> None:
    """Note on a version the digests of its images, which `make push` left in reports/push.json."""
    from ..registry.store import connect

    found, registry = _bundle("", str(bundle)), connect(settings_in_force())
    if found.version not in registry.numbers():
        say(f"version {found.version} is not registered here, so no image was noted on it")
        return
    if (digest := registry.note(found.version, "bundle")) != found.digest:
        raise UserError(
            f"the image holds another version {found.version} ({found.digest}) than is registered "
            f"({digest}); run `make image` where the registry is"
        )
    for name, reference in json.loads((REPORTS / "push.json").read_text()).items():
        registry.tag(found.version, f"image.{name}", reference)
    say(f"the images are noted on version {found.version}")


@app.command()
def image(env: Environment) -> None:
    """Say which image holds what an environment holds: what `make deploy` deploys."""
    from ..registry.base import version_in
    from ..registry.store import connect

    registry = connect(settings_in_force())
    version = version_in(env, registry)
    images = {name: registry.note(version, f"image.{name}") for name in ("model", "job")}
    if not all(images.values()):
        raise UserError(
            f"{env} holds version {version}, of which no image was pushed; run "
            f"`make image ENV={env}` and `make push`"
        )
    digest = registry.note(version, "bundle")
    write_report("image", {"environment": env, "version": version, "bundle": digest, **images})
    say(f"{env} holds version {version}: {images['model']}")


@app.command()
def migrate() -> None:
    """Bring the journal's tables up to date, as a server does at its start."""
    with opened_journal(settings_in_force()) as journal:
        say(f"the journal's tables are up to date ({journal.dialect})")


@app.command()
def serve(
    env: Environment = "test",
    port: int | None = None,
    host: str | None = None,
    follow: Annotated[bool, typer.Option(help="whether to fetch what is promoted")] = True,
) -> None:
    """Serve what an environment holds, and follow it as it changes."""
    from ..serving.run import serve

    flags = {name: value for name, value in {"port": port, "host": host}.items() if value}
    serve(env, settings_in_force(serving=flags), follow)


@app.command()
def follow(env: Environment = "test", once: bool = False) -> None:
    """Pull what an environment holds, again and again."""
    from ..serving.follow import follow

    follow(env, settings_in_force(), once=once)
