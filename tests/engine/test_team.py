"""A team's MLflow, as people and accidents use it: at once, without rights, while parts are away.

The port's test runs over it too, where TEST_MLFLOW is set.
"""
# ruff: noqa: F811

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import pandas as pd
import pytest

from flight_delays import bundle as bundles
from flight_delays import errors, settings
from flight_delays.registry import history, store
from flight_delays.registry.base import Move, Registry
from flight_delays.registry.history import Overtaken

from ..helpers import inside
from .servers import SOURCE
from .team import Team, team
from .test_port import Made, made, promoted, registered  # noqa: F401


@pytest.fixture(scope="module")
def home(sample: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows to train on: the registry is elsewhere."""
    folder = tmp_path_factory.mktemp("home")
    sample.to_parquet(folder / "rows.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The team's MLflow; the administrator is logged in, in a folder of its own."""
    with (
        team(tmp_path_factory.mktemp("team")) as started,
        inside(home),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {**started.login(), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}.items():
            patch.setenv(name, value)
        yield started


def begin(folder: Path, *arguments: str, **env: str) -> "subprocess.Popen[str]":
    """Somebody's command in a folder of theirs."""
    return subprocess.Popen(
        [sys.executable, "-m", "flight_delays", *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(SOURCE), **env}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def said(process: "subprocess.Popen[str]", fails: bool = False) -> str:
    """All that a command says; it ends well, or must not if `fails`."""
    text, _ = process.communicate(timeout=120)
    assert (process.returncode != 0) == fails, text
    assert "Traceback" not in text, text
    return text


@pytest.fixture(scope="module")
def two(server: Team, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """What two trainers made at once on two machines."""
    folders = [Path(shutil.copytree(home, tmp_path_factory.mktemp("own") / "it")) for _ in "ab"]
    for trainer in [begin(folder, "train") for folder in folders]:
        said(trainer)
    return store.connect(settings.load())


@pytest.fixture(scope="module")
def bundle_dir(two: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle to register again."""
    return two.pull("1", tmp_path_factory.mktemp("pulled"))


def test_two_trainers_at_once(two: Registry, tmp_path: Path) -> None:
    versions = two.versions()
    assert [v.version for v in versions] == ["2", "1"]
    assert len({v.run for v in versions}) == 2
    for version in versions:
        bundle = bundles.load(two.pull(version.version, tmp_path))
        assert (bundle.digest, bundle.manifest.run) == (version.tags["bundle"], version.run)
    assert two.alias("test") == two.moves("test")[-1].to


def test_two_promoters_at_once(two: Registry) -> None:
    ready = Barrier(2)

    def move(version: str) -> None:
        mine = store.connect(settings.load())
        asked = Move("staging", "promote", version, "", f"promoter {version}", "")
        ready.wait()
        with suppress(Overtaken):
            history.make(asked, mine)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(move, "12"))
    moves = two.moves("staging")
    assert sorted((m.to, m.by) for m in moves) == [("1", "promoter 1"), ("2", "promoter 2")]
    assert two.alias("staging") == moves[-1].to
    assert not two.moves("staging", closed=False)


def test_a_wrong_password_is_said_before_the_work(server: Team, two: Registry, home: Path) -> None:
    before = two.numbers()
    begun = time.monotonic()
    wrong = server.login(password="not-the-password")
    text = said(begin(home, "train", **wrong), fails=True)
    assert time.monotonic() - begun < 20
    (line,) = text.splitlines()
    assert "MLFLOW_TRACKING_USERNAME" in line
    assert "MLFLOW_TRACKING_PASSWORD" in line
    assert "not-the-password" not in text
    assert two.numbers() == before


@pytest.mark.parametrize("how", ["gone", "silent"])
def test_nothing_is_registered_while_the_store_is_away(
    server: Team, two: Registry, made: Made, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    before = two.numbers()
    begun = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        with server.store_away(how), pytest.raises(errors.RegistryUnavailable) as caught:
            registered(two, made)
    assert time.monotonic() - begun < 30
    (line,) = str(caught.value).splitlines()
    assert "artifact store" in line
    assert two.numbers() == before
    new = registered(two, made)
    assert two.numbers() == [new, *before]
    assert bundles.load(two.pull(new, Path("var/pulled")))


def test_a_server_may_be_killed_in_the_middle_of_a_training(
    server: Team, two: Registry, made: Made
) -> None:
    before = two.numbers()
    with two.run("train") as run:
        server.kill()
        with pytest.raises(errors.RegistryUnavailable, match="MLFLOW_TRACKING_URI"):
            made(two, run)
        server.start()
        server.ready()
        assert two.numbers() == before
        new = made(two, run)
    assert two.numbers() == [new, *before]
    assert bundles.load(two.pull(new, Path("var/pulled"))).manifest.run == run


def test_who_may_only_read_production_does_not_promote(
    server: Team, two: Registry, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, old, new = two.name, registered(two, made), registered(two, made)
    digest = two.note(new, "bundle")
    monkeypatch.setenv("MODEL_PER_ENVIRONMENT", "true")
    registry = store.connect(settings.load())
    registry.copy_into("production", old, registry.note(old, "bundle"))
    promoted(registry, "production", old)

    for user in ("reader", "promoter"):
        server.user(user)
    for kind, id in (
        ("registered_model", f"production.{name}"),
        ("experiment", server.experiment(f"production.{name}-moves")),
    ):
        server.grant("promoter", kind, id, "EDIT")

    def as_user(user: str) -> Registry:
        for variable, value in server.login(user).items():
            monkeypatch.setenv(variable, value)
        return store.connect(settings.load())

    reader = as_user("reader")
    assert reader.alias("production") == old
    assert reader.versions()
    assert bundles.load(reader.pull(old, Path("var/reader"), "production"))
    calls: list[Callable[[], object]] = [
        lambda: reader.copy_into("production", new, digest),
        lambda: reader.intend(Move("production", "promote", new, old, "reader", "")),
        lambda: reader.set_alias("production", old),
        lambda: reader.tag(old, "load", "text", "production"),
    ]
    for call in calls:
        with pytest.raises(errors.NotPermitted) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    promoter = as_user("promoter")
    promoter.copy_into("production", new, digest)
    assert promoted(promoter, "production", new)[0].to == new
    assert [m.to for m in promoter.moves("production")] == [old, new]
    with pytest.raises(errors.NotPermitted):
        promoter.tag(new, "load", "text")  # the trainers' own model

    with pytest.raises(errors.NotPermitted, match="permission"):
        history.rollback("production", as_user("reader"))
    assert registry.alias("production") == new
