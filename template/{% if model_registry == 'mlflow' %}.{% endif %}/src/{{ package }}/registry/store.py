"""The registry in MLflow: one run a training and one a move, versions, and their aliases.

Without MLFLOW_TRACKING_URI it is a SQLite file in var/. A version's artifact holds the bundle,
and `mlflow.pyfunc.load_model` predicts with it through the same code as the server. What nothing
changes once it is written is a run that is closed: so each move is a run of its own.
"""

import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# MLflow's defaults wait too long: 7 retries take four minutes, each waits two minutes for a silent
# server, and a Retry-After header may ask for hours.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")
# Else a client needs a way to the bucket too, which only the server is sure to have.
os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from mlflow.entities import Metric, Param, ViewType
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from sqlalchemy.exc import SQLAlchemyError

from ..bundle import digest_of
from ..contract import ALIASES
from ..errors import (
    BundleError,
    NotPermitted,
    RegistryUnavailable,
    UserError,
    reason,
    shown,
)
from ..project.features import Features
from ..settings import ENVIRONMENTS, Settings
from ..training.provenance import git, user
from .base import Move, Registry, Training, Trial, Version, place, pulled

LOCAL = Path("var")
DATABASE = LOCAL / "mlflow.db"
ARTIFACTS = LOCAL / "artifacts"
LOCATIONS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Where MLflow's database says where artifacts are."""
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
LOCAL_VARIABLES = {"MLFLOW_TRACKING_URI": "", "MLFLOW_REGISTRY_URI": ""}
"""Environment variables that keep the registry in the current folder."""
_STATUS_IN_MESSAGE = re.compile(
    r"(?:failed with error code|too many) (?P<status>\d{3})\b"
    r"|\b(?P<http>\d{3}) (?:Client|Server) Error\b"
)
"""How the messages of MLflow's client contain the HTTP status of an answer."""


def connect(settings: Settings) -> Registry:
    """The registry of these settings; raises RegistryUnavailable when it does not answer."""
    return MlflowRegistry(settings)


def credentials() -> str:
    """The names of the credentials that are set; raises UserError if no login is complete."""
    found = [name for name in CREDENTIALS if os.environ.get(name)]
    *login, token = CREDENTIALS
    lacks = [name for name in login if name not in found]
    if lacks and token not in found:
        raise UserError(
            f"not set: {' and '.join(lacks)} (or {token}); a server without a login needs none"
        )
    return ", ".join(found)


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turns what a call to MLflow may raise into RegistryUnavailable, or UserError for what is not
    there."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        uri = mlflow.get_tracking_uri()
        kind, said = RegistryUnavailable, reason(error, uri)
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":  # it did answer
            raise UserError(f"registry {shown(uri)}: {said}; see `make status`") from error
        hint = (
            "check that the server runs and MLFLOW_TRACKING_URI names it; its log says whether its "
            "database or its artifact store is down"
        )
        status = _status(error)
        if status == 401:
            user, password, token = CREDENTIALS
            said, hint = "it refuses this login", f"set {user} and {password}, or {token}"
        elif status == 403:
            kind, hint = NotPermitted, "ask who manages it for the permission"
        elif status == 429:
            hint = "too many requests; try again later"
        raise kind(f"registry {shown(uri)}: {said}; {hint}") from error


def _status(error: Exception) -> int:
    """The HTTP status that a server answered with; 0 if it did not answer."""
    if getattr(error, "error_code", "") == "PERMISSION_DENIED":
        return 403
    found = _STATUS_IN_MESSAGE.search(str(error))
    return int(found["status"] or found["http"]) if found else 0


def retry_once(call: Callable[..., object], *given: object) -> None:
    """Calls again, once, if another process wrote the same row at the same moment.

    MLflow inserts a row that it did not find; the database refuses the second insert.
    """
    try:
        call(*given)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        call(*given)


def all_pages(search: Callable[[str | None], PagedList[Any]]) -> list[Any]:
    """All pages of a search, given how to get the one at a token."""
    found: list[Any] = []
    token = None
    while True:
        page = search(token)
        found += page
        token = page.token
        if not token:
            return found


class MlflowRegistry:
    """The registered model of these settings, as base.py says of each method."""

    def __init__(self, settings: Settings) -> None:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self.name = settings.model.name
        self.apart = settings.model.per_environment
        given = os.environ.get("MLFLOW_TRACKING_URI", "")
        self.address = shown(given) or f"{DATABASE} (set MLFLOW_TRACKING_URI for a server)"
        token = os.environ.get(CREDENTIALS[2], "")
        if given and "".join(token.split()) != token:  # what refuses it later would show it
            raise UserError(f"{CREDENTIALS[2]}: has a blank or a line end in it; set it without")
        mlflow.set_tracking_uri(given or _local())
        with mlflow_errors():
            if mlflow.get_tracking_uri() == _local():
                LOCAL.mkdir(exist_ok=True)
            self.client = mlflow.MlflowClient()
            _keep_movable()
            if given:  # every user may do this; a wrong password fails here, before the work
                self.client.search_registered_models(max_results=1)

    @contextmanager
    def run(self, name: str) -> Iterator[str]:
        """The id of a tracking run; it ends as FAILED when what it holds raises."""
        with mlflow_errors():
            experiment = self._experiment(self.name)
            self._mark_dead_runs(experiment)
            here = {
                "host": socket.gethostname(),
                "pid": str(os.getpid()),
                "mlflow.user": user(),
                "mlflow.source.name": "make train",
                "mlflow.source.git.commit": git()[0],
            }
            run = self.client.create_run(experiment, run_name=name, tags=here)
        try:
            yield run.info.run_id
        except BaseException:
            with suppress(MlflowException, SQLAlchemyError, OSError):  # what happened counts more
                self.client.set_terminated(run.info.run_id, "FAILED")
            raise
        with mlflow_errors():
            self.client.set_terminated(run.info.run_id)

    def register(self, run: str, training: Training) -> str:
        """Logs all there is to know, then registers the version as the last step of all.

        Returns the version. Nothing is registered when it is interrupted.
        """
        with mlflow_errors():
            now = int(time.time() * 1000)
            self.client.log_batch(
                run,
                [Metric(name, value, now, 0) for name, value in training.metrics.items()],
                [Param(key, str(value)[:500]) for key, value in training.parameters.items()],
            )
            self._log_dataset(run, training)
            self.client.log_artifacts(run, str(training.artifacts))
            model = self._log_model(run, training)
            self._make(self.name)
            made = self.client.create_model_version(
                self.name,
                f"models:/{model}",
                run,
                tags=training.tags,
                await_creation_for=60,
                model_id=model,
                description=training.description,
            )
        return str(made.version)

    def track(self, name: str, trials: Sequence[Trial], artifacts: Path) -> str:
        """Logs a search: a run with a folder of pictures, and below it a run of each trial."""
        with self.run(name) as search, mlflow_errors():
            self.client.log_artifacts(search, str(artifacts))
            experiment = self._experiment(self.name)
            for trial in trials:
                tags = {"mlflow.parentRunId": search, "mlflow.user": user(), "error": trial.error}
                run = self.client.create_run(
                    experiment, run_name=f"trial {trial.number}", tags=tags
                ).info.run_id
                now = int(time.time() * 1000)
                metrics = {**trial.metrics, "seconds": trial.seconds}
                self.client.log_batch(
                    run,
                    [Metric(key, value, now, 0) for key, value in metrics.items()],
                    [Param(key, str(value)[:500]) for key, value in trial.parameters.items()],
                )
                self.client.set_terminated(run, "FAILED" if trial.error else "FINISHED")
        return search

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        with mlflow_errors():
            found = self._versions(self.name)
        held: dict[str, list[str]] = {}
        for environment in ENVIRONMENTS:
            if version := self.alias(environment):
                held.setdefault(version, []).append(environment)
        return [
            Version(
                str(v.version),
                v.run_id or "",
                v.creation_timestamp / 1000,
                v.tags,
                held.get(str(v.version), []),
            )
            for v in found
        ]

    def numbers(self) -> list[str]:
        """The versions, newest first, without what holds them, which not everyone may read."""
        with mlflow_errors():
            return [str(v.version) for v in self._versions(self.name)]

    def alias(self, environment: str) -> str | None:
        """The version that an environment holds; None if it holds none."""
        model = self.model(environment)
        with mlflow_errors():
            registered = self._registered(model)
            if registered is None or environment not in registered.aliases:
                return None
            number = str(registered.aliases[environment])
            if model == self.name:
                return number
            return self._original(self.client.get_model_version(model, number))

    def copy_into(self, environment: str, version: str, digest: str) -> None:
        """Lets an environment keep the version whose bundle has that digest.

        Raises BundleError when it keeps another bundle under that number.
        """
        model = self.model(environment)
        if model == self.name:
            return
        with mlflow_errors():
            number = self._number(model, version) or self._copy(model, version, digest)
            kept = self.client.get_model_version(model, number).tags.get("bundle")
        if kept != digest:
            raise BundleError(
                f"{model} {number}: is another bundle than version {version} of {self.name}; "
                f"delete that one, then promote again"
            )

    def set_alias(self, environment: str, version: str) -> None:
        """Makes an environment hold a version that it keeps."""
        model = self.model(environment)
        with mlflow_errors():
            number = self._number(model, version)
            if number is None:
                raise UserError(
                    f"{model}: keeps no version {version}, which its last move names; was that "
                    f"move made by a promotion? If not, delete its run in {model}-moves"
                )
            retry_once(self.client.set_registered_model_alias, model, environment, number)

    def tag(self, version: str, key: str, value: str, environment: str = "test") -> None:
        """Writes a note on a version, where an environment keeps it."""
        with mlflow_errors():
            retry_once(
                self.client.set_model_version_tag, *self._kept(environment, version), key, value
            )

    def note(self, version: str, key: str, environment: str = "test") -> str:
        """What `tag` wrote on a version; empty if nothing."""
        with mlflow_errors():
            kept = self.client.get_model_version(*self._kept(environment, version))
        return kept.tags.get(key, "")

    def pull(self, version: str, to: Path, environment: str = "test") -> Path:
        """Puts a version's bundle at `to`/`version`, whole or not at all, and returns that.

        Raises BundleError when it is not the bundle that was registered, or promoted into
        `environment`.
        """
        model, number = self._kept(environment, version)
        digest = self.note(version, "bundle", environment)

        def fetch(draft: Path) -> Path:
            with mlflow_errors():
                got = mlflow.artifacts.download_artifacts(
                    f"models:/{model}/{number}", dst_path=str(draft)
                )
            manifest = next(Path(got).glob("data/*/manifest.json"), None)
            if manifest is None:
                raise UserError(
                    f"{model} {number}: contains no bundle: it was not made by train, or the "
                    "server's artifact store has lost it"
                )
            if digest_of(manifest.parent) != digest:
                raise BundleError(
                    f"{model} {number}: the manifest is not the one that was registered; refused"
                )
            return manifest.parent

        return pulled(to, version, digest, fetch)

    def intend(self, move: Move) -> Move:
        """Writes down that a move begins; `close` or `abandon` ends it."""
        with mlflow_errors():
            run = self.client.create_run(
                self._experiment(f"{self.model(move.environment)}-moves"),
                run_name=f"{move.kind} {move.environment} {move.to}",
                tags={
                    "environment": move.environment,
                    "kind": move.kind,
                    "to": move.to,
                    "back_from": move.back_from,
                    "by": move.by,
                    "commit": move.commit,
                    "gates": json.dumps(move.gates),
                },
            )
        move.id = run.info.run_id
        return move

    def close(self, move: Move) -> None:
        """Writes down that a move was made, after all that were closed before, whatever the
        clocks say of those who made them."""
        if place(move, self.moves(move.environment)):
            with mlflow_errors():
                retry_once(self.client.set_tag, move.id, "closed", repr(move.at))
                self.client.set_terminated(move.id)

    def abandon(self, move: Move) -> None:
        """Writes down that a move was not made."""
        with mlflow_errors():
            self.client.set_terminated(move.id, "KILLED")

    def moves(self, environment: str, closed: bool = True) -> list[Move]:
        """The moves of an environment in the order they were closed; with closed=False, those
        that were begun and neither closed nor abandoned."""
        with mlflow_errors():
            kept = self.client.get_experiment_by_name(f"{self.model(environment)}-moves")
            if kept is None:  # who makes it may manage it: that is not who only looks
                return []
            found = all_pages(
                lambda token: self.client.search_runs(
                    [kept.experiment_id],
                    f"tags.environment = '{environment}' and attributes.status = "
                    f"'{'FINISHED' if closed else 'RUNNING'}'",
                    ViewType.ACTIVE_ONLY,
                    page_token=token,
                )
            )
        moves = []
        for run in found:
            t = run.data.tags
            moves.append(
                Move(
                    t["environment"],
                    t["kind"],
                    t["to"],
                    t["back_from"],
                    t["by"],
                    t["commit"],
                    json.loads(t["gates"]),
                    run.info.run_id,
                    float(t.get("closed", 0)),
                )
            )
        return sorted(moves, key=lambda m: (m.at, m.id))

    def model(self, environment: str) -> str:
        """The registered model that says what an environment holds."""
        return f"{environment}.{self.name}" if self.apart and environment != "test" else self.name

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found:
            return found.experiment_id
        local = mlflow.get_tracking_uri().startswith("sqlite:")
        where = str(ARTIFACTS.absolute()) if local else None
        try:
            kind = {"mlflow.experimentKind": "custom_model_development"}
            made = self.client.create_experiment(name, artifact_location=where, tags=kind)
            _keep_movable()
            return made
        except MlflowException:  # another process was faster
            found = self.client.get_experiment_by_name(name)
            if not found:
                raise
            return found.experiment_id

    def _make(self, model: str) -> None:
        try:
            self.client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _mark_dead_runs(self, experiment: str) -> None:
        """Marks this machine's runs whose process is gone: a killed one could not do it itself."""
        for run in self.client.search_runs(
            [experiment],
            f"attributes.status = 'RUNNING' and tags.host = '{socket.gethostname()}'",
        ):
            if not _alive(int(run.data.tags["pid"])):
                self.client.set_terminated(run.info.run_id, "KILLED")
                shutil.rmtree(LOCAL / "runs" / run.info.run_id, ignore_errors=True)

    def _log_dataset(self, run: str, training: Training) -> None:
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        with warnings.catch_warnings(action="ignore"):
            digest = training.bundle.manifest.data
            data = from_pandas(
                training.frame, source=training.source, name=self.name, digest=digest
            )
            entity = data._to_mlflow_entity()
        inputs = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        retry_once(self.client.log_inputs, run, inputs)

    def _log_model(self, run: str, training: Training) -> str:
        from mlflow.models import ModelSignature, infer_signature
        from mlflow.types.schema import AnyType, ColSpec, Schema

        from . import pyfunc

        # The contract judges the rows: MLflow would refuse an integer where a number is a double.
        given = Schema(
            [
                ColSpec(AnyType(), [*ALIASES.get(name, ()), name][0], required=field.is_required())
                for name, field in Features.model_fields.items()
            ]
        )
        with mlflow.start_run(run_id=run), warnings.catch_warnings(action="ignore"):
            frame, bundle = training.frame, training.bundle
            answers = infer_signature(
                frame, pyfunc.BundleModel(bundle).predict(frame.head(5))
            ).outputs
            signature = ModelSignature(given, answers)
            model = mlflow.pyfunc.log_model(
                name="model",
                loader_module=pyfunc.__name__,
                data_path=str(bundle.path),
                code_paths=[str(Path(__file__).parents[1])],
                signature=signature,
                pip_requirements=training.requirements,
            )
        self.client.update_run(run, "RUNNING")  # leaving start_run ended it, and it is not over
        return model.model_id

    def _versions(self, model: str) -> list[ModelVersion]:
        """Newest first."""
        found = all_pages(
            lambda token: self.client.search_model_versions(f"name = '{model}'", page_token=token)
        )
        return sorted(found, key=lambda v: int(v.version), reverse=True)

    def _registered(self, model: str) -> RegisteredModel | None:
        try:
            return self.client.get_registered_model(model)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _original(self, copy: ModelVersion) -> str | None:
        """The version that a copy is of, by its source, which nobody can change."""
        model, _, version = str(copy.source).removeprefix("models:/").rpartition("/")
        return version if model == self.name else None

    def _number(self, model: str, version: str) -> str | None:
        """The number of a version in a registered model; None if that has no copy of it."""
        if model == self.name:
            return version
        copies = [c.version for c in self._versions(model) if self._original(c) == version]
        return str(copies[-1]) if copies else None

    def _kept(self, environment: str, version: str) -> tuple[str, str]:
        """The registered model where an environment keeps a version, and its number there."""
        model = self.model(environment)
        number = self._number(model, version)
        if number is None:
            raise UserError(
                f"{model}: has no copy of version {version}; "
                f"`make promote ENV={environment} VERSION={version}` makes it"
            )
        return model, number

    def _copy(self, model: str, version: str, digest: str) -> str:
        self._make(model)
        original = self.client.get_model_version(self.name, version)
        copy = self.client.create_model_version(
            model,
            f"models:/{self.name}/{version}",
            original.run_id,
            tags={**original.tags, "bundle": digest},
            description=original.description,
            model_id=original.model_id,
        )
        return str(copy.version)


def _local() -> str:
    """The address of the registry in var/, where none is given."""
    full = str(DATABASE.absolute())
    return f"sqlite:///{DATABASE if set('?%') & set(full) else full}"  # these end or change a path


def _keep_movable() -> None:
    """Lets the registry in var/ move with its folder, or be mounted elsewhere.

    MLflow writes where artifacts are as full paths. What lies in var/artifacts, of this folder or
    of what it was before, becomes relative to the project, where every command runs.
    """
    if mlflow.get_tracking_uri() != _local() or not os.access(DATABASE, os.W_OK):
        return
    full = "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ?"
    with closing(sqlite3.connect(DATABASE, timeout=60)) as db, db:
        for (root,) in db.execute(full, (f"/%/{ARTIFACTS}",)).fetchall():
            for table, column in LOCATIONS.items():
                db.execute(
                    f"UPDATE {table} SET {column} = :here || substr({column}, length(:root) + 1) "
                    f"WHERE substr({column} || '/', 1, length(:root) + 1) = :root || '/'",
                    {"root": root, "here": str(ARTIFACTS)},
                )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
