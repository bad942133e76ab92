"""Tokens: who has none, a wrong one or one for something else is refused, whatever is asked."""

import json
import logging
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from flight_delays.errors import UserError
from flight_delays.serving import run
from flight_delays.serving.access.tokens import OPEN, SCOPES, access
from flight_delays.settings import Serving, load

TOKENS = {scope: f"a-token-to-{scope}-0123456789" for scope in SCOPES}
LINES = "\n".join(f"{token} {scope}  # {scope}" for scope, token in TOKENS.items())
Start = Callable[..., TestClient]


@pytest.fixture
def guarded(start: Start, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A server that knows a token for each scope."""
    client = start()  # takes the variables away
    client.close()
    monkeypatch.setenv("SERVING_TOKENS", LINES)
    return start()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def asked(client: TestClient, method: str, path: str, token: str = "") -> int:
    headers = bearer(token) if token else {}
    return client.request(method, path, headers=headers, content=b"{").status_code


def test_each_operation_needs_its_scope_and_no_other(guarded: TestClient) -> None:
    document = guarded.get("/openapi.json").json()
    found = {
        (method.upper(), path): operation.get("security")
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    needed = {
        ("POST", "/predictions"): "predict",
        ("POST", "/predictions/batch"): "predict",
        ("GET", "/predictions/{id}"): "predict",
        ("PUT", "/predictions/{id}/outcome"): "label",
        ("DELETE", "/predictions/{id}"): "erase",
        ("DELETE", "/predictions"): "erase",
        ("GET", "/metrics"): "metrics",  # not in the document
        ("GET", "/own"): "predict",  # as routes of your own
    }
    assert {key for key, security in found.items() if security} == {*needed} - {
        ("GET", "/metrics"),
        ("GET", "/own"),
    }
    assert {path for (_, path), security in found.items() if not security} <= OPEN
    for (method, template), scope in needed.items():
        path = template.format(id="1")
        assert asked(guarded, method, path) == 401, path
        for other, token in TOKENS.items():
            status = asked(guarded, method, path, token)
            assert (status == 403) == (other != scope), (path, other)
            assert status != 401


def test_probes_and_the_documentation_need_none(guarded: TestClient) -> None:
    for path in sorted(OPEN):
        assert guarded.get(path).status_code == 200, path
    assert guarded.get("/static-offline-docs/swagger-ui.css").status_code == 200
    assert guarded.get("/static-offline-docs/../predictions/1").status_code == 401
    assert guarded.get("/healthz/", follow_redirects=False).status_code == 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {TOKENS['predict']}", f"Bearer {TOKENS['predict']}x",
     "Bearer " + "x" * 10_000, f"Bearer {TOKENS['predict'][:-1]}", TOKENS["predict"]],
)  # fmt: skip
def test_what_is_no_token_is_refused_with_the_way(guarded: TestClient, header: str) -> None:
    answer = guarded.post("/predictions", headers={"authorization": header}, content=b"{")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert TOKENS["predict"] not in answer.text
    assert answer.headers["x-request-id"]


def test_a_prediction_is_made_labelled_and_erased_each_with_its_token(
    guarded: TestClient, features: dict[str, Any]
) -> None:
    body = {"features": features}
    made = guarded.post("/predictions", json=body, headers=bearer(TOKENS["predict"])).json()
    path, label = f"/predictions/{made['id']}", {"outcome": made["prediction"]}
    for scope, status in (("predict", 403), ("label", 202)):
        told = guarded.put(f"{path}/outcome", json=label, headers=bearer(TOKENS[scope]))
        assert told.status_code == status
    assert guarded.delete(path, headers=bearer(TOKENS["label"])).status_code == 403
    assert guarded.delete(path, headers=bearer(TOKENS["erase"])).status_code == 204


def test_a_token_counts_until_its_last_day(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start().close()
    today = datetime.now(UTC).date()
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    lines = [f"{name}-{'x' * 20} predict,label {day}" for name, day in days.items()]
    monkeypatch.setenv("SERVING_TOKENS", ";".join(lines))
    client = start()
    assert asked(client, "GET", "/predictions/1", f"today-{'x' * 20}") == 404
    assert asked(client, "GET", "/predictions/1", f"yesterday-{'x' * 20}") == 401


def test_behind_a_prefix(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start().close()
    monkeypatch.setenv("SERVING_TOKENS", LINES)
    client = start(serving={"root_path": "/model"})
    for prefix in ("", "/model"):
        assert client.get(f"{prefix}/healthz").status_code == 200
        assert asked(client, "GET", f"{prefix}/metrics") == 401
        assert asked(client, "GET", f"{prefix}/metrics", TOKENS["metrics"]) == 200
        assert asked(client, "DELETE", f"{prefix}/predictions/1", TOKENS["predict"]) == 403


SECRET = "never-shown-0123456789"
WRONG = {
    "": "holds no token",
    "# nobody": "holds no token",
    SECRET: "line 1 is wrong",
    f"{SECRET} predict 2027-13-45": "line 1 is wrong",
    f"{SECRET} predict 2027-01-31 more": "line 1 is wrong",
    f"predict {SECRET}": "line 1: a token has 20",
    "short predict": "line 1: a token has 20",
    f"{SECRET}é predict": "line 1: a token has 20",
    f"{'x' * 1001} predict": "line 1: a token has 20",
    f"{SECRET} predict,admin": "line 1 has a scope that does not exist",
    f"\n{SECRET} predict\n{SECRET} label": "line 3 repeats a token",
}


@pytest.mark.parametrize(("text", "said"), WRONG.items())
def test_a_wrong_file_stops_the_server_with_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(0o640)
    with pytest.raises(UserError, match=said) as error:
        access(Serving(tokens_file=str(path)))
    assert str(path) in str(error.value)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_gone_or_open_to_all_stops_the_server(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    serving = Serving(tokens_file=str(path))
    with pytest.raises(UserError, match="cannot be read: No such file"):
        access(serving)
    path.write_bytes(b"\xff")
    path.chmod(0o640)
    with pytest.raises(UserError, match="is no text"):
        access(serving)
    path.write_text(LINES)
    path.chmod(0o644)
    with pytest.raises(UserError, match=f"chmod 640 {path}"):
        access(serving)
    path.chmod(0o600)
    found = access(serving)
    assert found
    assert len(found.grants) == len(SCOPES)


@pytest.mark.parametrize(("host", "tokens"), [("0.0.0.0", ""), ("0.0.0.0", LINES), ("", "")])
def test_a_server_for_all_without_tokens_says_so(
    host: str, tokens: str, bundles: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVING_TOKENS", tokens)
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    monkeypatch.setattr(run.logs, "configure", lambda _: None)
    with socket.socket() as listener, caplog.at_level(logging.WARNING):
        listener.bind((host or "127.0.0.1", 0))
        run.run(bundles, load(journal={"url": ""}), listener)
    assert ("no token is set" in caplog.text) == (host == "0.0.0.0" and not tokens)
    assert json.dumps(TOKENS)[2:20] not in caplog.text
