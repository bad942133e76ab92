"""The registry in var/: it moves with its folder, and says who made what."""

import shutil
import sqlite3
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from flight_delays import bundle as bundles
from flight_delays import errors, settings
from flight_delays.registry import store as registry
from flight_delays.training import provenance, snapshots
from flight_delays.training import train as training

from ..helpers import inside
from .servers import free_port


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


class Wrong(BaseHTTPRequestHandler):
    """A server that is no registry: a login page, or one that fails."""

    def do_GET(self) -> None:
        page = b"<html>\nlog in</html>"
        self.send_response(500 if self.path.startswith("/fails") else 200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("path", "said"),
    [("/login", "not in a valid JSON"), ("/fails", "500"), ("", "Connection refused")],
)
def test_what_is_no_registry_is_named_in_a_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as server:
        Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port if path else free_port()}{path}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        try:
            with pytest.raises(errors.RegistryUnavailable) as caught:
                registry.connect(settings.load()).versions()
        finally:
            server.shutdown()
    (line,) = str(caught.value).splitlines()
    assert said in line
    assert address in line
    assert "MLFLOW_TRACKING_URI" in line


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:

    def unknown() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(provenance.getpass, "getuser", unknown)
    assert provenance.user().startswith("uid ")
