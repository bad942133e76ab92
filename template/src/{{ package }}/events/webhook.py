"""Posts an event, signed as Standard Webhooks are: HMAC-SHA256 of the id, the time and the body.

No message contains the address or the body of an answer: Slack's address, for example, is a secret.
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

TIMEOUT = 3.0
TEMPORARY = {408, 425, 429}
"""Answers that do not refuse the event itself, like those from 500 on: the same may work later."""


class NotDelivered(Exception):
    """Why an event was not delivered, to follow `the webhook`."""

    def __init__(self, why: str, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused
        """Whether this event was refused, so that others may still be delivered."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follows none: a signed event is only for the configured address."""


OPEN = urllib.request.build_opener(_NoRedirects).open


def post(event: dict[str, Any], events: Events) -> None:
    """Posts an event once; raises NotDelivered."""
    body = json.dumps({"text": escaped(event["text"])} if events.format == "slack" else event)
    headers = {"content-type": "application/json", "user-agent": PACKAGE}
    if secret := os.environ.get("EVENTS_SECRET"):
        headers |= signature(event["id"], body.encode(), os.fsencode(secret))
    try:
        if urlsplit(events.webhook).scheme not in ("http", "https"):
            raise ValueError
        asked = urllib.request.Request(events.webhook, body.encode(), headers)
        with OPEN(asked, timeout=TIMEOUT):
            return
    except HTTPError as error:
        error.close()
        redirect = " (a redirect, which is not followed)" if error.code < 400 else ""
        refused = error.code < 500 and error.code not in TEMPORARY
        raise NotDelivered(f"answered {error.code}{redirect}", refused) from None
    except Exception as error:  # urllib's message may contain the address
        raise NotDelivered(_why(error)) from None


def _why(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"did not answer within {TIMEOUT:g} s"
    if isinstance(cause, OSError):
        return f"cannot be reached: {cause.strerror or type(cause).__name__}"
    if isinstance(cause, HTTPException) and not isinstance(cause, InvalidURL):
        return f"did not answer in HTTP: {type(cause).__name__}"
    return "has no address that begins with http:// or https://; see [events] in settings.py"


def signature(id: str, body: bytes, secret: bytes) -> dict[str, str]:
    """The headers from which a receiver knows the sender, the time, and a repeated event."""
    at = str(int(time.time()))
    digest = hmac.digest(secret, f"{id}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": id,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def escaped(text: str) -> str:
    """A text for Slack in which nothing mentions a user or becomes a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
