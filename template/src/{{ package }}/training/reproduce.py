"""Trains a version again from what the registry knows about it, and compares the two.

The training runs in a git worktree of the version's commit, with its lock, snapshot and settings,
and with a registry inside the worktree. The worktree is removed after the comparison.
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bundle import Manifest, differences, digest_of, intact
from ..console import step
from ..errors import BundleError, UserError
from ..evaluation.unseen import JUDGED
from ..registry import signature
from ..registry.base import Registry, require
from ..registry.store import LOCAL_VARIABLES
from ..settings import PACKAGE, VERSIONS, Settings
from . import snapshots
from .provenance import LOCK, lock

WORKTREES = Path("var/reproduce")
COMPARED = ("data", "lock", "python", "machine")
"""Fields of the manifest, beside the settings of [train], that can explain a difference."""


@dataclass(frozen=True)
class Reproduced:
    """The comparison of a version with the one that was trained again."""

    version: str
    same: bool
    """The same bytes for ONNX; for skops, whose files always differ, the same predictions."""
    bytes: bool
    """Whether the model's file has the same bytes."""
    largest: float | None
    """The largest difference of a prediction, as `bundle.differences` measures it; None if the two
    did not predict the same number of rows."""
    predictions: int
    """How many were compared: those for the examples and for the rows that judged the version."""
    differs: list[str]
    """What differs between the two trainings (data, lock, Python, machine, settings), one each."""

    @property
    def summary(self) -> str:
        """The result in one line."""
        why = "; ".join(self.differs)
        if self.same:
            how = "the same bytes" if self.bytes else f"the same {self.predictions:,} predictions"
            return f"version {self.version} was made again: {how}{why and f', though {why}'}"
        if self.largest == 0:
            how = f"its file differs, but none of {self.predictions:,} predictions does"
        elif self.largest is None:
            how = "the number of predictions differs"
        else:
            how = f"its predictions differ by up to {self.largest:.2g}"
        why = why or (
            "data, lock, Python, machine and settings are the same: does project/model.py draw "
            "random numbers without the seed, or is this another processor?"
        )
        return f"version {self.version} was made again and is not the same: {how}; {why}"


def reproduce(version: str, settings: Settings, registry: Registry) -> Reproduced:
    """Trains a version again and compares; raises UserError if what it needs is missing."""
    if not version:
        raise UserError("say which version: make reproduce VERSION=1")
    require(version, registry)
    kept = registry.pull(version, VERSIONS)
    if not intact(kept, digest_of(kept)):
        raise BundleError(f"{kept}: its files are not those of its manifest; refused")
    made = _manifest(kept)
    if made.imported:
        raise UserError(
            f"version {version} was imported, not trained here; it cannot be made again"
        )
    _require_commit(version, made)
    snapshot = snapshots.find(made.data, settings.data.store)
    with _worktree(made.commit) as folder:
        python = _environment(folder, made)
        with step(f"train version {version} again"):
            again = _train(folder, python, made, snapshot)
        return compare(version, kept, again)


def compare(version: str, kept: Path, again: Path) -> Reproduced:
    """Compares the bundle of a version with the bundle of the second training.

    No model is run: each bundle contains the predictions for its examples and for the rows that
    judged the version.
    """
    old, new = _manifest(kept), _manifest(again)
    (model,) = [name for name in old.files if name.startswith("model.")]
    same = old.files[model] == new.files.get(model)
    expected, given = _predictions(kept), _predictions(again)
    largest = None
    if [part.shape for part in expected] == [part.shape for part in given]:
        classifies = old.classes is not None
        found = [differences(*pair, classifies) for pair in zip(expected, given, strict=True)]
        largest = float(np.concatenate(found).max(initial=0.0))
    facts = {name: (getattr(old, name), getattr(new, name)) for name in COMPARED}
    facts |= {f"train.{name}": (was, new.train.get(name)) for name, was in old.train.items()}
    differs = [
        f"{name}: {was} then, {now} now"
        for name, (was, now) in facts.items()
        if was not in ("", now)
    ]
    if not old.train:
        differs.append("its manifest has no settings, so those of its commit were used")
    return Reproduced(
        version,
        same or (model.endswith(".skops") and largest == 0),
        same,
        largest,
        sum(len(part) for part in expected),
        differs,
    )


def _manifest(path: Path) -> Manifest:
    return Manifest.model_validate_json((path / "manifest.json").read_bytes())


def _predictions(path: Path) -> list[np.ndarray]:
    """The model's predictions for the examples, and those of the earlier models that judged it."""
    examples = json.loads((path / "examples.json").read_text())
    found = [np.array([example["expected"] for example in examples], dtype=np.float64)]
    if (path / JUDGED).exists():
        with np.load(path / JUDGED) as judged:
            found.append(judged["scores"])
    return found


def _require_commit(version: str, made: Manifest) -> None:
    """Raises UserError if the code that trained a version is not known or not in this clone."""
    if made.commit == "none":
        raise UserError(
            f"version {version} has no commit: it was trained outside of a git repository, so its "
            "code is not known; train a new version in a repository"
        )
    if made.dirty:
        raise UserError(
            f"version {version} was trained with uncommitted changes (on {made.commit[:8]}), so "
            "its code is not known; commit, then train a new version"
        )
    if _git("cat-file", "-e", f"{made.commit}^{{commit}}").returncode:
        raise UserError(
            f"commit {made.commit[:12]} of version {version} is not here: run `git fetch` (in a "
            "shallow clone with --unshallow); if it was never pushed, push it from where it is"
        )


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """The project in a clean worktree of a commit, which is always removed in the end.

    Only one process at a time may do this; what a killed one left is removed first.
    """
    WORKTREES.mkdir(parents=True, exist_ok=True)
    folder = os.open(WORKTREES, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a kill frees the lock
        for left in WORKTREES.iterdir():
            _discard(left)
        root = WORKTREES / commit[:12]
        try:
            made = _git("worktree", "add", "--force", "--detach", str(root), commit)
            if made.returncode:
                raise UserError(f"git worktree add {root}: {_last(made.stderr)}")
            yield (root / _git("rev-parse", "--show-prefix").stdout.strip()).absolute()
        finally:
            _discard(root)
    except BlockingIOError:
        raise UserError(
            f"{WORKTREES}: `make reproduce` runs here already; wait until it ends"
        ) from None
    finally:
        os.close(folder)


def _discard(root: Path) -> None:
    _git("worktree", "remove", "--force", str(root))
    shutil.rmtree(root, ignore_errors=True)  # if git does not know it as a worktree


def _environment(folder: Path, made: Manifest) -> str:
    """The Python to train with.

    It is that of this environment if the lock is the version's; otherwise that of an environment
    that `make setup` creates in the worktree, if the commit has that lock; otherwise this one.
    """
    python = platform.python_version_tuple()[:2]
    here = lock() == made.lock and tuple((made.python or "").split(".")[:2]) in (python, ("",))
    if not here and lock(folder / LOCK) == made.lock:
        with step("make setup"):
            _run("setup", ["make", "setup"], folder, made)
        return str(folder / ".venv" / "bin" / "python")
    if LOCK.exists():  # so that the new manifest names the lock in use
        (folder / LOCK).parent.mkdir(exist_ok=True)
        shutil.copyfile(LOCK, folder / LOCK)
    return sys.executable


def _train(folder: Path, python: str, made: Manifest, snapshot: snapshots.Snapshot) -> Path:
    """Trains with the worktree's code; returns the bundle, which is removed with the worktree."""
    there = folder / snapshot.path
    there.parent.mkdir(parents=True, exist_ok=True)
    there.symlink_to(snapshot.path.absolute())
    command = [python, "-m", PACKAGE, "train", "--snapshot", snapshot.fingerprint]
    _run("training", command, folder, made)
    trained = json.loads((folder / "reports" / "train.json").read_text())
    return folder / VERSIONS / trained["version"]


def _variables(folder: Path, made: Manifest) -> dict[str, str]:
    """The environment variables, with the version's settings of [train] instead of the current
    ones, a registry in the worktree, no store, no webhook, and no signature."""
    hidden = ("TRAIN_", "DATA_", "MAKE", "MFLAGS", "VIRTUAL_ENV")
    found = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    for name, value in made.train.items():
        if value is not None:
            found[f"TRAIN_{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
    path = os.pathsep.join(filter(None, [str(folder / "src"), os.environ.get("PYTHONPATH")]))
    alone = {"DATA_STORE": " ", "EVENTS_WEBHOOK": " "}  # a space overrides the file's
    alone |= {signature.SIGNING: "", signature.TRUSTED: signature.NONE}
    return {**found, **LOCAL_VARIABLES, **alone, "PYTHONPATH": path}


def _run(what: str, command: list[str], folder: Path, made: Manifest) -> None:
    """Runs a command in the worktree; raises UserError with its last line if it fails."""
    given = _variables(folder, made)
    done = subprocess.run(
        command, cwd=folder, env=given, check=False, capture_output=True, text=True
    )
    if done.returncode:
        said = _last(done.stderr or done.stdout).removeprefix("error: ")
        raise UserError(f"the {what} at commit {made.commit[:12]} failed: {said}")


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], check=False, capture_output=True, text=True)


def _last(said: str) -> str:
    """The last line that is not empty."""
    return next(filter(None, reversed(said.splitlines())), "no output")
