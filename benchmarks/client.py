"""A client of one server: how many answers a second it gives, and how late they are.

wrk asks where it is installed, for it takes a fraction of the processor that a client in Python
takes; where it is not, the latter asks. Both keep a number of connections open, and send the next
request of a connection once its answer is there.
"""

import json
import os
import resource
import selectors
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

WRK = shutil.which("wrk")
SCRIPT = Path(__file__).with_name("requests.lua")


class Request(NamedTuple):
    """What is posted."""

    path: str
    body: str

    def encoded(self) -> bytes:
        """As HTTP/1.1 has it."""
        text = self.body.encode()
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(text)}\r\n\r\n".encode() + text


class Measured(NamedTuple):
    """What one measurement gave."""

    rate: float
    """Answers a second."""
    p50: float
    p99: float
    """Seconds within which half, and 99 %, of the answers were there."""
    client: float
    """Processor seconds that the client took for each."""


def measure(port: int, requests: list[Request], connections: int, seconds: int) -> Measured:
    """Sends these in turns; ends the program where an answer is none or no 200."""
    before = used()
    count, elapsed, p50, p99 = (_wrk if WRK else _python)(port, requests, connections, seconds)
    return Measured(count / elapsed, p50, p99, (used() - before) / count)


def one(port: int, request: Request, timeout: float = 5) -> int:
    """The status that one request gets, 0 where nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
            s.sendall(request.encoded())
            return int(s.recv(64).split()[1])
    except (OSError, IndexError):
        return 0


def used() -> float:
    """Processor seconds of this process and of its ended children, so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _wrk(
    port: int, requests: list[Request], connections: int, seconds: int
) -> tuple[int, float, float, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as bodies:
        bodies.write("\n".join([requests[0].path, *(r.body for r in requests)]) + "\n")
        bodies.flush()
        given = ["--threads", "1", "--connections", connections, "--duration", f"{seconds}s"]
        command = [WRK, *given, "--timeout", "30s", "--script", SCRIPT, f"http://127.0.0.1:{port}"]
        printed = subprocess.run(
            [*map(str, command)],
            check=True, capture_output=True, text=True, env={**os.environ, "BODIES": bodies.name},
        ).stdout  # fmt: skip
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    if found["failed"] or not found["requests"]:
        raise SystemExit(f"{found['failed']} of {found['requests']} requests failed")
    return found["requests"], found["seconds"], found["p50"], found["p99"]


def _python(
    port: int, requests: list[Request], connections: int, seconds: int
) -> tuple[int, float, float, float]:
    selector, encoded = selectors.DefaultSelector(), [r.encoded() for r in requests]
    sent: dict[int, float] = {}
    clock = time.perf_counter
    latencies: list[float] = []
    number = 0
    for _ in range(connections):
        new = socket.create_connection(("127.0.0.1", port))
        new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(new, selectors.EVENT_READ)
        sent[new.fileno()] = clock()
        new.send(encoded[number % len(encoded)])
        number += 1
    start = clock()
    end = start + seconds
    while clock() < end:
        for key, _ in selector.select(1):
            s: socket.socket = key.fileobj  # type: ignore[assignment]
            answer = s.recv(65536)
            while not _whole(answer):
                more = s.recv(65536)
                if not more:
                    raise SystemExit("the server closed a connection")
                answer += more
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"not 200: {answer[:500]!r}")
            now = clock()
            latencies.append(now - sent[key.fd])
            sent[key.fd] = now
            s.send(encoded[number % len(encoded)])
            number += 1
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    cuts = statistics.quantiles(latencies, n=100)
    return len(latencies), clock() - start, cuts[49], cuts[98]


def _whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    return len(body) >= int(length)
