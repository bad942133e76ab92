"""The registry in var/: it moves with its folder, and says who made what."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from flight_delays import bundle as bundles
from flight_delays import errors, settings
from flight_delays.registry import store as registry
from flight_delays.registry.base import Training
from flight_delays.training import provenance, snapshots
from flight_delays.training import train as training

from ..helpers import inside
from .servers import SOURCE, free_port


def versions() -> list[str]:
    """Every version's bundle that can be had, pulled anew."""
    known = registry.connect(settings.load())
    shutil.rmtree("var/versions", ignore_errors=True)
    pulled = [known.pull(version, Path("var/versions")) for version in known.numbers()]
    return [bundles.load(path).version for path in pulled]


def train() -> None:
    asked = settings.load()
    training.train(asked, registry.connect(asked), snapshots.snapshot(asked))


def locations() -> set[str]:
    with sqlite3.connect("var/mlflow.db") as db:
        return {
            row[0]
            for table, column in registry.LOCATIONS.items()
            for row in db.execute(f"SELECT {column} FROM {table}")
            if "/var/artifacts" in row[0]
        }


def test_a_folder_that_moved_keeps_its_versions(trained: Path, tmp_path: Path) -> None:
    new = tmp_path / "elsewhere"
    trained.rename(new)
    with inside(new):
        assert versions() == ["1"]
        train()
        assert versions() == ["2", "1"]
    assert not trained.exists()
    new.rename(trained)  # as a dev container mounts it, and the host has it again
    with inside(trained):
        assert versions() == ["2", "1"]


def test_full_paths_of_an_older_release_are_found(trained: Path) -> None:
    with sqlite3.connect("var/mlflow.db") as db:
        for table, column in registry.LOCATIONS.items():
            db.execute(
                f"UPDATE {table} SET {column} = '/old/var/artifacts/home/' || {column} "
                f"WHERE {column} LIKE 'var/artifacts%'"
            )
    db.close()
    assert locations()
    assert versions() == ["1"]
    assert not locations()


def test_a_folder_may_have_any_name(home: Path, tmp_path: Path) -> None:
    new = tmp_path / "is it? 100%25 #1"
    shutil.copytree(home, new)
    with inside(new):
        train()
        assert versions() == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == [new.name]


STATUS = {"/fails": 500, "/refuses": 401, "/forbids": 403, "/busy": 429}


class Wrong(BaseHTTPRequestHandler):
    """A server that is no registry, a login page say, or one that does not do what is asked."""

    def do_GET(self) -> None:
        page = b"<html>\nlog in</html>"
        self.send_response(STATUS.get(f"/{self.path.split('/')[1]}", 200))
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Retry-After", "600")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def wrong() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


LOGIN = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


@pytest.mark.parametrize(
    ("path", "said", "todo"),
    [
        ("/login", "not in a valid JSON", "MLFLOW_TRACKING_URI"),
        ("/fails", "500", "its log says"),
        ("/refuses", "refuses this login", LOGIN),
        ("/forbids", "403", "ask who manages it for the permission"),
        ("/busy", "429", "try again later"),
        ("", "Connection refused", "MLFLOW_TRACKING_URI"),
    ],
)
def test_what_does_not_answer_as_it_should_is_named_in_a_line(
    project: Path, wrong: str, monkeypatch: pytest.MonkeyPatch, path: str, said: str, todo: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"{wrong}{path}" if path else f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(errors.RegistryUnavailable) as caught:
        registry.connect(settings.load())
    (line,) = str(caught.value).splitlines()
    assert address in line
    assert said in line
    assert todo in line
    assert isinstance(caught.value, errors.NotPermitted) == (path == "/forbids")


def test_a_server_that_is_busy_for_long_is_not_waited_for(project: Path, wrong: str) -> None:
    own = {"MLFLOW_TRACKING_URI": f"{wrong}/busy", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    command = [sys.executable, "-m", "flight_delays", "status"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(SOURCE), **own}, timeout=60,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "429" in line


@pytest.mark.parametrize(
    ("given", "lacks"),
    [
        ([], "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (["MLFLOW_TRACKING_USERNAME"], "MLFLOW_TRACKING_PASSWORD"),
        (["MLFLOW_TRACKING_TOKEN"], ""),
    ],
)
def test_it_says_which_credentials_are_set(
    project: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], lacks: str
) -> None:
    for name in given:
        monkeypatch.setenv(name, "secret")
    if lacks:
        with pytest.raises(errors.UserError, match=f"^not set: {lacks} .or"):
            registry.credentials()
    else:
        assert registry.credentials() == ", ".join(given)


@pytest.mark.parametrize("token", ["s3cret\n", " s3cret", "s3\ncret", "\n"])
def test_a_token_with_a_line_end_is_not_shown(
    project: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    with pytest.raises(errors.UserError, match=r"^MLFLOW_TRACKING_TOKEN: has a blank") as caught:
        registry.connect(settings.load())
    assert "cret" not in str(caught.value)


def test_what_two_write_at_once_is_written(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = registry.MlflowRegistry(settings.load())
    for name in ("set_registered_model_alias", "set_model_version_tag"):
        real, faster = getattr(known.client, name), [MlflowException("UNIQUE", BAD_REQUEST)]

        def call(*given: Any, real: Any = real, faster: Any = faster) -> None:
            if faster:
                raise faster.pop()
            real(*given)

        monkeypatch.setattr(known.client, name, call)
    known.set_alias("staging", "1")
    known.tag("1", "load", "text")
    assert (known.alias("staging"), known.note("1", "load")) == ("1", "text")


def test_data_that_two_trainings_log_at_once(
    trained: Path, bundle_dir: Path, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = registry.MlflowRegistry(settings.load())
    real, faster = known.client.log_inputs, [MlflowException("UNIQUE", BAD_REQUEST)]

    def log_inputs(*given: Any) -> None:
        if faster:
            raise faster.pop()
        real(*given)

    monkeypatch.setattr(known.client, "log_inputs", log_inputs)
    made = Training(bundles.load(bundle_dir), sample.head(5), {}, {}, Path("none"), "rows", [])
    with known.run("train") as run:
        known._log_dataset(run, made)
    inputs = known.client.get_run(run).inputs
    assert inputs is not None
    assert len(inputs.dataset_inputs) == 1


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:

    def unknown() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(provenance.getpass, "getuser", unknown)
    assert provenance.user().startswith("uid ")
