"""Who may ask what: bearer tokens (RFC 6750), each with its scopes, read when the server starts.

A token is a line of the variable SERVING_TOKENS, or of the file `serving.tokens_file`: the token,
its scopes, and the last day on which it counts, in UTC, if there is one.

    7v9cQ0Zq3mJt5xVfB1nKsw predict
    XhR2pLw8yUe4TgD6aNcKvQ label,erase 2027-06-30

No message contains a token or a word of such a line.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from ...errors import UserError
from ...settings import Serving

SCOPES = ("predict", "label", "erase", "metrics")
OPEN = {"/", "/healthz", "/readyz", "/version", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
"""Answered to everyone: probes come without a token, and /docs asks for one."""
ASSETS = "/static-offline-docs/"
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
SHORTEST, LONGEST = 20, 1000
VARIABLE = "SERVING_TOKENS"
FORM = f"write TOKEN SCOPES [LAST-DAY], with scopes of {','.join(SCOPES)}"
BEARER = b"bearer "
ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}


@dataclass(frozen=True)
class Grant:
    """What a token gives."""

    scopes: frozenset[str]
    until: date | None
    """The last day on which it counts; None if for ever."""


@dataclass(frozen=True)
class Refusal:
    """What a request is answered that may not be served."""

    status: int
    detail: str
    challenge: bytes
    """The header www-authenticate."""


class Access:
    """The tokens of a server, by their SHA-256: so a search tells nothing by the time it takes."""

    def __init__(self, grants: dict[bytes, Grant]) -> None:
        self.grants = grants

    def refusal(self, method: str, path: str, authorization: bytes) -> Refusal | None:
        """Why a request is not served; None if it is. `path` is without the server's prefix."""
        if path in OPEN or path.startswith(ASSETS):
            return None
        given = authorization[len(BEARER) :].strip()
        if not given or authorization[: len(BEARER)].lower() != BEARER:
            text = "a token is needed: send the header `authorization: Bearer TOKEN`"
            return Refusal(401, text, b"Bearer")
        grant = self.grants.get(_digest(given))
        if grant is None or (grant.until and datetime.now(UTC).date() > grant.until):
            text = "the token is unknown or has expired"
            return Refusal(401, text, b'Bearer error="invalid_token"')
        if (scope := needed(method, path)) not in grant.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            return Refusal(403, f"the token lacks the scope {scope}", challenge.encode())
        return None


def needed(method: str, path: str) -> str:
    """The scope of a request; routes of your own have that of their method, too."""
    if path == "/metrics":
        return "metrics"
    return {"DELETE": "erase", "PUT": "label"}.get(method, "predict")


def access(serving: Serving) -> Access | None:
    """The tokens that are set; None if there are none, and everyone may ask everything.

    Raises UserError for a file that cannot be read, that everyone on this machine may read, or that
    holds no token, and for a line that is none.
    """
    if text := os.environ.get(VARIABLE):
        return Access(_grants(text, VARIABLE))
    if not serving.tokens_file:
        return None
    path = Path(serving.tokens_file)
    where = f"serving.tokens_file: {path}"
    try:
        mode, text = path.stat().st_mode, path.read_text()
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{where} is no text; {FORM}") from None
    if os.name == "posix" and mode & 0o007:
        raise UserError(f"{where} is open to everyone on this machine; run `chmod 640 {path}`")
    return Access(_grants(text, where))


def _grants(text: str, where: str) -> dict[bytes, Grant]:
    found: dict[bytes, Grant] = {}
    for number, line in enumerate(text.replace(";", "\n").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            token, scopes, *until = words
            grant = Grant(frozenset(scopes.split(",")), _day(*until))
        except (TypeError, ValueError):
            raise UserError(f"{where}: line {number} is wrong; {FORM}") from None
        if not TOKEN.fullmatch(token) or not SHORTEST <= len(token) <= LONGEST:
            raise UserError(
                f"{where}: line {number}: a token has {SHORTEST} to {LONGEST} letters, digits and "
                "characters of -._~+/; `openssl rand -hex 32` makes one"
            )
        if not grant.scopes <= {*SCOPES}:
            raise UserError(f"{where}: line {number} has a scope that does not exist; {FORM}")
        if found.setdefault(_digest(token.encode()), grant) is not grant:
            raise UserError(f"{where}: line {number} repeats a token; give each one line")
    if not found:
        raise UserError(f"{where} holds no token, so nobody could ask anything; {FORM}")
    return found


def _day(text: str = "") -> date | None:
    return date.fromisoformat(text) if text else None


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def describe(app: FastAPI) -> None:
    """Says in /openapi.json, and so in /docs, which operations need a token."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        for path, operations in document["paths"].items():
            for method, operation in operations.items() if path not in OPEN else ():
                scope = needed(method.upper(), path)
                operation["security"] = [{"token": []}]
                for status, why in (
                    ("401", "The token is missing, unknown or has expired."),
                    ("403", f"The token lacks the scope `{scope}`."),
                ):
                    operation["responses"][status] = {"description": why, "content": ERROR}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
