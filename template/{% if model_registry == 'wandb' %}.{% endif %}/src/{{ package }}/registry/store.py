"""The registry in W&B: one run a training and one a move, versions of a collection, their aliases.

WANDB_BASE_URL, WANDB_API_KEY, WANDB_ENTITY and the client's other variables say where and who. With
WANDB_MODE=offline nothing is sent, and versions are kept in var/ (folder.py). A version is a link
in the registry's collection, and the link comes last: it is there whole or not at all. W&B cannot
compare and set, so each move is a run of its own; who may change an alias that the registry
protects says who promotes. Lists may lag behind what was written, so what writes waits for them.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_HTTP_TIMEOUT", "20")
# The client's own retries take an hour.
os.environ.setdefault("WANDB__GRAPHQL_RETRY_MAX", "3")
os.environ.setdefault("WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS", "3")
os.environ.setdefault("WANDB__FILE_STREAM_RETRY_MAX", "3")
os.environ.setdefault("WANDB__FILE_STREAM_RETRY_WAIT_MAX_SECONDS", "3")
os.environ.setdefault("WANDB__FILE_TRANSFER_RETRY_MAX", "3")
os.environ.setdefault("WANDB__FILE_TRANSFER_RETRY_WAIT_MAX_SECONDS", "3")
os.environ.setdefault("WANDB_DIR", "var")
os.environ.setdefault("WANDB_DATA_DIR", "var/wandb")

import wandb
from pydantic import ValidationError
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from ..bundle import intact
from ..errors import BundleError, NotPermitted, RegistryUnavailable, UserError, reason, shown
from ..settings import ENVIRONMENTS, Settings
from .base import Move, Registry, Training, Trial, Version, place, pulled
from .folder import FolderRegistry
from .tracking import OFFLINE, log, log_search, tracked

for _name in [name for name in os.environ if name.startswith("WANDB_")]:
    if not os.environ[_name]:  # a pipeline passes unset variables as empty; W&B refuses them
        del os.environ[_name]

CREDENTIALS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
LOCAL_VARIABLES = {"WANDB_MODE": "offline", "WANDB_DIR": "var", "WANDB_DATA_DIR": "var/wandb"}
"""Environment variables that keep the registry in the current folder."""
KIND = "model"
"""The type of the artifacts."""
TIMEOUT = 20
"""Seconds that one question to W&B may take."""
UPLOAD = 600
"""Seconds that a bundle may take."""
LAG = 30.0
"""Seconds that a list may lag behind."""


def connect(settings: Settings) -> Registry:
    """The registry of these settings; raises UserError where no credentials are set."""
    if os.environ.get("WANDB_MODE", "") in OFFLINE:
        return FolderRegistry(settings)
    return WandbRegistry(settings)


def credentials() -> str:
    """The names of W&B's credentials that are set.

    Raises UserError if none is, or if W&B's client refuses the value of one of its variables.
    """
    try:
        wandb.setup()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = f"WANDB_{str(first['loc'][0]).upper()}"
        raise UserError(f"{variable}={shown(str(first['input']))}: {first['msg']}") from None
    except wandb.Error as error:  # such as a key that was pasted with its line end
        raise UserError(f"W&B's variables (WANDB_...): {reason(error)}") from None
    found = [name for name in CREDENTIALS if os.environ.get(name)]
    if not found and _logged_in():
        found = ["`wandb login`"]
    if not found:
        raise UserError(
            f"none of W&B's credentials is set: set {' or '.join(CREDENTIALS)}, or WANDB_MODE="
            "offline to train, promote and serve on this machine alone"
        )
    return ", ".join(found)


@contextmanager
def wandb_errors() -> Iterator[None]:
    """Turns what a call to W&B may raise into RegistryUnavailable."""
    try:
        yield
    except UserError:
        raise
    except (wandb.Error, WandbApiFailedError, ValueError, OSError, TimeoutError) as error:
        kind, said = RegistryUnavailable, reason(error)
        hint = "check WANDB_BASE_URL, the credentials, and WANDB_ENTITY"
        if _refused(error):
            kind, hint = NotPermitted, "ask who manages it for the permission"
        elif "did not respond in time" in said:  # the client obeys any Retry-After
            said = f"no good answer within {TIMEOUT} s"
            hint = "is it down, unreachable, or limiting requests? Try again later"
        raise kind(f"registry {_address()}: {said}; {hint}") from error


class WandbRegistry:
    """The registered model of these settings, as base.py says of each method."""

    def __init__(self, settings: Settings) -> None:
        logging.getLogger("wandb").setLevel(logging.ERROR)
        credentials()
        self.name = settings.model.name
        self.apart = settings.model.per_environment
        self.registry = settings.model.registry
        organization = os.environ.get("WANDB_ORGANIZATION", "")
        self.path = "/".join(
            filter(None, [organization, f"wandb-registry-{self.registry}", self.name])
        )
        self.address = f"{_address()} {self.path}"

    @cached_property
    def api(self) -> "wandb.Api":
        """The client, which knows the team and the organization; raises when W&B is away."""
        api = wandb.Api(timeout=TIMEOUT)
        api.artifacts(KIND, self.path)  # finds the organization, once
        return api

    @cached_property
    def entity(self) -> str:
        """The team that the runs are of."""
        found = self.api.settings["entity"] or self.api.default_entity
        if not found:
            raise UserError("W&B knows no team of yours; set WANDB_ENTITY")
        return str(found)

    def run(self, name: str) -> AbstractContextManager[str]:
        """The id of a tracking run; it ends as failed when what it holds raises."""
        with wandb_errors():
            api = self.api
            try:
                api.registry(self.registry, os.environ.get("WANDB_ORGANIZATION"))
            except (wandb.Error, ValueError) as error:
                if not _absent(error):
                    raise
                raise UserError(
                    f"{_address()}: there is no registry {self.registry}, or you may not see it; "
                    "make it there, or set MODEL_REGISTRY"
                ) from None
            return _mapped(tracked(self.name, name, self.entity))

    def register(self, run: str, training: Training) -> str:
        """Logs all there is to know, then registers the version as the last step of all.

        Returns the version. Nothing is registered when it is interrupted.
        """
        with wandb_errors():
            logged = log(run, training)
            made = wandb.Artifact(
                self.name,
                KIND,
                description=training.description,
                metadata={"run": run, **training.tags},
            )
            made.add_dir(str(training.bundle.path), "bundle", skip_cache=True, policy="immutable")
            made.add_dir(str(training.artifacts), "report", skip_cache=True)
            with made.new_file("requirements.txt") as file:
                file.write("".join(f"{line}\n" for line in training.requirements))
            logged.log_artifact(made)
            made.wait(UPLOAD)
            version = _number(made.link(self.path))
            self._wait_for(f"version {version}", lambda: version in self.numbers())
        return version

    def track(self, name: str, trials: Sequence[Trial], artifacts: Path) -> str:
        """Logs a search: a run with pictures, and a run of each trial in one group with it."""
        with wandb_errors():
            return log_search(self.name, name, trials, artifacts, self.entity)

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        with wandb_errors():
            return [
                Version(
                    _number(artifact),
                    artifact.metadata.get("run", ""),
                    datetime.fromisoformat(artifact.created_at).timestamp(),
                    {key: str(value) for key, value in artifact.metadata.items()},
                    [e for e in ENVIRONMENTS if e in artifact.aliases],
                )
                for artifact in self._versions()
            ]

    def numbers(self) -> list[str]:
        """The versions, newest first."""
        with wandb_errors():
            return [_number(artifact) for artifact in self._versions()]

    def alias(self, environment: str) -> str | None:
        """The version that an environment holds; None if it holds none."""
        with wandb_errors():
            held = self._find(environment)
            return _number(held) if held else None

    def copy_into(self, environment: str, version: str, digest: str) -> None:
        """Nothing: all environments hold versions of one collection, whose content is fixed."""

    def set_alias(self, environment: str, version: str) -> None:
        """Makes an environment hold a version; W&B takes the alias from the one before."""
        with wandb_errors():
            kept = self._kept(version)
            if environment not in kept.aliases:
                kept.aliases.append(environment)
                kept.save()

    def tag(self, version: str, key: str, value: str, environment: str = "test") -> None:
        """Writes a note on a version."""
        with wandb_errors():
            kept = self._kept(version)
            kept.metadata[key] = value
            kept.save()
            if self._kept(version).metadata.get(key) != value:  # the client only warns of it
                raise NotPermitted(
                    f"registry {_address()}: version {version} keeps no note of yours; ask for the "
                    f"right to write to the project {kept.source_project}"
                )

    def note(self, version: str, key: str, environment: str = "test") -> str:
        """What `tag` wrote on a version; empty if nothing."""
        with wandb_errors():
            return str(self._kept(version).metadata.get(key, ""))

    def pull(self, version: str, to: Path, environment: str = "test") -> Path:
        """Puts a version's bundle at `to`/`version`, whole or not at all, and returns that.

        Raises BundleError when it is not the bundle that was registered.
        """
        with wandb_errors():
            kept = self._kept(version)
        digest = str(kept.metadata.get("bundle", ""))

        def fetch(draft: Path) -> Path:
            with wandb_errors():
                kept.download(str(draft), skip_cache=True, path_prefix="bundle/")
            inside = draft / "bundle"
            if not (inside / "manifest.json").exists():
                raise UserError(f"{self.name} {version}: holds no bundle; was it made by train?")
            if not intact(inside, digest):
                raise BundleError(
                    f"{self.name} {version}: is not the one that was registered; refused"
                )
            return inside

        return pulled(to, version, digest, fetch)

    def intend(self, move: Move) -> Move:
        """Writes down that a move begins; `close` or `abandon` ends it."""
        config = {
            "environment": move.environment,
            "kind": move.kind,
            "to": move.to,
            "back_from": move.back_from,
            "by": move.by,
            "commit": move.commit,
            "gates": move.gates,
        }
        with wandb_errors():
            name = f"{move.kind} {move.environment} {move.to}"
            with tracked(self._history(move.environment), name, self.entity, config) as run:
                move.id = run
            self._wait_for(
                f"move {move.id}", lambda: move.id in [r.id for r in self._runs(move.environment)]
            )
        return move

    def close(self, move: Move) -> None:
        """Writes down that a move was made, after all that were closed before, whatever the
        clocks say of those who made them."""
        if place(move, self.moves(move.environment)):
            self._mark(move, "closed", move.at)

    def abandon(self, move: Move) -> None:
        """Writes down that a move was not made."""
        self._mark(move, "abandoned", time.time())

    def moves(self, environment: str, closed: bool = True) -> list[Move]:
        """The moves of an environment in the order they were closed; with closed=False, those
        that were begun and neither closed nor abandoned."""
        with wandb_errors():
            found = [(run.id, run.config) for run in self._runs(environment)]
        moves = [
            Move(
                c["environment"],
                c["kind"],
                c["to"],
                c["back_from"],
                c["by"],
                c["commit"],
                c.get("gates", {}),  # W&B keeps no empty one
                run,
                float(c.get("closed", 0)),
            )
            for run, c in found
            if ("closed" in c if closed else not {"closed", "abandoned"} & set(c))
        ]
        return sorted(moves, key=lambda m: (m.at, m.id))

    def _history(self, environment: str) -> str:
        """The project that keeps an environment's moves."""
        apart = self.apart and environment != "test"
        return f"{environment}.{self.name}-moves" if apart else f"{self.name}-moves"

    def _runs(self, environment: str) -> list[Any]:
        """The runs of an environment's moves; none where nothing was ever moved."""
        wanted = {"config.environment.value": environment}
        path = f"{self.entity}/{self._history(environment)}"
        self.api.flush()  # else it would say what it said before
        return _listed(self.api.runs(path, wanted, per_page=100, lazy=False))

    def _mark(self, move: Move, key: str, at: float) -> None:
        project = self._history(move.environment)
        with wandb_errors():
            self.api.flush()
            run = self.api.run(f"{self.entity}/{project}/{move.id}")
            run.config[key] = at
            run.update()
            self._wait_for(
                f"move {move.id}",
                lambda: any(
                    r.id == move.id and key in r.config for r in self._runs(move.environment)
                ),
            )

    def _versions(self) -> list[Any]:
        """Newest first."""
        found = _listed(self.api.artifacts(KIND, self.path, per_page=100))
        return sorted(found, key=lambda artifact: int(_number(artifact)), reverse=True)

    def _find(self, name: str) -> Any:
        """The version of a number, such as v3, or of an alias; None if there is none."""
        try:
            return self.api.artifact(f"{self.path}:{name}")
        except wandb.Error as error:
            if _absent(error):
                return None
            raise

    def _kept(self, version: str) -> Any:
        """A version; raises UserError if there is none."""
        found = self._find(f"v{version}")
        if found is None:
            raise UserError(
                f"{self.name}: W&B keeps no version {version} in registry {self.registry}; "
                "see `make status`"
            )
        return found

    def _wait_for(self, what: str, seen: Callable[[], bool]) -> None:
        """Waits until what was written can be read by everyone."""
        end = time.monotonic() + LAG
        while not seen():
            if time.monotonic() > end:
                raise RegistryUnavailable(
                    f"registry {_address()}: {what} is written, but not listed after {LAG:.0f} s; "
                    "see `make status` in a while"
                )
            time.sleep(0.2)


def _number(artifact: Any) -> str:
    """W&B's v3 is version 3: in the registry, which of a listed artifact only its name tells."""
    found = re.search(r":v(\d+)$", artifact.name)
    return found[1] if found else str(artifact.version).removeprefix("v")


def _listed(found: Any) -> list[Any]:
    """What a list of the client holds; nothing if what it is of is not there yet."""
    try:
        return list(found)
    except ValueError as error:
        if _absent(error):
            return []
        raise


def _absent(error: Exception) -> bool:
    """Whether W&B answered, and has no such thing: the client says so by a ValueError alone."""
    inner = getattr(error, "exc", None) or error
    return type(inner) is ValueError and inner.__cause__ is None


@contextmanager
def _mapped(run: AbstractContextManager[str]) -> Iterator[str]:
    """A run, where errors of beginning and ending it are W&B's, and those within stay their own."""
    with wandb_errors():
        id = run.__enter__()
    try:
        yield id
    except BaseException as error:
        run.__exit__(type(error), error, error.__traceback__)
        raise
    with wandb_errors():
        run.__exit__(None, None, None)


def _refused(error: BaseException) -> bool:
    """Whether W&B said that this account may not do it."""
    inner = getattr(error, "exc", None) or error
    answer = getattr(inner, "response", None)
    status = getattr(answer, "http_status", None) or getattr(answer, "status_code", None)
    return status == 403 or bool(re.search("permission|forbidden", str(error), re.IGNORECASE))


def _address() -> str:
    return shown(str(wandb.setup().settings.base_url))


def _logged_in() -> bool:
    """Whether `wandb login` left a key for the server."""
    import netrc

    try:
        known = netrc.netrc(os.environ.get("NETRC") or None)
    except (OSError, netrc.NetrcParseError):
        return False
    return known.authenticators(urlsplit(_address()).hostname or "") is not None
