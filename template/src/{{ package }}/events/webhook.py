"""Posts an event, signed as the Standard Webhooks are: HMAC-SHA256 of its id, the time, and it.

No message names the address or shows what it answered: Slack's address, for one, is a secret.
"""

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.request
from http.client import HTTPException, InvalidURL
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from ..settings import PACKAGE, Events

SECONDS = 3.0
LATER = {408, 425, 429}
"""Answers that say nothing against the event itself, as those from 500 on."""


class NotTaken(Exception):
    """Why an event was not taken, to follow `the webhook`."""

    def __init__(self, why: str, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused
        """Whether another event may be taken."""


class _Here(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follows none: a signed event is for the address that was set."""


OPEN = urllib.request.build_opener(_Here).open


def post(event: dict[str, Any], events: Events) -> None:
    """Posts an event once; raises NotTaken."""
    body = json.dumps({"text": escaped(event["text"])} if events.format == "slack" else event)
    headers = {"content-type": "application/json", "user-agent": PACKAGE}
    if secret := os.environ.get("EVENTS_SECRET"):
        headers |= signature(event["id"], body.encode(), os.fsencode(secret))
    try:
        if urlsplit(events.webhook).scheme not in ("http", "https"):
            raise ValueError
        asked = urllib.request.Request(events.webhook, body.encode(), headers)
        with OPEN(asked, timeout=SECONDS):
            return
    except HTTPError as error:
        error.close()
        told = " (a redirect, which is not followed)" if error.code < 400 else ""
        refused = error.code < 500 and error.code not in LATER
        raise NotTaken(f"answered {error.code}{told}", refused) from None
    except Exception as error:  # what urllib says may hold the address
        raise NotTaken(_why(error)) from None


def _why(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"did not answer within {SECONDS:g} s"
    if isinstance(cause, OSError):
        return f"cannot be reached: {cause.strerror or type(cause).__name__}"
    if isinstance(cause, HTTPException) and not isinstance(cause, InvalidURL):
        return f"did not answer in HTTP: {type(cause).__name__}"
    return "has no address that begins with http:// or https://; see [events] in settings.py"


def signature(id: str, body: bytes, secret: bytes) -> dict[str, str]:
    """The headers by which a receiver knows who sent a body, when, and whether it had it before."""
    at = str(int(time.time()))
    digest = hmac.digest(secret, f"{id}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": id,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def escaped(text: str) -> str:
    """A text as Slack takes it: nothing in it calls anyone, or is a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
