"""The short form of `make chaos`: a project is broken on purpose while it is under load.

All of it, and all of each, is only `make chaos`, whose last table is in docs/chaos.md.
"""

import itertools
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest
from harness import ROOT
from running_project import project

MAIN = ROOT / "benchmarks" / "chaos" / "main.py"
FAULTS = ("promotions", "SIGKILL of the server", "bundle")


@pytest.mark.heavy(1)
@pytest.mark.xdist_group("engine")
def test_what_is_broken_on_purpose_serves_on(engine, record_property):
    made = project(engine.folder.parent / "chaos")
    only = " ".join(f"'{name}'" for name in FAULTS)
    said = made.run(f"{engine.folder}/.venv/bin/python {MAIN} . --short --only {only}")
    assert f"{len(FAULTS)} faults, 0 broke something" in said
    record_property("said", said)


@pytest.fixture
def unsteady() -> Iterator[int]:
    """The port of a server whose every 5th answer is another version's, and every 7th an error."""
    serial = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            number = next(serial)
            one = {"id": str(number), "version": "1", "prediction": 2.0 if number % 5 == 0 else 1.0}
            answer = {"predictions": [one]} if self.path.endswith("batch") else one
            text = json.dumps(answer).encode()
            self.send_response(500 if number % 7 == 0 else 200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_the_load_sees_what_is_wrong_and_what_fails(unsteady, monkeypatch):
    monkeypatch.syspath_prepend(MAIN.parent)
    from frame import Load

    case = SimpleNamespace(rows=[{"features": {}}], answers={"1": [{"prediction": 1.0}]})
    load = Load(unsteady, case, rate=500)
    end = time.monotonic() + 10
    while load.sent < 70 and time.monotonic() < end:
        time.sleep(0.01)
    load.stop()
    assert len(load.failed) == load.sent // 7
    assert len(load.wrong) == load.sent // 5 - load.sent // 35
    assert len(load.answered) == load.sent - len(load.failed)
