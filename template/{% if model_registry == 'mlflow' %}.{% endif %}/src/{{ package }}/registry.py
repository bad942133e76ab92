"""The registry: MLflow. Runs, versions, which version each environment holds, and every move."""

import os
import shutil
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from .bundle import sha256
from .errors import BundleError, UserError
from .history import Version
from .moves import Moves
from .settings import ENVIRONMENTS
from .tracking import asked, every

COPY_OF = "copy_of"
"""The note that says which version a copy in an environment's own registered model is of."""


class Registry(Moves):
    """The registered model of these settings. Every method raises RegistryUnavailable."""

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        with asked():
            found = self._versions(self.name)
        held: dict[str, list[str]] = {}
        for environment in ENVIRONMENTS:
            if version := self.alias(environment):
                held.setdefault(version, []).append(environment)
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

    def _versions(self, name: str) -> list[Any]:
        return every(
            lambda token: self.client.search_model_versions(f"name = '{name}'", page_token=token)
        )

    def _model(self, environment: str) -> str:
        """The registered model whose alias says what an environment holds."""
        return f"{environment}.{self.name}" if self.per_environment else self.name

    def alias(self, environment: str) -> str | None:
        """The version that an environment holds; None if it holds none."""
        name = self._model(environment)
        with asked():
            try:
                aliases = self.client.get_registered_model(name).aliases
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            if environment not in aliases:
                return None
            version = str(aliases[environment])
            if self.per_environment:
                version = self.client.get_model_version(name, version).tags[COPY_OF]
        return version

    def set_alias(self, environment: str, version: str) -> None:
        """Makes an environment hold a version."""
        name = self._model(environment)
        with asked():
            if self.per_environment:
                version = self._copied(version, name)
            self.client.set_registered_model_alias(name, environment, version)

    def _copied(self, version: str, name: str) -> str:
        """The number that a version has in another registered model, into which it is copied."""
        self.create(name)
        for copy in self._versions(name):
            if copy.tags.get(COPY_OF) == version:
                return str(copy.version)
        found = self.client.get_model_version(self.name, version)
        made = self.client.create_model_version(
            name,
            f"models:/{self.name}/{version}",
            found.run_id,
            tags=found.tags | {COPY_OF: version},
            description=found.description,
            model_id=found.model_id,
        )
        return str(made.version)

    def tag(self, version: str, key: str, value: str) -> None:
        """Writes a note on a version."""
        with asked():
            self.client.set_model_version_tag(self.name, version, key, value)

    def note(self, version: str, key: str) -> str:
        """What `tag` wrote on a version; empty if nothing."""
        with asked():
            return self.client.get_model_version(self.name, version).tags.get(key, "")

    def pull(self, version: str, to: Path) -> Path:
        """Puts a version's bundle at `to`/`version`, whole or not at all, and returns that.

        Raises BundleError when it is not the bundle that was registered.
        """
        target, digest = to / version, self.note(version, "bundle")
        if target.exists():
            manifest = target / "manifest.json"
            if manifest.exists() and sha256(manifest)[:12] == digest:
                return target
            shutil.rmtree(target)  # the version of that number of another registry
        to.mkdir(parents=True, exist_ok=True)
        draft = to / f".{version}.{os.getpid()}.tmp"
        try:
            with asked():
                got = mlflow.artifacts.download_artifacts(
                    f"models:/{self.name}/{version}", dst_path=str(draft)
                )
            inside = next(Path(got).glob("data/*/manifest.json"), None)
            if inside is None:
                raise UserError(f"{self.name} {version}: holds no bundle; was it made by train?")
            if sha256(inside)[:12] != digest:
                raise BundleError(
                    f"{self.name} {version}: the manifest is not the one that was registered; "
                    "refused"
                )
            try:
                inside.parent.rename(target)
            except OSError:  # another process put it there
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target
