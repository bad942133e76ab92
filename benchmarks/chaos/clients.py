"""Clients that send nothing, too much, too slowly or garbage, while others are answered."""

import contextlib
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat

from frame import Case, Connection, Server, fault, post, wait_for

LIMIT = 5_000_000
"""serving.max_body_mb, in bytes."""
SCHEMATHESIS = "schemathesis==4.32.5"
GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS, at a port without it
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /predictions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /predictions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
    b"POST /predictions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /predictions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    b"content-length: 9\r\n\r\n0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /\x00\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\r\n" * 1000,
)


def answer_to(server: Server, parts: Iterable[bytes], wait: float = 2) -> str:
    """The first line of what comes back; "closed" for nothing, "open" where the server waits."""
    connection = Connection(server.port, wait)
    with connection.socket:
        try:
            for part in parts:
                connection.socket.sendall(part)
            connection.socket.shutdown(socket.SHUT_WR)
            return str(connection.answer()[0])
        except TimeoutError:
            return "open"
        except (OSError, ValueError):
            return "closed"


def judged(case: Case, kind: str, found: Counter[str]) -> None:
    """Notes what clients were answered, and breaks at an error of the server's own."""
    case.notes.append(f"{kind}: {', '.join(f'{n} {what}' for what, n in sorted(found.items()))}")
    own = [what for what in found if what.startswith("5") and what != "503"]
    case.expect(not own, f"{kind} was answered {own}")


@contextlib.contextmanager
def disturbed(case: Case) -> Iterator[Server]:
    """A server under load whose memory must be back in the end, and that must answer all others."""
    with case.served() as server:
        time.sleep(5)
        before = server.resident()
        yield server
        wait_for(lambda: server.get("/healthz")[0] == 200, "the server answers")
        time.sleep(3)
        after = server.resident()
    case.memory = f"{before:.0f} to {after:.0f} MB"
    case.expect(after <= before * 1.05 + 5, f"memory grew from {before:.0f} to {after:.0f} MB")
    case.none_failed(server)


@fault("garbage at the socket")
def garbage(case: Case) -> None:
    """Bytes that are no request, and requests that are cut anywhere or have a byte changed."""
    whole = post("/predictions", case.rows[0])
    with disturbed(case) as server:
        found: Counter[str] = Counter()
        for number in case.times(3000, 150):
            if number % 3 == 0:
                sent = GARBAGE[number // 3 % len(GARBAGE)]
            elif number % 3 == 1:
                sent = whole[: random.randrange(len(whole))]
            else:
                at = random.randrange(len(whole))
                sent = whole[:at] + random.randbytes(1) + whole[at + 1 :]
            found[answer_to(server, [sent])] += 1
        judged(case, "answered", found)


@fault("bodies over the limit and floods of headers")
def floods(case: Case) -> None:
    """Refused before they are read, with no memory kept for them."""
    line = b"POST /predictions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    huge = 50 if case.short else 500
    long = b"content-length: %d\r\n\r\n"
    floods = {
        "a length over the limit": [line, long % (LIMIT + 1), b" " * LIMIT],
        "a length of 15 digits": [line, long % 10**15, b"{"],
        "chunks over the limit": [line, b"transfer-encoding: chunked\r\n\r\n", *repeat(chunk, 200)],
        "10,000 headers": [line, *(b"x-%d: 1\r\n" % i for i in range(10_000)), b"\r\n"],
        "a header of 1 MB": [line, b"x: " + b"y" * 1_000_000, b"\r\n\r\n"],
        f"headers of {huge} MB": [line, *repeat(b"x: " + b"y" * 65_000 + b"\r\n", huge * 16)],
        f"a path of {huge} MB": [b"GET /", *repeat(b"y" * 65_536, huge * 16)],
    }
    with disturbed(case) as server:
        server.resident("VmHWM")  # from here on
        for kind, parts in floods.items():
            found = Counter(answer_to(server, parts, 20) for _ in case.times(10, 1))
            judged(case, kind, found)
            peak = server.resident("VmHWM")
            case.expect(peak < server.resident() + 20, f"{kind}: memory rose to {peak:.0f} MB")


@fault("slow clients and 1,000 idle connections")
def slow(case: Case) -> None:
    """Others are answered meanwhile; what was sent slowly is answered in the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    request = post("/predictions", case.rows[0])
    with disturbed(case) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(Connection(server.port).socket) for _ in range(1000)]
        slow = [Connection(server.port) for _ in range(50)]
        steps = 5 if case.short else 50
        size = -(-len(request) // steps)
        for i in range(0, len(request), size):
            for connection in slow:
                connection.socket.sendall(request[i : i + size])
            time.sleep(1)
        found = Counter(str(connection.answer()[0]) for connection in slow)
        for connection in slow:
            connection.socket.close()
        judged(case, f"{len(idle)} idle, {len(slow)} slow", found)
        case.expect([*found] == ["200"], "a slow client was not answered")


@fault("schemathesis over the OpenAPI schema")
def schemathesis(case: Case) -> None:
    """All its checks but one, while others are answered."""
    if not (uv := shutil.which("uv")):
        case.notes.append("skipped: no uv is installed")
        return
    examples = 30 if case.short else 1700  # of each of the nine operations
    with case.served(rate=20) as server:
        done = subprocess.run(
            [uv, "tool", "run", "--python", sys.executable, SCHEMATHESIS, "run",
             f"http://127.0.0.1:{server.port}/openapi.json", "--no-color",
             # No schema says which classes a model has, or that the year 1 has hours without a UTC.
             "--exclude-checks", "positive_data_acceptance",
             "--max-examples", str(examples), "--generation-database", "none"],
            cwd=case.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    told = re.search(r"([\d,]+) generated(.*)", done.stdout)
    case.notes.append(f"{told[1]} cases" if told else "no cases")
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr)
    case.expect(done.returncode == 0 and told is not None, "schemathesis found what it says above")
    case.none_failed(server)
