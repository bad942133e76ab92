"""The registry: MLflow. Runs, versions, which version each environment holds, and every move."""

import os
import shutil
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from .bundle import digest_of, intact
from .errors import BundleError, UserError
from .history import Version
from .moves import Moves
from .settings import ENVIRONMENTS, fills
from .tracking import asked, every


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
        with asked():
            return [str(v.version) for v in self._versions(self.name)]

    def require(self, version: str) -> None:
        """Raises UserError for a version that is not registered."""
        if version not in self.numbers():
            raise UserError(
                f"version {version} of {self.name} is not registered; see `make status`"
            )

    def alias(self, environment: str) -> str | None:
        """The version that an environment holds; None if it holds none."""
        model = self.model(environment)
        with asked():
            registered = self._registered(model)
            if registered is None or environment not in registered.aliases:
                return None
            number = str(registered.aliases[environment])
            if model == self.name:
                return number
            return self._original(self.client.get_model_version(model, number))

    def holder(self, environment: str) -> str:
        """The version that an environment holds; raises UserError if it holds none."""
        version = self.alias(environment)
        if not version:
            raise UserError(f"{environment} holds no version; run `{fills(environment)}` first")
        return version

    def admit(self, environment: str, version: str, digest: str) -> None:
        """Lets an environment keep the version whose bundle has that digest.

        Raises BundleError when it keeps another bundle under that number.
        """
        model = self.model(environment)
        if model == self.name:
            return
        with asked():
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
        with asked():
            number = self._number(model, version)
            if number is None:
                raise UserError(
                    f"{model}: keeps no version {version}, which its last move names; was that "
                    f"move made by a promotion? If not, delete its run in {model}-moves"
                )
            self.client.set_registered_model_alias(model, environment, number)

    def tag(self, version: str, key: str, value: str, environment: str = "test") -> None:
        """Writes a note on a version, where an environment keeps it."""
        with asked():
            self.client.set_model_version_tag(*self._kept(environment, version), key, value)

    def note(self, version: str, key: str, environment: str = "test") -> str:
        """What `tag` wrote on a version; empty if nothing."""
        with asked():
            kept = self.client.get_model_version(*self._kept(environment, version))
        return kept.tags.get(key, "")

    def pull(self, version: str, to: Path, environment: str = "test") -> Path:
        """Puts a version's bundle at `to`/`version`, whole or not at all, and returns that.

        Raises BundleError when it is not the bundle that was registered, or promoted into
        `environment`.
        """
        model, number = self._kept(environment, version)
        target, digest = to / version, self.note(version, "bundle", environment)
        if target.exists():
            if intact(target, digest):
                return target
            shutil.rmtree(target)  # damaged, or that number's of another registry
        to.mkdir(parents=True, exist_ok=True)
        draft = to / f".{version}.{os.getpid()}.tmp"
        try:
            with asked():
                got = mlflow.artifacts.download_artifacts(
                    f"models:/{model}/{number}", dst_path=str(draft)
                )
            inside = next(Path(got).glob("data/*/manifest.json"), None)
            if inside is None:
                raise UserError(f"{model} {number}: holds no bundle; was it made by train?")
            if digest_of(inside.parent) != digest:
                raise BundleError(
                    f"{model} {number}: the manifest is not the one that was registered; refused"
                )
            try:
                inside.parent.rename(target)
            except OSError:  # another process put it there
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    def _versions(self, model: str) -> list[ModelVersion]:
        """Newest first."""
        found = every(
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
