"""Signatures of bundles in the format of OpenSSF Model Signing, by keys of your own.

MODEL_SIGNING_KEY signs what is trained; where MODEL_TRUSTED_KEY is set, a bundle that none of its
keys signed is refused, wherever it is read. model.sig names every other file with its SHA-256, so
`model_signing verify key` reads what is signed here, and what `model_signing sign key` wrote is
read here. A key is a PEM file's path, its text, or that in base64, which fits in one line.
"""

import hashlib
import json
import os
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

NAME = "model.sig"
SIGNING, TRUSTED = "MODEL_SIGNING_KEY", "MODEL_TRUSTED_KEY"
NONE = "none"
"""Of MODEL_TRUSTED_KEY: nothing is asked for. An empty one is refused, as it may be a mistake."""
CURVE = "secp256r1"
"""The name that P-256 has there."""
BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"


def signer() -> "EllipticCurvePrivateKey | None":
    """The key that signs; None if there is none. Raises UserError for one that cannot."""
    value = os.environ.get(SIGNING)  # a pipeline passes on as empty what nobody set
    return _keys(SIGNING, value, "PRIVATE KEY")[0] if value else None


def trusted() -> "list[EllipticCurvePublicKey]":
    """The keys of which one must have signed a bundle; none if nothing is asked for.

    Raises UserError for a value that is no key.
    """
    value = os.environ.get(TRUSTED, NONE)
    return [] if value == NONE else _keys(TRUSTED, value, "PUBLIC KEY")


def check() -> None:
    """Raises UserError where what is trained now would be refused: better before than after."""
    own, known = signer(), trusted()
    if known and (own is None or own.public_key() not in known):
        what = f"holds none of the keys of {TRUSTED}" if own else "is not set"
        raise UserError(
            f"{SIGNING} {what}, so what is trained here would be refused here; set it, or "
            f"{TRUSTED}={NONE}"
        )


def sign(path: Path) -> None:
    """Writes model.sig for all files of a bundle's folder, if there is a key that signs."""
    key = signer()
    if key is None:
        return
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    files = _files(path)
    whole = hashlib.sha256(b"".join(map(bytes.fromhex, files.values())))
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": path.name, "digest": {"sha256": whole.hexdigest()}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [NAME],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest}
                for name, digest in files.items()
            ],
        },
    }
    payload = json.dumps(statement).encode()
    made = key.sign(_encoded(payload), ECDSA(SHA256()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    hint = {"hint": hashlib.sha256(public).hexdigest()}
    envelope = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD,
        "signatures": [{"sig": b64encode(made).decode(), "keyid": ""}],
    }
    bundle = {
        "mediaType": MEDIA,
        "verificationMaterial": {"publicKey": hint, "tlogEntries": []},
        "dsseEnvelope": envelope,
    }
    (path / NAME).write_text(json.dumps(bundle))


def refusal(path: Path, known: "list[EllipticCurvePublicKey]") -> str:
    """Why a bundle's folder is not one that a key of `known` signed; empty if it is, or if there
    is no key."""
    if not known:
        return ""
    try:
        envelope = json.loads((path / NAME).read_bytes())["dsseEnvelope"]
        payload = b64decode(envelope["payload"])
        signatures = [b64decode(one["sig"]) for one in envelope["signatures"]]
    except FileNotFoundError:
        return f"is not signed, and {TRUSTED} asks for it: train a version with {SIGNING}"
    except (ValueError, LookupError, TypeError):
        return f"its {NAME} is no signature that can be read"
    if not any(_verifies(key, signature, payload) for key in known for signature in signatures):
        return f"is signed by no key of {TRUSTED}"
    statement = json.loads(payload)
    if statement.get("predicateType") != PREDICATE:
        return f"its {NAME} signs something else than a model"
    signed = {one["name"]: one["digest"] for one in statement["predicate"]["resources"]}
    wrong = signed.items() ^ _files(path).items()
    return f"{min(wrong)[0]} was changed, added or removed after it was signed" if wrong else ""


def _files(path: Path) -> dict[str, str]:
    """The SHA-256 of each file but the signature, by its name in the folder."""
    found = sorted(file for file in path.rglob("*") if not file.is_dir())
    named = {file.relative_to(path).as_posix(): file for file in found}
    return {name: sha256(file) for name, file in named.items() if name != NAME}


def _encoded(payload: bytes) -> bytes:
    """What is signed of a payload: DSSE's encoding, which names its type."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def _verifies(key: "EllipticCurvePublicKey", signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(signature, _encoded(payload), ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _keys(variable: str, value: str, kind: str) -> list[Any]:
    """The keys of a kind in what a variable holds, one at least. No message shows the value."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import (
            load_pem_private_key,
            load_pem_public_key,
        )
    except ImportError:
        raise UserError(
            f"{variable} is set, and cryptography is not installed; add it to `dependencies` in "
            "pyproject.toml, then run `make lock`"
        ) from None
    text = _text(variable, value)
    blocks = [(found[1], found[0].encode()) for found in BLOCK.finditer(text)]
    keys: list[Any] = []
    try:
        for name, block in blocks:
            if name.endswith(kind) and kind == "PRIVATE KEY":
                keys.append(load_pem_private_key(block, None))
            elif name.endswith(kind):
                keys.append(load_pem_public_key(block))
    except TypeError:
        raise UserError(
            f"{variable}: the key has a passphrase, which nobody could enter; `openssl pkey "
            "-in KEY -out NEW` writes it without"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UserError(f"{variable}: its {kind} cannot be read; copy it again") from None
    if not keys:
        others = ", ".join(sorted({name for name, _ in blocks})) or "nothing in PEM"
        raise UserError(f"{variable}: a {kind} in PEM is needed, and there is {others}")
    if any(getattr(getattr(key, "curve", None), "name", "") != CURVE for key in keys):
        raise UserError(
            f"{variable}: the key is not one of the curve P-256; `openssl ecparam -name prime256v1 "
            "-genkey -noout` makes one"
        )
    return keys


def _text(variable: str, value: str) -> str:
    """The PEM text of a variable."""
    if not value.strip():
        raise UserError(f"{variable} is set and empty; set a key, or unset it")
    if "-----BEGIN " in value:
        return value
    try:
        if value.startswith("LS0tLS1CRUdJ"):  # -----BEGI
            return b64decode(value).decode()
        return Path(value).expanduser().read_text()
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "it cannot be read"
        raise UserError(
            f"{variable}: is no PEM text, and no path of a PEM file that is here: {why}"
        ) from None
