"""The registry in var/: it moves with its folder, and says who made what."""

import shutil
import sqlite3
from pathlib import Path

from . import package
from .conftest import inside

bundles = package("bundle")
registry = package("registry")
settings = package("settings")
tracking = package("tracking")


def versions() -> list[str]:
    """Every version's bundle that can be had, pulled anew."""
    known = registry.Registry(settings.load())
    shutil.rmtree("var/versions", ignore_errors=True)
    pulled = [known.pull(version, Path("var/versions")) for version in known.numbers()]
    return [bundles.load(path).version for path in pulled]


def train() -> None:
    asked = settings.load()
    package("train").train(asked, registry.Registry(asked), package("data").snapshot(asked))


def locations() -> set[str]:
    with sqlite3.connect("var/mlflow.db") as db:
        return {
            row[0]
            for table, column in tracking.LOCATIONS.items()
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
        for table, column in tracking.LOCATIONS.items():
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


def test_a_user_without_a_name_is_a_number(monkeypatch) -> None:
    provenance = package("provenance")

    def unknown() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(provenance.getpass, "getuser", unknown)
    assert provenance.user().startswith("uid ")
