"""A bundle that is not what was registered is refused."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flight_delays import bundle as bundles
from flight_delays import predictor
from flight_delays.errors import BundleError, Unreadable

from .servers import no_handles

pytestmark = pytest.mark.format


@pytest.fixture
def copy(bundle_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_dir, tmp_path / "1")


def rewrite(path: Path, name: str, change: Any) -> None:
    """Changes a file and makes the checksums agree, as a careful forger would."""
    content = json.loads((path / name).read_text())
    change(content)
    (path / name).write_text(json.dumps(content))
    if name != "manifest.json":
        rewrite(
            path, "manifest.json", lambda m: m["files"].update({name: bundles.sha256(path / name)})
        )


@pytest.mark.problem
def test_it_is_read_as_written(bundle_dir: Path) -> None:
    bundle = bundles.load(bundle_dir)
    assert bundle.version == "1"
    assert {f.name for f in bundle_dir.iterdir()} == {*bundle.manifest.files, "manifest.json"}


@pytest.mark.parametrize("name", ["examples.json", "reference.json", predictor.FILE])
def test_a_changed_byte_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}.*refused"):
        bundles.load(copy)


@pytest.mark.parametrize("name", ["manifest.json", "examples.json", predictor.FILE])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}.*missing"):
        bundles.load(copy)


@pytest.mark.parametrize("name", ["examples.json", "reference.json", predictor.FILE])
def test_a_manifest_that_leaves_a_file_out_is_refused(copy: Path, name: str) -> None:
    rewrite(copy, "manifest.json", lambda m: m["files"].pop(name))
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"names no {name}"):
        bundles.load(copy)


@pytest.mark.problem
def test_examples_that_are_not_reproduced_are_refused(copy: Path) -> None:
    def change(examples: Any) -> None:
        expected = examples[0]["expected"]
        examples[0]["expected"] = (
            [1 - p for p in expected] if isinstance(expected, list) else expected + 99
        )

    rewrite(copy, "examples.json", change)
    with pytest.raises(BundleError, match=r"examples differ"):
        bundles.load(copy)


def test_another_contract_is_refused_unless_asked_for(copy: Path) -> None:
    rewrite(copy, "manifest.json", lambda m: m.update(contract="0" * 12))
    with pytest.raises(BundleError, match=r"follows contract 000000000000"):
        bundles.load(copy)
    assert bundles.load(copy, any_contract=True).manifest.contract == "0" * 12


def test_a_newer_format_is_refused_in_one_line_whatever_else_it_holds(copy: Path) -> None:
    rewrite(copy, "manifest.json", lambda m: [m.clear(), m.update(format=bundles.FORMAT + 1)])
    with pytest.raises(BundleError, match=r"reads \d at most; refused: update the") as error:
        bundles.load(copy)
    assert "\n" not in str(error.value)


def test_a_bundle_that_says_no_format_is_of_the_first(copy: Path) -> None:
    """0.1.0 wrote these; what came since has a value of its own."""
    since = ["format", "rows", "judged"]
    if json.loads((copy / "manifest.json").read_text())["dtype"] == "float32":
        since.append("dtype")  # skops has float64 since, and would be read as the float32 of then
    rewrite(copy, "manifest.json", lambda m: [m.pop(name) for name in since])
    assert bundles.load(copy).manifest.format == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 1}'])
def test_a_broken_manifest_is_refused_in_one_line(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError) as error:
        bundles.load(copy)
    assert "\n" not in str(error.value)


def test_what_cannot_be_opened_for_want_of_handles_is_not_refused(bundle_dir: Path) -> None:
    with no_handles(), pytest.raises(Unreadable, match="Too many open files"):
        bundles.load(bundle_dir)
    assert bundles.load(bundle_dir).version == "1"


BAD_ALLOC = RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc")
NO_HANDLE = RuntimeError("[ONNXRuntimeError] : 1 : FAIL : failed:system error number 24")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EMFILE, "Too many open files", "x"), Unreadable),
        (OSError(errno.EIO, "Input/output error"), Unreadable),
        (PermissionError(errno.EACCES, "Permission denied", "x"), Unreadable),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory"), Unreadable),
        (MemoryError(), Unreadable),
        (BAD_ALLOC, Unreadable),
        (NO_HANDLE, Unreadable),
        (ValueError("\nno\nmodel"), BundleError),
        (RuntimeError("INVALID_PROTOBUF"), BundleError),
        (ModuleNotFoundError("No module named 'lightgbm'"), BundleError),
        (EOFError(), BundleError),
    ],
    ids=repr,
)
def test_what_is_wrong_is_told_from_what_could_not_be_read(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type
) -> None:
    def fail(_: Path) -> None:
        raise error

    monkeypatch.setattr(predictor, "load", fail)
    with pytest.raises(kind) as raised:
        bundles.load(bundle_dir)
    assert ("refused" in str(raised.value)) == (kind is BundleError)
    assert "\n" not in str(raised.value)


def test_a_folder_in_the_place_of_a_file_is_refused(copy: Path) -> None:
    (copy / "examples.json").unlink()
    (copy / "examples.json").mkdir()
    with pytest.raises(BundleError, match="is no file of a bundle"):
        bundles.load(copy)
