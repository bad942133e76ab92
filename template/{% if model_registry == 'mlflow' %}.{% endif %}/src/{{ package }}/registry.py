"""The registry: MLflow. Runs, versions, which version each environment holds, and every move.

Without MLFLOW_TRACKING_URI it is a SQLite file in var/. A version's artifact holds the bundle,
and `mlflow.pyfunc.load_model` predicts with it through the same code as the server.
"""

import json
import logging
import os
import shutil
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the client's 7 take four minutes

import mlflow
import pandas as pd
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from sqlalchemy.exc import SQLAlchemyError

from . import pyfunc
from .bundle import Bundle, sha256
from .errors import RegistryUnavailable, UserError
from .history import Move, Version
from .pyfunc import Served
from .settings import Settings

LOCAL = Path("var")


@contextmanager
def _asked() -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RegistryUnavailable(
            f"registry {mlflow.get_tracking_uri()}: {reason[:300]}; check MLFLOW_TRACKING_URI and "
            "that the server runs"
        ) from error


class Registry:
    """The registered model of these settings. Every method raises RegistryUnavailable."""

    def __init__(self, settings: Settings) -> None:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self.name = settings.model.name
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            LOCAL.mkdir(exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{LOCAL.absolute()}/mlflow.db")
        else:
            mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
        with _asked():
            self.client = mlflow.MlflowClient()

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found:
            return found.experiment_id
        local = mlflow.get_tracking_uri().startswith("sqlite:")
        where = str((LOCAL / "artifacts").absolute()) if local else None
        try:
            return self.client.create_experiment(name, artifact_location=where)
        except MlflowException:  # another process was faster
            found = self.client.get_experiment_by_name(name)
            if not found:
                raise
            return found.experiment_id

    @contextmanager
    def run(self, name: str) -> Iterator[Run]:
        """A tracking run; it ends as FAILED when what it holds raises."""
        with _asked():
            experiment = self._experiment(self.name)
            self._bury(experiment)
            here = {"host": socket.gethostname(), "pid": str(os.getpid())}
            run = self.client.create_run(experiment, run_name=name, tags=here)
        try:
            yield run
        except BaseException:
            self.client.set_terminated(run.info.run_id, "FAILED")
            raise
        with _asked():
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
        frame: pd.DataFrame,
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
        with _asked():
            for key, value in parameters.items():
                self.client.log_param(run, key, str(value)[:500])
            for key, value in metrics.items():
                self.client.log_metric(run, key, value)
            self._log_dataset(run, frame, bundle.manifest.data, source)
            self.client.log_artifacts(run, str(artifacts))
            model = self._log_model(run, bundle, frame, requirements)
            try:
                self.client.create_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = self.client.create_model_version(
                self.name,
                f"models:/{model}",
                run,
                tags=self._tags(bundle),
                await_creation_for=60,
                model_id=model,
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

    def _log_dataset(self, run: str, frame: pd.DataFrame, digest: str, source: str) -> None:
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        with warnings.catch_warnings(action="ignore"):
            data = from_pandas(frame, source=source, name=self.name, digest=digest)
        tags = [InputTag("mlflow.data.context", "training")]
        self.client.log_inputs(run, [DatasetInput(data._to_mlflow_entity(), tags)])

    def _log_model(
        self, run: str, bundle: Bundle, frame: pd.DataFrame, requirements: list[str]
    ) -> str:
        from mlflow.models import infer_signature

        signature = infer_signature(frame, Served(bundle).predict(frame.head(5)))
        with mlflow.start_run(run_id=run), warnings.catch_warnings(action="ignore"):
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

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        with _asked():
            try:
                aliases = self.client.get_registered_model(self.name).aliases
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return []
                raise
            found = self._all(
                lambda token: self.client.search_model_versions(
                    f"name = '{self.name}'", page_token=token
                )
            )
        held: dict[str, list[str]] = {}
        for environment, version in aliases.items():
            held.setdefault(str(version), []).append(environment)
        made = [
            Version(
                str(v.version),
                v.run_id,
                v.creation_timestamp / 1000,
                v.tags,
                held.get(str(v.version), []),
            )
            for v in found
        ]
        return sorted(made, key=lambda v: int(v.version), reverse=True)

    @staticmethod
    def _all(search: Any) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page: PagedList = search(token)
            found += page
            token = page.token
            if not token:
                return found

    def alias(self, environment: str) -> str | None:
        """The version that an environment holds; None if it holds none."""
        with _asked():
            try:
                aliases = self.client.get_registered_model(self.name).aliases
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
        return str(aliases[environment]) if environment in aliases else None

    def set_alias(self, environment: str, version: str) -> None:
        """Makes an environment hold a version."""
        with _asked():
            self.client.set_registered_model_alias(self.name, environment, version)

    def tag(self, version: str, key: str, value: str) -> None:
        """Writes a note on a version."""
        with _asked():
            self.client.set_model_version_tag(self.name, version, key, value)

    def note(self, version: str, key: str) -> str:
        """What `tag` wrote on a version; empty if nothing."""
        with _asked():
            return self.client.get_model_version(self.name, version).tags.get(key, "")

    def pull(self, version: str, to: Path) -> Path:
        """Puts a version's bundle at `to`/`version`, whole or not at all, and returns that."""
        target = to / version
        if target.exists():
            manifest = target / "manifest.json"
            if manifest.exists() and sha256(manifest)[:12] == self.note(version, "bundle"):
                return target
            shutil.rmtree(target)  # the version of that number of another registry
        to.mkdir(parents=True, exist_ok=True)
        draft = to / f".{version}.{os.getpid()}.tmp"
        try:
            with _asked():
                got = mlflow.artifacts.download_artifacts(
                    f"models:/{self.name}/{version}", dst_path=str(draft)
                )
            inside = next(Path(got).glob("data/*/manifest.json"), None)
            if inside is None:
                raise UserError(f"{self.name} {version}: holds no bundle; was it made by train?")
            try:
                inside.parent.rename(target)
            except OSError:  # another process put it there
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    def intend(self, move: Move) -> Move:
        """Writes down that a move begins; `close` or `abandon` ends it."""
        with _asked():
            run = self.client.create_run(
                self._experiment(f"{self.name}-moves"),
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
        """Writes down that a move was made."""
        with _asked():
            self.client.set_tag(move.id, "closed", repr(time.time()))
            self.client.set_terminated(move.id)

    def abandon(self, move: Move) -> None:
        """Writes down that a move was not made."""
        with _asked():
            self.client.set_terminated(move.id, "KILLED")

    def moves(self, environment: str, closed: bool = True) -> list[Move]:
        """The moves of an environment in the order they were closed; with closed=False, those
        that were begun and neither closed nor abandoned."""
        with _asked():
            found = self._all(
                lambda token: self.client.search_runs(
                    [self._experiment(f"{self.name}-moves")],
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
        return sorted(moves, key=lambda m: m.at)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
