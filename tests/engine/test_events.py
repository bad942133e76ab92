"""A webhook is told of each move, refusal, verdict and training, and holds nothing up."""

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flight_delays import cycle, settings
from flight_delays.cli import lifecycle
from flight_delays.errors import UserError
from flight_delays.events import notify, outbox, webhook
from flight_delays.monitoring import monitor
from flight_delays.registry import base, history, promote, store

FREE = {"load": False, "min_rows": 50, "margin": -1e9}
TOKEN = "T0KEN/of-the-path"


class Receiver:
    """A webhook that keeps what it gets, and answers what the test says."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], object] = lambda h: h.send_response(204)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append((headers, body))
                receiver.answer(self)
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Says nothing of a client that is gone."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{TOKEN}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    def answers(self, code: int, **headers: str) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(code)
            for name, value in headers.items():
                handler.send_header(name, value)

        self.answer = answer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def told_to(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """A folder whose events go there, quickly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTS_WEBHOOK", receiver.url)
    monkeypatch.delenv("EVENTS_SECRET", raising=False)
    monkeypatch.setattr(outbox, "PAUSE", 0.01)
    return receiver


def add(*ids: str) -> None:
    for id in ids:
        outbox.add(settings.load(), {"type": "promote", "text": f"ann <@U1> & {id}"}, id)


def waiting() -> list[str]:
    return [json.loads(path.read_text())["id"] for path in sorted(outbox.FOLDER.glob("*.json"))]


def test_each_kind_is_told_once_in_order_and_signed(
    twice_trained: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTS_WEBHOOK", receiver.url)
    monkeypatch.setenv("EVENTS_SECRET", "s3cret")
    monkeypatch.setattr(cycle, "train", lambda *_: SimpleNamespace(version="2"))
    given = settings.load(gates=FREE)
    known = store.connect(given)
    for version in ("2", "1", "1"):  # the last one is there already
        promote.promote("staging", given, known, version=version, by="ann")
    lifecycle.rollback("staging", by="bob")
    with pytest.raises(promote.Refused, match="no load report"):
        promote.promote("production", settings.load(), known, version="2", by="ann")
    monitor.run(given, known, None)
    cycle.turn(given, known, force=True)
    assert receiver.got == [], "nothing is sent while a command works"
    outbox.send()
    outbox.send()

    first, second, back, no, seen, *turn = receiver.events
    assert {frozenset(event) for event in receiver.events} == {frozenset(first)}, "all fields"
    assert (first["type"], first["from"], second["from"]) == ("promote", None, "2")
    assert (
        second["text"] == "flight-delays: ann promoted version 1 to staging; before that it held 2"
    )
    assert second["gates"][0]["passed"] is True
    assert (second["environment"], second["version"], second["by"]) == ("staging", "1", "ann")
    assert back["text"] == "flight-delays: bob rolled staging back from version 1 to 2"
    assert (no["type"], no["version"], no["gates"][0]["name"]) == ("refusal", "2", "load")
    assert "no load report" in no["reason"]
    assert no["reason"] in no["text"]
    assert (seen["type"], seen["verdict"], seen["environment"]) == (
        "verdict", "unknown", "production",
    )  # fmt: skip
    assert [event["type"] for event in turn] == ["verdict", "training", "promote"]
    ids = [event["id"] for event in receiver.events]
    assert len(set(ids)) == len(ids)
    for headers, body in receiver.got:
        at, id = headers["webhook-timestamp"], headers["webhook-id"]
        assert id == json.loads(body)["id"]
        assert abs(int(at) - time.time()) < 60
        digest = hmac.new(b"s3cret", f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert waiting() == []


def test_the_signature_is_the_one_that_the_page_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/test_docs.py has the same one."""
    monkeypatch.setattr(time, "time", lambda: 1700000000.5)
    signed = webhook.signature("staging-1", b'{"id": "staging-1"}', b"s3cret")
    assert signed == {
        "webhook-id": "staging-1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1,uI4mNTyLHOqbBSJMly9XgxPBoIQ+3h4d81knxMNT/NM=",
    }


@pytest.mark.parametrize("when", ["before it is kept", "before it is closed", "once it is closed"])
def test_a_move_that_is_killed_is_told_with_one_id(
    when: str, twice_trained: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTS_WEBHOOK", receiver.url)
    given = settings.load()
    known = store.connect(given)

    def killed(*_: object) -> None:
        raise SystemExit(when)

    move = base.Move("staging", "promote", "2", "1", "ann", "")
    with monkeypatch.context() as patch, suppress(SystemExit):
        if when == "before it is kept":
            patch.setattr(outbox, "add", killed)
        if when == "before it is closed":
            patch.setattr(known, "close", killed)
        history.make(move, known, partial(notify.moved, given))
    assert bool(known.moves("staging")) == (when == "once it is closed")
    lifecycle.status()
    outbox.send()
    (event,) = receiver.events
    (made,) = known.moves("staging")
    assert event["id"] == f"staging-{made.id}"


def test_a_process_killed_while_it_sends_tells_again_with_the_same_id(told_to: Receiver) -> None:
    add("one")
    command = [sys.executable, "-m", "flight_delays", "show", "nothing"]
    env = {**os.environ, "PYTHONPATH": str(Path(str(settings.__file__)).parents[1])}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        told_to.answer = lambda _: os.kill(process.pid, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    assert waiting() == ["one"]
    told_to.answers(200)
    add("two")
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), "the verb says what it said before"
    assert [event["id"] for event in told_to.events] == ["one", "one", "two"]
    assert waiting() == []


def test_what_a_failing_webhook_did_not_take_is_sent_by_the_next_command(
    told_to: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    told_to.answers(503)
    add("one", "two")
    outbox.send()
    assert [event["id"] for event in told_to.events] == ["one"] * outbox.TRIES
    said = capsys.readouterr().err
    assert said == "events: 2 wait in var/events for the next command: the webhook answered 503\n"
    add("three", "one")
    told_to.answers(200)
    outbox.send()
    assert [event["id"] for event in told_to.events[outbox.TRIES :]] == ["one", "two", "three"]
    assert capsys.readouterr().err == ""
    assert waiting() == []


def test_one_that_is_refused_holds_up_no_other(told_to: Receiver) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(400 if told_to.events[-1]["id"] == "one" else 200)

    told_to.answer = answer
    add("one", "two")
    outbox.send()
    assert waiting() == ["one"]
    assert [event["id"] for event in told_to.events] == ["one", "two"]


def test_no_redirect_is_followed(told_to: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = Receiver()
    for code in (301, 302, 307, 308):
        told_to.answers(code, location=elsewhere.url)
        add("one")
        outbox.send()
        assert f"answered {code} (a redirect, which is not followed)" in capsys.readouterr().err
    assert (elsewhere.got, waiting()) == ([], ["one"])
    elsewhere.server.shutdown()
    elsewhere.server.server_close()


def test_a_slow_webhook_costs_no_more_than_its_seconds(
    told_to: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on = threading.Event()
    told_to.answer = lambda _: go_on.wait(10)
    monkeypatch.setattr(outbox, "MAX_SECONDS", 0.2)
    add("one")
    start = time.monotonic()
    outbox.send()
    assert time.monotonic() - start < 1
    assert "1 wait in var/events for the next command: the webhook did not answer within 0.2 s" in (
        capsys.readouterr().err
    )
    assert waiting() == ["one"]
    go_on.set()


@pytest.fixture
def port() -> Iterator[int]:
    """Where something listens that speaks no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(9)
                    client.sendall(b"+OK ready\r\n")

        threading.Thread(target=talk, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://127.0.0.1:1/{TOKEN}", "cannot be reached: Connection refused"),
        ("http://localhost.invalid/{TOKEN}", "cannot be reached: "),
        ("http://127.0.0.1:{port}/{TOKEN}", "did not answer in HTTP|cannot be reached"),
        ("https://127.0.0.1:{port}/{TOKEN}", "cannot be reached: "),
        ("http://ann:{TOKEN}@127.0.0.1/", "has no address that begins with http"),
        ("http://127.0.0.1:port/{TOKEN}", "has no address that begins with http"),
        ("http://127.0.0.1/{TOKEN} x", "has no address that begins with http"),
        ("http://[::1/{TOKEN}", "has no address that begins with http"),
        ("ftp://127.0.0.1/{TOKEN}", "has no address that begins with http"),
        ("file:///etc/{TOKEN}", "has no address that begins with http"),
        ("#{TOKEN}", "has no address that begins with http"),
    ],
)
def test_an_address_that_is_wrong_is_told_in_a_line_and_not_named(
    address: str, why: str, port: int, told_to: Receiver,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("EVENTS_WEBHOOK", address.replace("{TOKEN}", TOKEN).format(port=port))
    monkeypatch.setenv("EVENTS_SECRET", "s3cret")
    add("one")
    outbox.send()
    said = capsys.readouterr().err
    assert said.startswith("events: 1 wait in var/events for the next command: the webhook ")
    assert any(one in said for one in why.split("|")), said
    assert said.count("\n") == 1
    assert not any(part in said for part in (*TOKEN.split("/"), "s3cret"))


def test_what_waits_is_bounded_and_what_is_dropped_is_said(
    told_to: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox, "MAX_EVENTS", 4)
    monkeypatch.setenv("EVENTS_SECRET", "s3cret")
    add("one", "two", "three", "four")
    old = time.time_ns() - int((outbox.MAX_AGE + 60) * 1e9)
    (outbox.FOLDER / f"{old:020}-older.json").write_text('{"id": "older", "text": ""}')
    (outbox.FOLDER / f"{time.time_ns():020}-spoilt.json").write_text('{"id": ')
    (outbox.FOLDER / f"{time.time_ns():020}-other.json").write_text("[]")
    outbox.send()
    assert [event["id"] for event in told_to.events] == ["three", "four"]
    assert capsys.readouterr().err == "events: 5 dropped: too many, too old, or not readable\n"


def test_two_commands_at_once_tell_each_event_once(told_to: Receiver) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.02)
        handler.send_response(200)

    told_to.answer = answer
    add(*map(str, range(8)))
    senders = [threading.Thread(target=outbox.send) for _ in range(3)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert [event["id"] for event in told_to.events] == [*map(str, range(8))]


def test_slack_gets_a_text_that_calls_nobody(
    told_to: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTS_FORMAT", "slack")
    add("one")
    outbox.send()
    assert told_to.events == [{"text": "ann &lt;@U1&gt; &amp; one"}]


def test_without_a_webhook_nothing_is_kept(
    told_to: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTS_WEBHOOK")
    add("one")
    outbox.send()
    assert not outbox.FOLDER.exists()
    Path("settings.toml").write_text(f'[events]\nwebhook = "{told_to.url}"')
    monkeypatch.setenv("EVENTS_WEBHOOK", "")  # as a pipeline gives it where no secret is set
    monkeypatch.setenv("EVENTS_FORMAT", "")
    add("one")
    outbox.send()
    assert len(told_to.got) == 1
    monkeypatch.setenv("EVENTS_WEBHOOK", " ")  # as `make reproduce` overrides the file's
    add("two")
    assert waiting() == []


def test_a_folder_that_cannot_be_written_stops_nothing(
    told_to: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("var").write_text("no folder")
    add("one")
    outbox.send()
    assert capsys.readouterr().err.startswith("events: one was not kept, var/events: ")


@pytest.mark.parametrize("line", ["hook = '{}'", "webhook = ['{}']", "secret = '{}'"])
def test_a_wrong_setting_does_not_show_what_may_be_a_secret(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("settings.toml").write_text(f"[events]\n{line.format(TOKEN)}\n")
    with pytest.raises(UserError, match=r"settings: events\.\w+: ") as refused:
        settings.load()
    assert TOKEN not in str(refused.value)
