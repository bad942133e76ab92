"""The store of snapshots: whole or not at all, fetched anywhere, and never short of a version."""

import importlib.util
import os
import time
import uuid
from pathlib import Path

import fsspec
import mlflow
import pandas as pd
import pytest
from fsspec.implementations.local import LocalFileSystem

from flight_delays import bundle as bundles
from flight_delays import settings
from flight_delays.cli import lifecycle
from flight_delays.errors import UserError
from flight_delays.registry import history
from flight_delays.registry import store as registry
from flight_delays.registry.base import Move
from flight_delays.training import fitting, retention, snapshots, store, train

from ..helpers import inside

DAY = 86_400


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that is not there yet."""
    return f"{tmp_path}/team" if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> snapshots.Snapshot:
    """A snapshot in an empty folder, which is the current one."""
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    return snapshots.store(pd.DataFrame({"x": range(1000)}), "rows")


def files(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def age(path: Path) -> None:
    """Makes it two days old."""
    os.utime(path, (time.time() - 2 * DAY,) * 2)


def test_a_snapshot_is_fetched_in_another_folder(
    made: snapshots.Snapshot, url: str, tmp_path: Path
) -> None:
    assert store.digests(url) == []
    for _ in range(2):
        store.keep(made.path, url)
        assert store.digests(url) == [made.fingerprint]
    (tmp_path / "other").mkdir()
    with inside(tmp_path / "other"):
        with pytest.raises(UserError, match=r"names no snapshots in data/snapshots \(no \[data]"):
            snapshots.find(made.fingerprint[:8])
        found = snapshots.find(made.fingerprint[:8], url)
        assert found.fingerprint == made.fingerprint
        pd.testing.assert_frame_equal(pd.read_parquet(found.path), pd.read_parquet(made.path))
        store.remove(made.fingerprint, url)
        assert snapshots.find(made.fingerprint, url) == found, "what is here is not asked for"
        with pytest.raises(UserError, match=rf"^abc: names no snapshots in .* and {url}; "):
            snapshots.find("abc", url)
        assert files("data") == [f"{made.fingerprint}.parquet"]


def test_what_was_cut_short_is_refused_and_stored_anew(
    made: snapshots.Snapshot, url: str, tmp_path: Path
) -> None:
    store.keep(made.path, url)
    there = f"{url}/flight_delays/{made.path.name}"
    with fsspec.open(there, "wb") as file:
        file.write(made.path.read_bytes()[:100])
    (tmp_path / "other").mkdir()
    with inside(tmp_path / "other"):
        with pytest.raises(UserError, match=rf"^snapshot {made.fingerprint[:12]} in .* cut short"):
            snapshots.find(made.fingerprint, url)
        assert files(".") == []
    store.keep(made.path, url)
    with inside(tmp_path / "other"):
        assert snapshots.find(made.fingerprint, url).path.read_bytes()[:4] == b"PAR1"
        Path("data/snapshots", made.path.name).write_bytes(b"PAR1")
        with pytest.raises(UserError, match=r"was changed or cut short: .* delete it$"):
            snapshots.find(made.fingerprint, url)


def test_what_is_old_is_written_again_before_a_version_needs_it(
    made: snapshots.Snapshot, tmp_path: Path
) -> None:
    url = f"{tmp_path}/team"
    store.keep(made.path, url)
    there = tmp_path / "team" / "flight_delays" / made.path.name
    before = there.stat().st_ino
    store.keep(made.path, url)
    assert there.stat().st_ino == before
    age(there)
    assert store.digests(url, DAY) == [made.fingerprint]
    store.keep(made.path, url)
    assert store.digests(url, DAY) == []


def test_a_client_that_is_not_installed_is_named(made: snapshots.Snapshot) -> None:
    for address, client in {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs"}.items():
        if not importlib.util.find_spec(client):
            with pytest.raises(UserError, match=rf"{address}://a/b: .*{client}.*pyproject.toml"):
                store.check(f"{address}://a/b")
    with pytest.raises(UserError, match=r"^\[data\] store = nowhere://b:\*\*\*@c: Protocol"):
        store.check("nowhere://b:secret@c")


def test_no_space_registers_nothing_and_the_next_run_does(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings.load(data={"store": "team"})
    known, snapshot = registry.connect(asked), snapshots.snapshot(asked)
    judged = fitting.judge(snapshot.read().tail(1000), asked.train)
    monkeypatch.setattr(train.evaluate, "figures", lambda *_: Path(_[-1]).mkdir())  # they take time

    def full(_: object, source: str, to: str, **__: object) -> None:
        Path(to).write_bytes(Path(source).read_bytes()[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", full)
        with pytest.raises(UserError, match=r"^\[data\] store = team: .* No space left on device$"):
            train.train(asked, known, snapshot, judged)
    assert known.versions() == []
    assert files("team") == []
    assert not list(train.RUNS.iterdir())

    real = registry.MlflowRegistry.register

    def register(*given: object) -> str:
        assert store.digests("team") == [snapshot.fingerprint], "it is there before the version"
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(registry.MlflowRegistry, "register", register)
    assert train.train(asked, known, snapshot, judged).version == "1"
    assert files("team") == [snapshot.path.name]


def test_what_a_pipeline_passes_on_empty_leaves_the_file_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("settings.toml").write_text('[data]\nuri = "rows.csv"\nstore = "team"\n')
    for name in ("DATA_URI", "DATA_STORE"):
        monkeypatch.setenv(name, "")
    found = settings.load().data
    assert (found.uri, found.store) == ("rows.csv", "team")
    monkeypatch.setenv("DATA_STORE", " ")
    assert settings.load().data.store == ""


def test_a_store_that_is_away_is_said_before_anything_is_fitted(
    made: snapshots.Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bool:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(LocalFileSystem, "exists", away)
    asked = settings.load(data={"store": "team"})
    with pytest.raises(UserError, match=r"^\[data\] store = team: .*Connection refused$"):
        train.train(asked, None, made)  # type: ignore[arg-type]


def test_only_what_no_version_needs_may_go(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_STORE", "team")
    known = registry.connect(settings.load())
    needed = snapshots.find("")
    others = [snapshots.store(pd.DataFrame({"x": [i]}), "rows") for i in range(2)]
    for kept in (needed, *others):
        store.keep(kept.path, "team")
    old, young = others
    for kept in (needed, old):
        age(kept.path)
        age(Path("team/flight_delays", kept.path.name))
    found = retention.unneeded(settings.load(), known)
    assert (found.here, found.stored) == ([old.fingerprint], [old.fingerprint])
    again = retention.Unneeded([young.fingerprint], [young.fingerprint])  # taken up since then
    retention.delete(again, "team")
    with monkeypatch.context() as patch:
        patch.setenv("MODEL_NAME", "another")
        with pytest.raises(UserError, match=r"^another has no version in .* would go: is that"):
            lifecycle.prune("store")
    every = sorted(kept.path.name for kept in (needed, *others))
    fewer = sorted(kept.path.name for kept in (needed, young))
    for yes, here, stored in (("", every, every), ("1", fewer, every), ("store", fewer, fewer)):
        lifecycle.prune(yes)
        assert (files("data"), files("team")) == (here, stored)
    assert f"deleted here: {old.fingerprint}" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"YES=all: is neither 1 \(delete here\) nor store"):
        lifecycle.prune("all")
    known.tag("1", "data", "")
    with pytest.raises(UserError, match=r"version 1 .* does not say which snapshot"):
        lifecycle.prune("store")
    assert files("team") == fewer


def test_what_is_trained_on_is_needed(
    made: snapshots.Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(made.path)

    def pruned(*_: object) -> None:
        retention.delete(retention.Unneeded([made.fingerprint], []))
        assert made.path.exists()
        raise UserError("enough")

    monkeypatch.setattr(snapshots.Snapshot, "read", pruned)
    with pytest.raises(UserError, match="enough"):
        train.train(settings.load(), None, made)  # type: ignore[arg-type]


def test_what_an_environment_of_its_own_may_go_back_to_is_needed(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though somebody deleted the version where it was trained."""
    monkeypatch.setenv("MODEL_PER_ENVIRONMENT", "true")
    known = registry.connect(settings.load())
    digest = bundles.load(known.pull("1", settings.VERSIONS)).digest
    known.copy_into("staging", "1", digest)
    history.make(Move("staging", "promote", "1", "", "ana", ""), known)
    mlflow.MlflowClient().delete_registered_model_alias(f"staging.{known.name}", "staging")
    mlflow.MlflowClient().delete_model_version(known.name, "1")
    assert known.numbers() == []
    age(snapshots.find("").path)
    assert retention.unneeded(settings.load(), known).here == []
