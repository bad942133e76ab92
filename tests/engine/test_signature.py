"""Who signs a bundle is known wherever it is read, and what was not signed goes nowhere."""

import json
import os
import shutil
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from flight_delays import bundle as bundles
from flight_delays import cycle
from flight_delays.cli import doctor
from flight_delays.errors import BundleError, UserError
from flight_delays.registry import history, signature
from flight_delays.registry.base import pulled
from flight_delays.registry.promote import promote
from flight_delays.registry.store import connect
from flight_delays.serving import follow, run
from flight_delays.settings import load
from flight_delays.training import reproduce
from flight_delays.training.snapshots import find
from flight_delays.training.train import train

from ..helpers import copied, inside, own_settings

FREE = {"load": False, "min_rows": 50, "margin": -1e9}


def private(key: Any, passphrase: str = "") -> str:
    hidden = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden).decode())


def public(key: Any) -> str:
    form = PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(Encoding.PEM, form).decode())


OURS, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def trust(patch: pytest.MonkeyPatch, key: Any, *more: Any) -> None:
    patch.setenv("MODEL_TRUSTED_KEY", "".join(map(public, (key, *more))))


@pytest.fixture
def signed(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that OURS signed, where OURS is trusted."""
    for name in own_settings():
        monkeypatch.delenv(name)
    folder = shutil.copytree(bundle_dir, tmp_path / "1")
    monkeypatch.setenv("MODEL_SIGNING_KEY", private(OURS))
    signature.sign(folder)
    monkeypatch.delenv("MODEL_SIGNING_KEY")
    trust(monkeypatch, OURS)
    return folder


@pytest.mark.format
def test_what_is_signed_is_read_and_says_so(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = bundles.load(signed).digest
    told = json.loads((signed / "model.sig").read_text())["dsseEnvelope"]
    assert told["payloadType"] == "application/vnd.in-toto+json"
    trust(monkeypatch, OTHER, OURS)
    assert bundles.load(signed).digest == digest
    copy = bundles.put(bundles.load(signed), signed.parent / "image")
    assert bundles.load(copy).digest == digest, "an image holds the signature, too"
    packed = bundles.packed(bundles.load(signed))
    assert bundles.unpacked("1", packed).digest == digest, "and so does what goes to workers"
    monkeypatch.delenv("MODEL_TRUSTED_KEY")
    assert bundles.load(signed).digest == digest, "nothing is asked for"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: (path / "model.sig").unlink(), "is not signed.*MODEL_SIGNING_KEY"),
        (lambda path: (path / "notes.txt").write_text("new"), "notes.txt was changed, added"),
        (lambda path: (path / "sub").mkdir() or (path / "sub/a.py").touch(), "sub/a.py was"),
        (lambda path: (path / "trained.txt").unlink(), "trained.txt was .* or removed"),
        (lambda path: (path / "trained.txt").write_text("0"), "trained.txt was changed"),
        (lambda path: (path / "model.sig").write_text("{}"), "no signature that can be read"),
        (lambda path: (path / "model.sig").write_bytes(b"\xff"), "no signature that can be read"),
        (lambda path: resigned(path, OTHER), "by no key of MODEL_TRUSTED_KEY"),
        (lambda path: forged(path, "predicateType", "other"), "by no key of MODEL_TRUSTED_KEY"),
    ],
)
def test_what_is_not_as_it_was_signed_is_refused(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, why: str
) -> None:
    """Even a file that the manifest does not name."""
    folder = shutil.copytree(bundle_dir, tmp_path / "1")
    (folder / "trained.txt").write_text("1")
    resigned(folder, OURS)
    trust(monkeypatch, OURS)
    bundles.load(folder)
    change(folder)
    with pytest.raises(BundleError, match=f"1: (its )?.*{why}.*; refused"):
        bundles.load(folder)
    monkeypatch.delenv("MODEL_TRUSTED_KEY")
    bundles.load(folder)


def resigned(path: Path, key: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_SIGNING_KEY", private(key))
        signature.sign(path)


def forged(path: Path, field: str, value: str) -> None:
    """Changes what is signed, and keeps the signature."""
    kept = json.loads((path / "model.sig").read_text())
    envelope = kept["dsseEnvelope"]
    envelope["payload"] = b64encode(json.dumps({field: value}).encode()).decode()
    (path / "model.sig").write_text(json.dumps(kept))


def test_a_signature_of_something_else_is_none_of_a_bundle(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature, "PREDICATE", "https://slsa.dev/provenance/v1")
    resigned(signed, OURS)
    monkeypatch.undo()
    trust(monkeypatch, OURS)
    with pytest.raises(BundleError, match="signs something else than a model; refused"):
        bundles.load(signed)


def test_pull_takes_what_is_signed_and_fetches_again_what_was_changed_here(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, to = bundles.digest_of(signed), tmp_path / "versions"

    def fetch(draft: Path) -> Path:
        return Path(shutil.copytree(signed, draft))

    def pull() -> Path:
        return pulled(to, "7", digest, fetch)

    (pull() / "model.sig").unlink()
    assert (pull() / "model.sig").exists()
    trust(monkeypatch, OTHER)
    with pytest.raises(BundleError, match=r"^version 7: is signed by no key .*; refused$"):
        pull()
    assert not [*to.iterdir()]


@pytest.fixture(scope="module")
def home_of_a_signed(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose version 1 is not signed, and whose version 2 is; `staging` held both."""
    with copied(trained_home, tmp_path_factory.mktemp("signed")) as folder:
        settings, registry = load(gates=FREE), connect(load())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MODEL_SIGNING_KEY", private(OURS))
            trust(patch, OURS)
            train(settings, registry, find(""))
        for version in ("1", "2"):
            promote("staging", settings, registry, version=version)
    return folder


def test_a_version_without_a_signature_comes_into_no_environment(
    home_of_a_signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with copied(home_of_a_signed, tmp_path):
        settings, registry = load(gates=FREE), connect(load())
        trust(monkeypatch, OURS)
        assert (registry.pull("2", Path("var/versions")) / "model.sig").exists()
        assert promote("production", settings, registry, version="2")
        told = "version 1: is not signed, and MODEL_TRUSTED_KEY asks for it: train a version with"
        with pytest.raises(BundleError, match=told):
            promote("production", settings, registry, version="1")
        with pytest.raises(BundleError, match=told):
            history.rollback("staging", registry)
        assert registry.alias("staging") == "2", "what is served could not have followed"
        follow.follow("staging", settings, once=True)
        monkeypatch.setenv("MODEL_TRUSTED_KEY", "none")
        assert history.rollback("staging", registry).to == "1"
        trust(monkeypatch, OURS)
        with pytest.raises(BundleError, match=told):
            follow.follow("staging", settings, once=True)
        assert Path("var/bundles/staging/current").read_text() == "2", "the old one serves on"


def test_the_formats_own_tool_reads_ours_and_we_read_its(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = os.environ.get("TEST_MODEL_SIGNING")
    if not tool:
        pytest.skip("TEST_MODEL_SIGNING names no model_signing")
    (tmp_path / "it.pem").write_text(private(OURS))
    (tmp_path / "it.pub").write_text(public(OURS))
    sig = signed / "model.sig"

    def asked(verb: str, *key: str) -> subprocess.CompletedProcess[str]:
        command = [str(tool), verb, "key", str(signed), "--signature", str(sig), *key]
        return subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)

    done = asked("verify", "--public_key", "it.pub")
    assert done.returncode == 0, done.stdout + done.stderr
    (signed / "new").touch()
    assert asked("verify", "--public_key", "it.pub").returncode
    sig.unlink()
    assert asked("sign", "--private_key", "it.pem").returncode == 0
    bundles.load(signed)
    trust(monkeypatch, OTHER)
    with pytest.raises(BundleError, match="by no key"):
        bundles.load(signed)
    trust(monkeypatch, OURS)
    (signed / "new").unlink()
    with pytest.raises(BundleError, match="new was changed, added or removed"):
        bundles.load(signed)


def test_a_training_that_would_be_refused_does_not_begin(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(monkeypatch, OURS)
    for key, why in (("", "is not set"), (private(OTHER), "holds none of the keys of")):
        monkeypatch.setenv("MODEL_SIGNING_KEY", key)
        with pytest.raises(UserError, match=f"^MODEL_SIGNING_KEY {why}.*MODEL_TRUSTED_KEY=none$"):
            train(load(), connect(load()), find(""))
    assert connect(load()).numbers() == ["1"]


def test_a_cycle_without_its_key_compares_nothing_and_is_taken_again(
    home_of_a_signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = SimpleNamespace(verdict="ok", reason="", version="2")
    monkeypatch.setattr(cycle.monitor, "run", lambda *_: seen)
    with copied(home_of_a_signed, tmp_path):
        trust(monkeypatch, OURS)
        registry = connect(load())
        with pytest.raises(UserError, match=r"^MODEL_SIGNING_KEY is not set"):
            cycle.turn(load(), registry, force=True)
        assert registry.note("2", cycle.COMPARED) == ""


def wrong_keys() -> dict[str, tuple[str, str, str]]:
    """What each variable may hold by mistake, and what is said of it."""
    signs, trusts = "MODEL_SIGNING_KEY", "MODEL_TRUSTED_KEY"
    big = rsa.generate_private_key(65537, 2048)
    garbage = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"
    return {
        "empty": (trusts, "", "is set and empty"),
        "blank": (signs, " ", "is set and empty"),
        "gone": (trusts, "/nowhere/key.pub", "No such file or directory"),
        "folder": (signs, "/", "Is a directory"),
        "no PEM": (signs, "hunter2" * 60, "no path of a PEM file"),
        "base64 of nothing": (trusts, b64encode(b"-----BEGIN").decode(), "there is nothing"),
        "cut short": (signs, private(OURS)[:80], "there is nothing"),
        "garbage": (trusts, garbage.format("PUBLIC KEY"), "PUBLIC KEY cannot be read"),
        "garbage that signs": (signs, garbage.format("PRIVATE KEY"), "PRIVATE KEY cannot be read"),
        "private": (trusts, private(OURS), "a PUBLIC KEY in PEM .* is PRIVATE KEY"),
        "public": (signs, public(OURS), "a PRIVATE KEY in PEM .* is PUBLIC KEY"),
        "RSA": (trusts, public(big), "not one of the curve P-256"),
        "RSA that signs": (signs, private(big), "not one of the curve P-256"),
        "another curve": (trusts, public(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        "Ed25519": (signs, private(ed25519.Ed25519PrivateKey.generate()), "P-256"),
        "one of two": (trusts, public(OURS) + public(big), "P-256"),
        "passphrase": (signs, private(OURS, "s3cret"), "has a passphrase"),
    }


WRONG = wrong_keys()


@pytest.mark.parametrize(("variable", "value", "why"), WRONG.values(), ids=WRONG)
def test_a_key_that_is_wrong_is_said_in_a_line_that_does_not_show_it(
    variable: str, value: str, why: str, signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    asked = signature.trusted if variable == "MODEL_TRUSTED_KEY" else signature.signer
    with pytest.raises(UserError, match=f"^{variable}[ :].*{why}") as raised:
        asked()
    assert "\n" not in str(raised.value)
    assert not any(part in str(raised.value) for part in value.split() if len(part) > 12)
    with pytest.raises(UserError, match=variable):
        doctor._signatures()
    if asked is signature.trusted:
        with pytest.raises(UserError, match=variable):
            run.serve("test", load())
        with pytest.raises(UserError, match=variable):
            follow.follow("test", load())
        with pytest.raises(UserError) as raised:
            bundles.load(signed)
        assert not isinstance(raised.value, BundleError), "it is no fault of the bundle's"


def test_a_key_is_a_path_a_text_or_base64(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it.pub").write_text(f"# ours\n{public(OTHER)}\n{public(OURS)}")
    (tmp_path / "it.pem").write_text(private(OURS))
    for value in (str(tmp_path / "it.pub"), b64encode(public(OURS).encode()).decode()):
        monkeypatch.setenv("MODEL_TRUSTED_KEY", value)
        bundles.load(signed)
    for value in (str(tmp_path / "it.pem"), b64encode(private(OURS).encode()).decode()):
        monkeypatch.setenv("MODEL_SIGNING_KEY", value)
        signature.check()
    assert doctor._signatures() == "what is trained is signed, 1 public keys are trusted"


def test_without_the_library_a_policy_is_not_passed_over(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"^MODEL_TRUSTED_KEY .*cryptography is not installed"):
        bundles.load(signed)
    monkeypatch.setenv("MODEL_TRUSTED_KEY", "none")
    bundles.load(signed)


def test_who_neither_signs_nor_asks_does_not_load_the_library(bundle_dir: Path) -> None:
    code = f"import sys\nfrom pathlib import Path\nfrom {bundles.__name__} import load\n"
    code += "load(Path(sys.argv[1]))\nassert 'cryptography' not in sys.modules"
    own = {name: value for name, value in os.environ.items() if name not in own_settings()}
    subprocess.run([sys.executable, "-c", code, bundle_dir], env=own, check=True)


def test_what_is_trained_again_is_not_asked_for_a_signature(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(tmp_path):
        monkeypatch.setenv("MODEL_SIGNING_KEY", private(OTHER))
        trust(monkeypatch, OURS)
        made = reproduce._variables(tmp_path, reproduce._manifest(bundle_dir))
        for name in ("MODEL_SIGNING_KEY", "MODEL_TRUSTED_KEY"):
            monkeypatch.setenv(name, made[name])
        signature.check()
        assert (signature.signer(), signature.trusted()) == (None, [])
