"""The model as it is served: a directory, written once by training and verified when read.

manifest.json    what it is, from which code and data, and the sha256 of the other files
model.*          the exported model
examples.json    rows, and probes made of them, with the scores they must give
reference.json   statistics of the training data, for the drift monitor
trained.npy      hashes of the rows trained on, where there is no time; see evaluation/unseen.py
model.sig        who made it, where a key signs; see registry/signature.py
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from . import contract, predictor
from .contract import Columns
from .errors import BundleError, Unreadable, UserError, passing, reason
from .files import sha256
from .registry import signature

ROWS = contract.ROWS
FORMAT = 2
"""Of the bundles written here. 1, which 0.1.0 wrote without saying so, has no probes, says neither
`rows` nor `judged`, and its numbers are float32."""
TOLERANCE = 1e-4
NEEDED = ("examples.json", "reference.json")
POINTER = "current"
"""In a folder of bundles: the file that names the one that is served."""


class JudgedOn(BaseModel):
    """How the procedure that made the model was judged: forward in time, on rows not seen."""

    rows: int
    """The newest rows, in as many blocks as `models`."""
    models: int
    """Models that scored a block each, fitted on the rows before it."""
    after: str | int
    """The newest row that the first of them was fitted on, as `trained_until`."""
    tried: dict[str, float]
    """The main metric of each window of training rows that was tried, by its rows."""


class _Format(BaseModel):
    """What every manifest says, of whichever version."""

    format: int = 1


class Manifest(_Format):
    """What a bundle is. The registry's version number is the name of its directory."""

    name: str
    run: str
    """The tracking run that made it."""
    created: str
    commit: str
    dirty: bool
    """Whether files differed from the commit; those in locks/ do not count."""
    data: str
    """Fingerprint of the snapshot it was trained on."""
    trained_until: str | int | None
    """The newest row trained on: its time; without TIME, the row of the source, or when the
    journal got its label."""
    rows: int = 0
    """The newest rows, which the model that is served was fitted on."""
    judged: JudgedOn | None = None
    """On what `metrics` were measured, and what the gates compare; None in a bundle of 0.1.0."""
    metrics: dict[str, float]
    """Of the rows that judged, by models that had not seen them; who knows of one imported."""
    parity: float
    """Largest difference between the exported and the trained model on held-out rows and probes."""
    contract: str
    lock: str
    imported: str = ""
    """SHA-256 of the file that the model was read from; empty where it was trained here."""
    train: dict[str, Any] = {}
    """The settings of [train]. Bundles of 0.1.0 have neither these nor the next two fields."""
    python: str = ""
    machine: str = ""
    classes: list[Any] | None
    """The labels, in the order of the probabilities; None for a regression."""
    numbers: list[str]
    categories: list[str]
    dtype: Literal["float32", "float64"] = "float32"
    """In which the model takes its numbers, in training and served."""
    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    path: Path
    manifest: Manifest
    predictor: predictor.Predictor

    @property
    def version(self) -> str:
        """The registry's version: the name of the directory."""
        return self.path.name

    @cached_property
    def digest(self) -> str:
        """Names the whole bundle, see digest_of."""
        return digest_of(self.path)

    @cached_property
    def proofs(self) -> list[dict[str, Any]]:
        """Rows as JSON: {"features": {...}, "expected": score or scores}.

        Held-out rows as they came, then probes, which say what was changed as "probe".
        """
        return json.loads((self.path / "examples.json").read_text())

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Those that are held-out rows as they came: requests to try a server with."""
        return [example for example in self.proofs if "probe" not in example]

    @cached_property
    def reference(self) -> dict[str, Any]:
        """Statistics of the columns trained on, see monitoring/drift.py."""
        return json.loads((self.path / "reference.json").read_text())

    def scores(self, columns: Columns) -> np.ndarray:
        """Raw columns in; probabilities (n, k) or values (n,) out, float64."""
        return self.scores_of(self.derived(columns))

    def scores_or_nan(self, columns: Columns) -> np.ndarray:
        """The same as `scores`, with NaN for each row that the model has no answer for."""
        classes = self.manifest.classes
        return scores_or_nan(self.scores, columns, () if classes is None else (len(classes),))

    def derived(self, columns: Columns) -> Columns:
        """Raw columns in, those that the model sees out; raises BundleError where one is gone."""
        derived = contract.derive(columns)
        missing = {*self.manifest.numbers, *self.manifest.categories} - set(derived)
        if missing:
            raise BundleError(
                f"bundle {self.version}: needs {', '.join(sorted(missing))}, which derive() in "
                "project/features.py no longer gives; train a new version"
            )
        return derived

    def scores_of(self, derived: Columns) -> np.ndarray:
        """Derived columns in; probabilities (n, k) or values (n,) out, float64.

        Raises ValueError where the model has no answer, naming what it did not know of one row.
        """
        m = self.manifest
        given = contract.matrices(derived, m.numbers, m.categories, np.dtype(m.dtype))
        try:
            return self.predictor(*given).astype(np.float64)
        except ValueError as error:
            raise ValueError(self._refusal(derived, error)) from error

    def _refusal(self, derived: Columns, error: ValueError) -> str:
        """Why the model refused, naming what the training data do not hold where it is one row."""
        names, named = [*self.manifest.numbers, *self.manifest.categories], []
        if len(derived[names[0]]) > 1:
            return reason(error)
        for name in names:
            summary, (value,) = self.reference["columns"][name], derived[name].tolist()
            if value == "" or value != value:
                named += [f"{name} is missing"] if not summary["missing"] else []
            elif value not in summary.get("counts", [value]):
                rare = summary["rows"] - summary["missing"] - sum(summary["counts"].values())
                named += [] if rare else [f"{name} is {value!r}"]
        unseen = f"{', '.join(named)}, which training did not see: " if named else ""
        return f"{unseen}{reason(error)}"


def packed(bundle: Bundle) -> dict[str, bytes]:
    """The files of a bundle, to send it to where this disk cannot be seen."""
    return {path.name: path.read_bytes() for path in bundle.path.iterdir()}


def unpacked(version: str, files: dict[str, bytes]) -> Bundle:
    """The bundle of such files, verified as `load` does."""
    with TemporaryDirectory() as folder:
        path = Path(folder, version)
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        made = load(path)
        _ = made.digest, made.reference  # read while the files are there
        return made


def scores_or_nan(
    score: Callable[[Columns], np.ndarray], columns: Columns, shape: tuple[int, ...]
) -> np.ndarray:
    """Scores (n, *shape) of raw columns; NaN in rows that `score` raises for, or whose answer no
    float32 holds.

    Halves the rows until those are alone. A UserError is about the whole table, and is raised.
    """
    n = len(next(iter(columns.values())))
    try:
        found = np.asarray(score(columns), dtype=np.float64).reshape(n, *shape)
    except (MemoryError, UserError):
        raise
    except Exception:  # whatever an estimator raises for a row it has no answer for
        if n < 2:
            return np.full((n, *shape), np.nan)
        halves = slice(n // 2), slice(n // 2, n)
        parts = [{name: column[half] for name, column in columns.items()} for half in halves]
        return np.concatenate([scores_or_nan(score, part, shape) for part in parts])
    each = tuple(range(1, found.ndim))
    there = (np.abs(found) <= contract.LARGEST).all(axis=each, keepdims=True)
    return np.where(there, found, np.nan)


def digest_of(path: Path) -> str:
    """Names a whole bundle, since its manifest holds the digest of every other file."""
    return sha256(path / "manifest.json")[:12]


def component(bundle: Bundle) -> dict[str, Any]:
    """A bundle as a component of an SBOM in CycloneDX's format, with the SHA-256 of its files."""
    files = bundle.manifest.files | {"manifest.json": sha256(bundle.path / "manifest.json")}
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": bundle.manifest.name,
        "version": bundle.version,
        "properties": [{"name": "digest", "value": bundle.digest}],
        "components": [
            {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for name, digest in sorted(files.items())
        ],
    }


def put(bundle: Bundle, folder: Path) -> Path:
    """Copies a bundle into a folder that is served as it is, by any user; returns the copy."""
    copy = folder / bundle.version
    shutil.copytree(bundle.path, copy)
    (folder / POINTER).write_text(bundle.version)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def intact(path: Path, digest: str) -> bool:
    """Whether a folder is, byte for byte, the bundle of that digest."""
    try:
        manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
        return digest_of(path) == digest and _changed(path, manifest) is None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValidationError):
        return False


def differences(expected: np.ndarray, given: np.ndarray, classifies: bool) -> np.ndarray:
    """Of scores (n,) or (n, k), each row's: absolute for probabilities, relative for values (of 1
    at least). It is 0 where neither has a finite answer, and infinite where only one has."""
    n = len(expected)
    expected, given = expected.reshape(n, -1), given.reshape(n, -1)
    there = np.isfinite(expected).all(axis=1), np.isfinite(given).all(axis=1)
    with np.errstate(invalid="ignore"):
        scale = 1.0 if classifies else np.maximum(np.abs(expected), 1.0)
        off = np.max(np.abs(expected - given) / scale, axis=1, initial=0.0)
    return np.where(there[0] & there[1], off, np.where(there[0] == there[1], 0.0, np.inf))


def write(
    path: Path, manifest: Manifest, examples: Sequence[dict[str, Any]], reference: dict[str, Any]
) -> Bundle:
    """Completes and signs the directory that holds the exported model; returns it as read back.

    `examples` are {"features", "expected"}; `reference` comes from drift.reference.
    """
    (path / "examples.json").write_text(json.dumps(list(examples), allow_nan=False))
    (path / "reference.json").write_text(json.dumps(reference, allow_nan=False))
    manifest.files = {f.name: sha256(f) for f in sorted(path.iterdir())}
    manifest.format = FORMAT
    (path / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    signature.sign(path)
    return load(path)


def load(path: Path, any_contract: bool = False) -> Bundle:
    """Reads and verifies a bundle: signature, checksums, contract, and examples reproduced.

    With `any_contract` a bundle of another contract is read too, without its examples: an older
    version can still be compared as long as derive() gives what it needs.

    Raises BundleError when it is wrong, and Unreadable when it could not be read, which may pass.
    """
    trusted = signature.trusted()  # a wrong key is no fault of the bundle's
    try:
        text = (path / "manifest.json").read_bytes()
        if (found := _Format.model_validate_json(text).format) > FORMAT:
            raise BundleError(
                f"{path}: is of format {found}, and this code reads {FORMAT} at most; refused: "
                "update the project (`make update`)"
            )
        manifest = Manifest.model_validate_json(text)
        if why := signature.refusal(path, trusted):
            raise BundleError(f"{path}: {why}; refused")
        if other := _changed(path, manifest):
            raise BundleError(f"{other}: is not the file that was registered; refused")
        if needed := {predictor.FILE, *NEEDED} - manifest.files.keys():
            raise BundleError(f"{path}: its manifest names no {min(needed)}; refused")
        same = contract.matches(manifest.contract)
        if not (same or any_contract):
            raise BundleError(
                f"{path}: follows contract {manifest.contract}, this code {contract.digest()}; "
                "refused: serve it with the code it was made with, or train a new version"
            )
        bundle = Bundle(path, manifest, predictor.load(path / predictor.FILE))
        if same:
            _reproduce(bundle)
    except FileNotFoundError as error:
        if not Path(str(error.filename)).is_relative_to(path):
            raise _unread(path, error) from None
        raise BundleError(f"{error.filename}: is missing; refused") from None
    except ValidationError as error:
        raise BundleError(f"{path}: {error.errors()[0]['msg']} in {error.title}; refused") from None
    except BundleError:
        raise
    except (NotADirectoryError, IsADirectoryError) as error:
        raise BundleError(f"{error.filename}: is no file of a bundle; refused") from None
    except Exception as error:  # whatever a damaged model makes its runtime raise
        if passing(error):
            raise _unread(path, error) from None
        raise BundleError(f"{path}: cannot be read: {reason(error)}; refused") from None
    return bundle


def _unread(path: Path, error: Exception) -> Unreadable:
    return Unreadable(f"{path}: could not be read: {reason(error)}; try again")


def _changed(path: Path, manifest: Manifest) -> Path | None:
    """The first file that is not the one the manifest names; None if all are."""
    files = manifest.files.items()
    return next((path / name for name, digest in files if sha256(path / name) != digest), None)


def _reproduce(bundle: Bundle) -> None:
    rows = contract.read([example["features"] for example in bundle.proofs])
    expected = np.array([example["expected"] for example in bundle.proofs])
    given = bundle.scores(contract.columns(rows))
    worst = differences(expected, given, bundle.manifest.classes is not None).max(initial=0.0)
    if not worst <= TOLERANCE:
        raise BundleError(f"{bundle.path}: examples differ by {worst:.2g}; refused")
