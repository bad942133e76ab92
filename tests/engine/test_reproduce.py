"""A version is made again from its commit, lock, snapshot and settings; nothing is left of it."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flight_delays import predictor, settings
from flight_delays.bundle import Manifest
from flight_delays.cli import lifecycle
from flight_delays.errors import UserError
from flight_delays.registry import store as registry
from flight_delays.training import provenance, snapshots, store, train
from flight_delays.training import reproduce as again
from flight_delays.training.reproduce import compare, reproduce

from ..helpers import copied, inside
from .conftest import TREES

PACKAGE = Path(str(settings.__file__)).parent
IGNORED = "/data/snapshots/\n/reports/\n/var/\n__pycache__/\n"


def git(*arguments: str) -> str:
    who = ("-c", "user.name=ada", "-c", "user.email=ada@localhost")
    done = subprocess.run(["git", *who, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit() -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", "it")


def nothing_left() -> bool:
    return git("worktree", "list").count("\n") == 0 and not list(again.WORKTREES.iterdir())


@pytest.fixture(scope="module")
def first(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose version 1 is of a commit; its lock was committed later."""
    with copied(home, tmp_path_factory.mktemp("first")) as folder:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, folder / "src" / PACKAGE.name, ignore=ignored)
        model = folder / "src" / PACKAGE.name / "project" / "model.py"
        model.write_text(model.read_text().replace("n_estimators=100", f"n_estimators={TREES}"))
        Path(".gitignore").write_text(IGNORED)
        git("init", "--quiet", "--initial-branch", "main")
        commit()
        Path("locks").mkdir()
        Path("locks/dev.txt").write_text("numpy==1\n")
        asked = settings.load(train={"seed": 7})
        train.train(asked, registry.connect(asked), snapshots.snapshot(asked))
        commit()
    return folder


@pytest.fixture
def repository(first: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, which is the current folder."""
    with copied(first, tmp_path) as folder:
        yield folder


def manifest(version: str = "1") -> Manifest:
    found = registry.connect(settings.load()).pull(version, settings.VERSIONS)
    return Manifest.model_validate_json((found / "manifest.json").read_text())


def made_again(version: str) -> again.Reproduced:
    asked = settings.load()
    return reproduce(version, asked, registry.connect(asked))


def untold(version: str, kept: Path, made: Path) -> again.Reproduced:
    """Compares; a webhook is told nothing of the version that is thrown away."""
    assert not (made.parents[1] / "events").exists()
    return compare(version, kept, made)


def test_version_1_is_made_again_in_a_clone_elsewhere(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After its code and settings were changed, with its data in the store alone."""
    store.keep(snapshots.find("").path, f"{tmp_path}/team")
    model = repository / "src" / PACKAGE.name / "project" / "model.py"
    model.write_text(model.read_text().replace("min_samples_leaf=10", "min_samples_leaf=50"))
    Path("settings.toml").write_text("[train]\nseed = 3\n")
    commit()
    git("clone", "--quiet", str(repository), str(tmp_path / "else where"))
    shutil.copytree("var", tmp_path / "else where" / "var")  # the registry, which moves
    with inside(tmp_path / "else where"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_STORE", f"{tmp_path}/team")
        patch.setenv("EVENTS_WEBHOOK", "http://127.0.0.1:9/hook")
        patch.setattr(again, "compare", untold)
        lifecycle.reproduce("1")
        assert registry.connect(settings.load()).numbers() == ["1"]
        assert nothing_left()
        assert not git("status", "--porcelain")
        report = json.loads(Path("reports/reproduce.json").read_text())
    assert report["same"]
    assert report["bytes"] == predictor.FILE.endswith(".onnx")
    assert (report["largest"], report["differs"]) == (0.0, [])
    assert report["predictions"] > 600
    assert "version 1 was made again: the same" in capsys.readouterr().out


def test_a_manifest_says_all_that_makes_a_model(repository: Path) -> None:
    made = manifest()
    assert made.train == settings.load(train={"seed": 7}).train.model_dump(mode="json")
    assert made.python == ".".join(map(str, sys.version_info[:3]))
    assert made.machine == provenance.machine()
    assert (made.commit, made.dirty) == (git("rev-parse", "HEAD~1"), False), "locks/ is no change"
    assert provenance.git() == (git("rev-parse", "HEAD"), False)
    Path("src/more.py").write_text("")
    assert provenance.git()[1]
    old = json.loads(made.model_dump_json(exclude={"train", "python", "machine"}))
    assert Manifest.model_validate(old).train == {}, "a bundle of before is as good as ever"


def test_what_cannot_be_made_again_is_said_in_a_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str, version: str = "1") -> None:
        with pytest.raises(UserError, match=said) as caught:
            made_again(version)
        assert "\n" not in str(caught.value)
        assert not again.WORKTREES.exists() or nothing_left()

    refused("^say which version: make reproduce VERSION=1$", "")
    refused("^version 9 of .* is not registered", "9")
    real = again._manifest
    for wrong, said in (
        ({"commit": "none"}, "^version 1 has no commit"),
        ({"dirty": True}, "^version 1 was trained with uncommitted changes"),
        ({"commit": "0" * 40}, "^commit 000000000000 of version 1 is not here: run `git fetch`"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(again, "_manifest", lambda p, w=wrong: real(p).model_copy(update=w))
            refused(said)
    with monkeypatch.context() as patch:
        patch.setattr(again, "PACKAGE", "not_there")
        refused(f"^the training at commit {manifest().commit[:12]} failed: .* named not_there$")
    (snapshot,) = snapshots.SNAPSHOTS.iterdir()
    snapshot.unlink()
    refused(rf"^{snapshot.stem}: names no snapshots in data/snapshots")
    monkeypatch.setenv("DATA_STORE", "team")
    refused(rf"^{snapshot.stem}: names no snapshots in data/snapshots and team;")
    Path("var/versions/1/examples.json").write_text("[]")
    monkeypatch.setattr(registry.MlflowRegistry, "pull", lambda *_: Path("var/versions/1"))
    refused("its files are not those of its manifest")


def test_nothing_is_left_of_what_was_stopped(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(folder: Path, *_: object) -> Path:
        assert (folder / "src" / PACKAGE.name / "bundle.py").exists()
        (folder / "var").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(again, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        made_again("1")
    assert nothing_left()
    killed = again.WORKTREES / manifest().commit[:12]
    git("worktree", "add", "--quiet", "--detach", str(killed))
    (again.WORKTREES / "else").mkdir()
    folder = os.open(again.WORKTREES, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="`make reproduce` runs here already"):
        made_again("1")
    assert killed.exists()
    os.close(folder)
    with pytest.raises(KeyboardInterrupt):
        made_again("1")
    assert nothing_left()


def test_it_is_trained_with_the_lock_of_the_version(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(again, "_run", lambda _, command, *__: ran.append(command))
    made, other = manifest(), tmp_path / "worktree"
    other.mkdir()
    assert again._environment(other, made) == sys.executable
    assert provenance.lock(other / "locks" / "dev.txt") == made.lock, "what it makes can say so"
    Path("locks/dev.txt").write_text("numpy==2\n")
    assert again._environment(other, made) == f"{other}/.venv/bin/python"
    assert ran == [["make", "setup"]]
    shutil.rmtree(other / "locks")
    assert again._environment(other, made) == sys.executable, "nobody has it: the report says so"
    assert provenance.lock(other / "locks" / "dev.txt") != made.lock
    older = made.model_copy(update={"lock": provenance.lock(), "python": "3.9.1"})
    assert again._environment(other, older) == f"{other}/.venv/bin/python"


def test_what_differs_is_named(repository: Path, tmp_path: Path) -> None:
    kept = settings.VERSIONS / "1"
    registry.connect(settings.load()).pull("1", settings.VERSIONS)
    other = Path(shutil.copytree(kept, tmp_path / "other"))
    text = json.loads((other / "manifest.json").read_text())
    text["files"][predictor.FILE] = "another"
    text["lock"] = "another"
    (other / "manifest.json").write_text(json.dumps(text))
    found = compare("1", kept, other)
    assert (found.same, found.largest) == (predictor.FILE.endswith(".skops"), 0.0)
    assert found.differs == [f"lock: {manifest().lock} then, another now"]
    examples = json.loads((other / "examples.json").read_text())
    examples[3]["expected"] = (np.array(examples[3]["expected"]) + 1e-9).tolist()
    (other / "examples.json").write_text(json.dumps(examples))
    text["lock"] = manifest().lock
    text["train"]["seed"] = 8
    (other / "manifest.json").write_text(json.dumps(text))
    assert "train.seed: 7 then, 8 now" in compare("1", kept, other).summary
    text["train"]["seed"] = 7
    (other / "manifest.json").write_text(json.dumps(text))
    found = compare("1", kept, other)
    assert not found.same
    assert found.largest == pytest.approx(1e-9)
    assert "data, lock, Python, machine and settings are the same" in found.summary
    (other / "examples.json").write_text(json.dumps(examples[1:]))
    assert compare("1", kept, other).largest is None
