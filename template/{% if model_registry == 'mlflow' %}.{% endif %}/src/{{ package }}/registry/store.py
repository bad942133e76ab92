"""MLflow's tracking: one run a training, with all there is to know of it.

Without MLFLOW_TRACKING_URI it is a SQLite file in var/. A version's artifact holds the bundle,
and `mlflow.pyfunc.load_model` predicts with it through the same code as the server.
"""

import logging
import os
import shutil
import socket
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the client's 7 take four minutes
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from sqlalchemy.exc import SQLAlchemyError

from .bundle import Bundle
from .contract import ALIASES
from .errors import NotPermitted, RegistryUnavailable, reason, shown
from .project.features import Features
from .provenance import git, user
from .settings import Settings

if TYPE_CHECKING:  # what follows a registry needs no table
    import pandas as pd

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


@contextmanager
def asked() -> Iterator[None]:
    """Turns what a call to MLflow may raise into RegistryUnavailable."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        kind = RegistryUnavailable
        hint = "check that the server runs and MLFLOW_TRACKING_URI names it"
        if getattr(error, "error_code", "") == "PERMISSION_DENIED":
            kind, hint = NotPermitted, "ask who manages it for the permission"
        uri = mlflow.get_tracking_uri()
        raise kind(f"registry {shown(uri)}: {reason(error, uri)}; {hint}") from error


def every(search: Callable[[str | None], PagedList]) -> list[Any]:
    """All pages of a search, given how to get the one at a token."""
    found: list[Any] = []
    token = None
    while True:
        page = search(token)
        found += page
        token = page.token
        if not token:
            return found


class Tracking:
    """The runs of these settings' model. Every method raises RegistryUnavailable."""

    def __init__(self, settings: Settings) -> None:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self.name = settings.model.name
        self.apart = settings.model.per_environment
        mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or _local())
        with asked():
            if mlflow.get_tracking_uri() == _local():
                LOCAL.mkdir(exist_ok=True)
            self.client = mlflow.MlflowClient()
            _keep_movable()

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

    @contextmanager
    def run(self, name: str) -> Iterator[str]:
        """The id of a tracking run; it ends as FAILED when what it holds raises."""
        with asked():
            experiment = self._experiment(self.name)
            self._bury(experiment)
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
        with asked():
            self.client.set_terminated(run.info.run_id)

    def _bury(self, experiment: str) -> None:
        """Marks this machine's runs whose process is gone: a killed one could not do it itself."""
        for run in self.client.search_runs(
            [experiment],
            f"attributes.status = 'RUNNING' and tags.host = '{socket.gethostname()}'",
        ):
            if not _alive(int(run.data.tags["pid"])):
                self.client.set_terminated(run.info.run_id, "KILLED")
                shutil.rmtree(LOCAL / "runs" / run.info.run_id, ignore_errors=True)

    def register(
        self,
        run: str,
        bundle: Bundle,
        frame: "pd.DataFrame",
        parameters: dict[str, Any],
        metrics: dict[str, float],
        artifacts: Path,
        source: str,
        requirements: list[str],
    ) -> str:
        """Logs all there is to know, then registers the version as the last step of all.

        `frame` is a sample of rows as the contract takes them, `artifacts` a folder of pictures
        and the model card. Returns the version. Nothing is registered when it is interrupted.
        """
        with asked():
            for key, value in parameters.items():
                self.client.log_param(run, key, str(value)[:500])
            for key, value in metrics.items():
                self.client.log_metric(run, key, value)
            self._log_dataset(run, frame, bundle.manifest.data, source)
            self.client.log_artifacts(run, str(artifacts))
            model = self._log_model(run, bundle, frame, requirements)
            self._make(self.name)
            made = self.client.create_model_version(
                self.name,
                f"models:/{model}",
                run,
                tags=self._tags(bundle),
                await_creation_for=60,
                model_id=model,
                description=_description(bundle),
            )
        return str(made.version)

    def _tags(self, bundle: Bundle) -> dict[str, str]:
        m = bundle.manifest
        return {
            "bundle": bundle.digest,
            "commit": m.commit,
            "data": m.data,
            "trained_until": str(m.trained_until),
            "contract": m.contract,
            **{f"metric.{k}": f"{v:.6g}" for k, v in m.metrics.items()},
        }

    def _log_dataset(self, run: str, frame: "pd.DataFrame", digest: str, source: str) -> None:
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        with warnings.catch_warnings(action="ignore"):
            data = from_pandas(frame, source=source, name=self.name, digest=digest)
            entity = data._to_mlflow_entity()
        tags = [InputTag("mlflow.data.context", "training")]
        self.client.log_inputs(run, [DatasetInput(entity, tags)])

    def _log_model(
        self, run: str, bundle: Bundle, frame: "pd.DataFrame", requirements: list[str]
    ) -> str:
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
            answers = infer_signature(frame, pyfunc.Served(bundle).predict(frame.head(5))).outputs
            signature = ModelSignature(given, answers)
            model = mlflow.pyfunc.log_model(
                name="model",
                loader_module=pyfunc.__name__,
                data_path=str(bundle.path),
                code_paths=[str(Path(__file__).parent)],
                signature=signature,
                pip_requirements=requirements,
            )
        self.client.update_run(run, "RUNNING")  # leaving start_run ended it, and it is not over
        return model.model_id


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


def _description(bundle: Bundle) -> str:
    m = bundle.manifest
    values = ", ".join(f"{name} {value:.4g}" for name, value in m.metrics.items())
    return f"{values}; trained until {m.trained_until}, at commit {m.commit[:8]}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
