"""One-row predictions per second against a bare FastAPI route with the same bodies.

    python benchmarks/serving.py PROJECT [--rounds 15] [--seconds 1.5] [--connections 32]

PROJECT is a rendered project that holds a trained bundle (`make train`). Run it with the
project's own Python. Both servers have one worker, run on this machine in turns and get the same
requests from the same client, so that the ratios count and not the rates. Prints a table, and
with --json writes it to a file.
"""

import argparse
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

SERVERS = Path(__file__).parent / "servers"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server process; ready when constructed, ended with its children when the block ends.

    `command` is told its port in the place of PORT, and answers 200 at `path` when it is ready.
    """

    def __init__(self, *command: str, cwd: Path, path: str = "/readyz", **environment: str) -> None:
        self.port = free_port()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115, closed as the block ends
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [str(self.port) if word == "PORT" else word for word in command],
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        try:
            while self.get(path) != 200:
                if self.process.poll() is not None:
                    self.log.seek(0)
                    print(self.log.read().decode(errors="replace")[-2000:], file=sys.stderr)
                    raise SystemExit(f"{command[0]} ended with {self.process.returncode}")
                time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise
        self.ready = time.perf_counter() - start

    def get(self, path: str) -> int:
        """The status of one GET, 0 when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
                s.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
                return int(s.recv(64).split()[1])
        except (OSError, IndexError):
            return 0

    def resident(self) -> float:
        """Resident memory in MB (Linux), or nan."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            return int(status.split("VmRSS:")[1].split()[0]) / 1024
        except OSError:
            return float("nan")

    def cpu(self) -> float:
        """Seconds of processor time so far (Linux), or nan."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return float("nan")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        self.log.close()


def load(port: int, requests: list[bytes], connections: int, seconds: float) -> list[float]:
    """Latencies in seconds: each connection sends its next request once it has its answer."""
    selector = selectors.DefaultSelector()
    sent: dict[int, float] = {}
    clock = time.perf_counter
    latencies: list[float] = []
    number = 0
    for _ in range(connections):
        new = socket.create_connection(("127.0.0.1", port))
        new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(new, selectors.EVENT_READ)
        sent[new.fileno()] = clock()
        new.send(requests[number % len(requests)])
        number += 1
    end = clock() + seconds
    while (now := clock()) < end:
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
            s.send(requests[number % len(requests)])
            number += 1
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return latencies


def post(path: str, body: Any) -> bytes:
    """A request that sends JSON."""
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(text)}\r\n\r\n".encode() + text


def _whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    return len(body) >= int(length)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--bundles", type=Path, help="default: PROJECT/var/bundles/test")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    project = given.project.resolve()
    bundles = (given.bundles or project / "var/bundles/test").resolve()
    version = (bundles / "current").read_text().strip()
    package = next((project / "src").glob("*/serving/app.py")).parent.parent.name
    examples = json.loads((bundles / version / "examples.json").read_text())
    requests = [post("/predictions", {"features": example["features"]}) for example in examples]
    rows: dict[str, list[tuple[float, ...]]] = {"bare": [], "ciclo": []}
    with tempfile.TemporaryDirectory() as folder:
        place: dict[str, Any] = {"cwd": Path(folder), "PYTHONPATH": str(project / "src")}
        bare, ciclo = ([sys.executable, str(SERVERS / f"{n}.py"), package, "PORT"] for n in rows)
        with Server(*bare, **place) as other, Server(*ciclo, str(bundles), **place) as own:
            servers = {"bare": other, "ciclo": own}
            for server in servers.values():
                load(server.port, requests, given.connections, 1.0)
            for number in range(given.rounds):
                # whoever goes first may find a colder machine: take turns
                for name in sorted(servers, reverse=bool(number % 2)):
                    before = servers[name].cpu()
                    found = load(servers[name].port, requests, given.connections, given.seconds)
                    cpu = (servers[name].cpu() - before) / len(found)
                    cuts = statistics.quantiles(found, n=1000)
                    rows[name].append((len(found) / given.seconds, cuts[499], cuts[989], cpu))
                    print(
                        f"{name:6} {rows[name][-1][0]:7.0f}/s  p50 {cuts[499] * 1e3:6.2f} ms"
                        f"  p99 {cuts[989] * 1e3:6.2f} ms  cpu {cpu * 1e6:4.0f} us",
                        flush=True,
                    )
            result = {
                "rate": _ratio(rows, 0),
                "p50": _ratio(rows, 1),
                "p99": _ratio(rows, 2),
                "cpu": _ratio(rows, 3),
                "start_seconds": servers["ciclo"].ready,
                "resident_mb": servers["ciclo"].resident(),
                "bare_resident_mb": servers["bare"].resident(),
            }
    print(
        f"\nciclo / bare FastAPI, median of {given.rounds} rounds: rate {result['rate']:.2f} "
        f"(to reach: 0.80), p50 {result['p50']:.2f}, p99 {result['p99']:.2f} (2.00 at most), "
        f"processor time a request {result['cpu']:.2f}\n"
        f"start to ready {result['start_seconds']:.1f} s, resident {result['resident_mb']:.0f} MB "
        f"(bare FastAPI {result['bare_resident_mb']:.0f} MB)"
    )
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


def _ratio(rows: dict[str, list[tuple[float, ...]]], column: int) -> float:
    pairs = zip(rows["ciclo"], rows["bare"], strict=True)
    return statistics.median(a[column] / b[column] for a, b in pairs)


if __name__ == "__main__":
    main()
