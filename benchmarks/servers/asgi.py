"""The least that uvicorn can answer, an echo's size apart: asgi.py PORT.

It reads the body and sends an answer of the size of a prediction: what is slower than this is
FastAPI, validation, or the model.
"""

import sys
from typing import Any

import uvicorn

ANSWER = b'{"id":"%s","version":"1","prediction":true,"probabilities":{"false":0.75,"true":0.25}}'
BODY = ANSWER % (b"0" * 32)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


uvicorn.run(app, port=int(sys.argv[1]), lifespan="off", access_log=False, log_level="warning")
