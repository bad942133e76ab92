"""The registry in var/registry, for WANDB_MODE=offline: nothing of it is ever sent to W&B.

A version is a folder that a rename makes whole; an alias, a note and a move are a file each, which
a rename replaces. So pull requests, tests, and a machine without an account go round the cycle.
"""

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from ..bundle import intact
from ..console import say
from ..errors import BundleError, UserError
from ..files import write
from ..settings import ENVIRONMENTS, Settings
from .base import Move, Training, Trial, Version, place, pulled
from .tracking import log, log_search, tracked

ROOT = Path("var/registry")


class FolderRegistry:
    """The registered model of these settings, as base.py says of each method."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.model.name
        self.root = ROOT / self.name
        self.address = f"{self.root} (WANDB_MODE={os.environ.get('WANDB_MODE')}: not at W&B)"

    def run(self, name: str) -> AbstractContextManager[str]:
        """The id of a tracking run, which `wandb sync` may send later."""
        return tracked(self.name, name)

    def register(self, run: str, training: Training) -> str:
        """Logs all there is to know, then keeps the version here, and says so."""
        log(run, training)
        draft = self.root / "drafts" / run
        shutil.copytree(training.bundle.path, draft / "bundle")
        shutil.copytree(training.artifacts, draft / "report")
        lines = "".join(f"{line}\n" for line in training.requirements)
        (draft / "requirements.txt").write_text(lines)
        for key, value in {"run": run, **training.tags}.items():
            write(draft / "notes" / key, value)
        (self.root / "versions").mkdir(exist_ok=True)
        number = int(next(iter(self.numbers()), "0")) + 1
        while True:
            try:
                draft.rename(self._at(str(number)))
                break
            except OSError:  # another process took that number
                if not self._at(str(number)).exists():
                    raise
                number += 1
        say(f"version {number} is kept in {self.address}", style="yellow")
        return str(number)

    def track(self, name: str, trials: Sequence[Trial], artifacts: Path) -> str:
        """Logs a search and its trials, which `wandb sync` may send later."""
        return log_search(self.name, name, trials, artifacts)

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        held = {environment: self.alias(environment) for environment in ENVIRONMENTS}
        return [
            Version(
                version,
                self.note(version, "run"),
                self._at(version).stat().st_mtime,
                self._notes(version),
                [environment for environment in ENVIRONMENTS if held[environment] == version],
            )
            for version in self.numbers()
        ]

    def numbers(self) -> list[str]:
        """The versions, newest first."""
        found = [path.name for path in self.root.glob("versions/*")]
        return sorted(found, key=int, reverse=True)

    def alias(self, environment: str) -> str | None:
        """The version that an environment holds; None if it holds none."""
        version = _read(self.root / "aliases" / environment)
        return version if version and self._at(version).exists() else None

    def copy_into(self, environment: str, version: str, digest: str) -> None:
        """Nothing: all environments hold versions of one model."""

    def set_alias(self, environment: str, version: str) -> None:
        """Makes an environment hold a version."""
        self._kept(version)
        write(self.root / "aliases" / environment, version)

    def tag(self, version: str, key: str, value: str, environment: str = "test") -> None:
        """Writes a note on a version."""
        write(self._kept(version) / "notes" / key, value)

    def note(self, version: str, key: str, environment: str = "test") -> str:
        """What `tag` wrote on a version; empty if nothing."""
        return _read(self._kept(version) / "notes" / key)

    def pull(self, version: str, to: Path, environment: str = "test") -> Path:
        """Puts a version's bundle at `to`/`version`, whole or not at all, and returns that."""
        kept, digest = self._kept(version), self.note(version, "bundle")

        def fetch(draft: Path) -> Path:
            if not intact(kept / "bundle", digest):
                raise BundleError(f"{kept}: is not the one that was registered; refused")
            return Path(shutil.copytree(kept / "bundle", draft))

        return pulled(to, version, digest, fetch)

    def intend(self, move: Move) -> Move:
        """Writes down that a move begins; `close` or `abandon` ends it."""
        move.id = uuid.uuid4().hex
        self._write_move(move, "open")
        return move

    def close(self, move: Move) -> None:
        """Writes down that a move was made, after all that were closed before."""
        if place(move, self.moves(move.environment)):
            self._write_move(move, "closed")

    def abandon(self, move: Move) -> None:
        """Writes down that a move was not made."""
        self._write_move(move, "abandoned")

    def moves(self, environment: str, closed: bool = True) -> list[Move]:
        """The moves of an environment in the order they were closed; with closed=False, those
        that were begun and neither closed nor abandoned."""
        found = [json.loads(path.read_text()) for path in self.root.glob("moves/*.json")]
        moves = [
            Move(**kept["move"])
            for kept in found
            if kept["move"]["environment"] == environment
            and kept["state"] == ("closed" if closed else "open")
        ]
        return sorted(moves, key=lambda m: (m.at, m.id))

    def _notes(self, version: str) -> dict[str, str]:
        names = sorted(path.name for path in (self._at(version) / "notes").glob("[!.]*"))
        return {name: self.note(version, name) for name in names}

    def _write_move(self, move: Move, state: str) -> None:
        text = json.dumps({"state": state, "move": asdict(move)})
        write(self.root / "moves" / f"{move.id}.json", text)

    def _at(self, version: str) -> Path:
        return self.root / "versions" / version

    def _kept(self, version: str) -> Path:
        """A version's folder; raises UserError if there is none."""
        if version not in self.numbers():
            raise UserError(f"{self.root}: keeps no version {version}; see `make status`")
        return self._at(version)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
