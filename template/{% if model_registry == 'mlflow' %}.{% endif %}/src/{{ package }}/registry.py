"""The registry: MLflow. Runs, versions, which version each environment holds, and every move."""

import os
import shutil
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from .bundle import sha256
from .errors import BundleError, UserError
from .history import Version
from .moves import Moves
from .tracking import asked, every


class Registry(Moves):
    """The registered model of these settings. Every method raises RegistryUnavailable."""

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        with asked():
            try:
                aliases = self.client.get_registered_model(self.name).aliases
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return []
                raise
            found = every(
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

    def alias(self, environment: str) -> str | None:
        """The version that an environment holds; None if it holds none."""
        with asked():
            try:
                aliases = self.client.get_registered_model(self.name).aliases
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
        return str(aliases[environment]) if environment in aliases else None

    def set_alias(self, environment: str, version: str) -> None:
        """Makes an environment hold a version."""
        with asked():
            self.client.set_registered_model_alias(self.name, environment, version)

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
