"""Load tests with workers: one report of all that was answered, or one line that says why not.

Locust runs in processes of its own; it must never be imported here.
"""

import json
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import flight_delays
from flight_delays import bundle, errors, settings
from flight_delays.cli.app import app
from flight_delays.load import run as load

from .servers import free_port

LOADTEST = Path(flight_delays.__file__).parents[2] / "loadtest"
DIES = """

@events.test_start.add_listener
def die(environment: Environment, **_: Any) -> None:
    if getattr(environment.runner, "worker_index", 1) == 0:
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def slow(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server that takes a second to answer, so requests are under way at the end of a test.

    `answered` counts them. The folder of the test has the locustfile.
    """
    digest = bundle.load(bundle_dir).digest

    class Slow(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer({"version": "1", "digest": digest})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(1)
            server.answered += 1
            self.answer({})

        def answer(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        answered = 0
        daemon_threads = True

    shutil.copytree(LOADTEST, tmp_path / "loadtest")
    monkeypatch.chdir(tmp_path)
    with Server(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def loaded(slow: Any, bundle_dir: Path, bind: str = "", **own: int) -> dict[str, Any]:
    """The report of a load test of the slow server."""
    how = {"users": 10, "spawn_rate": 100, "run_time": 1, "p95_ms": 9e4, "p99_ms": 9e4} | own
    url = f"http://127.0.0.1:{slow.server_port}"
    return load.run(settings.load(load=how), bundle.load(bundle_dir), url=url, bind=bind)


def test_two_workers_make_one_report_of_all_that_was_answered(slow: Any, bundle_dir: Path) -> None:
    report = loaded(slow, bundle_dir, workers=2)
    assert report["passed"], report
    assert report["requests"] == slow.answered >= 10
    assert report["limits"]["workers"] == 2
    assert report["p50"] >= 1000
    assert json.loads(load.REPORT.read_text()) == report
    assert load.REPORT.with_suffix(".html").exists()


def test_a_worker_elsewhere_needs_only_the_command_that_is_printed(
    slow: Any, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    command = f"locust -f - --worker --master-host 127.0.0.1 --master-port {port}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    worker = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=elsewhere,
        env={"TMPDIR": str(elsewhere)},
        stderr=subprocess.DEVNULL,
    )
    try:
        report = loaded(slow, bundle_dir, bind="127.0.0.1", worker_port=port)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
    assert command in capsys.readouterr().out.splitlines()
    assert report["requests"] == slow.answered >= 10
    assert not report["failures"]


def test_a_worker_that_is_killed_is_told(slow: Any, bundle_dir: Path) -> None:
    with load.LOCUSTFILE.open("a") as file:
        file.write(DIES)
    with pytest.raises(errors.UserError, match="1 of 2 workers ended before the test did"):
        loaded(slow, bundle_dir, workers=2)
    assert not load.REPORT.exists()


def test_a_worker_that_does_not_come_is_told(slow: Any, bundle_dir: Path) -> None:
    own = {"workers": 2, "worker_port": free_port(), "worker_wait": 1}
    with pytest.raises(errors.UserError, match=r"not all workers came; .* LOAD_WORKER_WAIT"):
        loaded(slow, bundle_dir, bind="127.0.0.1", **own)
    assert not slow.answered


def test_other_machines_are_given_addresses_that_they_reach(
    slow: Any, bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(errors.UserError, match=r"BIND=0\.0\.0\.0: say URL="):
        loaded(slow, bundle_dir, bind="0.0.0.0")
    with pytest.raises(errors.UserError, match=r"BIND=0\.0\.0\.0: say URL="):
        load.run(settings.load(), bundle.load(bundle_dir), bind="0.0.0.0")
    for anywhere in ("0.0.0.0", "*"):
        load._crew(settings.load().load, anywhere)
        assert f"--master-host {socket.gethostname()} " in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["0", "many"])
def test_a_number_of_workers_is_one_or_more(workers: str, tmp_path: Path) -> None:
    for command in ("load", "capacity"):
        with pytest.raises(errors.UserError, match=rf"load\.workers = '{workers}': .*Input should"):
            app([command, "--workers", workers], standalone_mode=False)
