"""A bundle that is not what was registered is refused."""

import json
import shutil
from pathlib import Path

import pytest

from . import package

bundles = package("bundle")
BundleError = package("errors").BundleError


@pytest.fixture
def copy(bundle_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_dir, tmp_path / "1")


def rewrite(path: Path, name: str, change) -> None:
    """Changes a file and makes the checksums agree, as a careful forger would."""
    content = json.loads((path / name).read_text())
    change(content)
    (path / name).write_text(json.dumps(content))
    if name != "manifest.json":
        rewrite(
            path, "manifest.json", lambda m: m["files"].update({name: bundles.sha256(path / name)})
        )


def test_it_is_read_as_written(bundle_dir: Path) -> None:
    bundle = bundles.load(bundle_dir)
    assert bundle.version == "1"
    assert {f.name for f in bundle_dir.iterdir()} == {*bundle.manifest.files, "manifest.json"}


@pytest.mark.parametrize("name", ["examples.json", "reference.json", package("predictor").FILE])
def test_a_changed_byte_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}.*refused"):
        bundles.load(copy)


@pytest.mark.parametrize("name", ["manifest.json", "examples.json", package("predictor").FILE])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}.*missing"):
        bundles.load(copy)


@pytest.mark.parametrize("name", ["examples.json", "reference.json", package("predictor").FILE])
def test_a_manifest_that_leaves_a_file_out_is_refused(copy: Path, name: str) -> None:
    rewrite(copy, "manifest.json", lambda m: m["files"].pop(name))
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"names no {name}"):
        bundles.load(copy)


def test_examples_that_are_not_reproduced_are_refused(copy: Path) -> None:
    def change(examples):
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


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 1}'])
def test_a_broken_manifest_is_refused_in_one_line(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError) as error:
        bundles.load(copy)
    assert "\n" not in str(error.value)
