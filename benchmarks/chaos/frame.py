"""What a fault is given: a copy of a trained project, its server, and a load that is counted."""

import itertools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

FAULTS: dict[str, Callable[["Case"], None]] = {}
"""By name, in the order of the table."""
QUICK = {
    "TRAIN_FOLDS": "1",
    "TRAIN_WINDOWS": "[1.0]",
    "TRAIN_PARAMETERS": '{"randomforestclassifier__n_estimators": 20}',
}
"""How the project is trained where it is not the model that matters."""
POLL = 0.2
"""Seconds between two looks at the registry, so that a fault need not wait for the next."""
FLUSH = 0.5
"""journal.flush_seconds: what a killed server may lose, beside the write itself."""
WRITE = 1.0
"""Seconds that such a write may take on a busy machine."""


class Broken(Exception):
    """What a fault found that must not be."""


def fault(name: str) -> Callable[[Callable[["Case"], None]], Callable[["Case"], None]]:
    """Adds a fault to the table: a function that does its worst to a case."""

    def add(run: Callable[["Case"], None]) -> Callable[["Case"], None]:
        FAULTS[name] = run
        return run

    return add


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Waits; raises Broken with what did not come."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Broken(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


def post(path: str, body: Any) -> bytes:
    """A request that sends JSON."""
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(text)}\r\n\r\n".encode() + text


class Connection:
    """One connection that stays open; raises OSError where the server ends it."""

    def __init__(self, port: int, timeout: float = 30) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        self.socket.sendall(request)
        return self.answer()

    def answer(self) -> tuple[int, bytes]:
        """The same of a request that was sent."""
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._more()
        head, _, body = got.partition(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length:")
        while len(body) < int(length.split(b"\r\n")[0] or b"0"):
            body += self._more()
        return int(head.split(b" ", 2)[1]), body

    def _more(self) -> bytes:
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionResetError("the server closed the connection")
        return more


class Load:
    """Steady requests over a few connections, each answer held to the bundle that it names.

    Every tenth is a batch. `answered` has the time of each prediction's answer, by its id.
    """

    def __init__(self, port: int, case: "Case", rate: float, connections: int = 4) -> None:
        self.port, self.expected, self.step = port, case.answers, connections / rate
        rows = case.rows
        self.singles = [post("/predictions", row) for row in rows]
        self.batch = post("/predictions/batch", {"rows": rows})
        self.answered: dict[str, float] = {}
        self.versions: Counter[str] = Counter()
        self.version = ""
        self.failed: list[tuple[float, str]] = []
        self.wrong: list[str] = []
        self.times: list[tuple[float, float]] = []
        """When each answer came, and how long it took."""
        self._numbers = itertools.count(1)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(i / rate,), daemon=True)
            for i in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def sent(self) -> int:
        """Requests that came to an end."""
        return len(self.times) + len(self.failed)

    def stop(self) -> None:
        """Lets the requests under way end."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _client(self, after: float) -> None:
        connection, due = None, time.monotonic() + after
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            start = time.monotonic()
            due = max(due + self.step, start)
            number = next(self._numbers)
            row = None if number % 10 == 0 else number % len(self.singles)
            try:
                connection = connection or Connection(self.port)
                status, body = connection.ask(self.batch if row is None else self.singles[row])
                if status == 200:
                    now = time.monotonic()
                    self.times.append((now, now - start))
                    self._check(row, json.loads(body), now)
                else:
                    self.failed.append((start, f"{status} {body[:100].decode()}"))
            except OSError as error:
                self.failed.append((start, type(error).__name__))
                connection = None
                self._stop.wait(0.05)

    def _check(self, row: int | None, answer: Any, now: float) -> None:
        answers = [answer] if row is not None else answer["predictions"]
        version = answers[0]["version"]
        self.version = version
        self.versions[version] += 1
        expected = self.expected[version]
        for i, one in enumerate(answers):
            self.answered[one["id"]] = now
            if one["version"] != version or not same(one, expected[i if row is None else row]):
                self.wrong.append(f"not as version {version} answers: {json.dumps(one)[:200]}")


def same(given: Any, expected: Any) -> bool:
    """Whether an answer is a bundle's own, but for the rounding of sums in other batches."""
    if isinstance(expected, dict):
        return all(same(given[name], value) for name, value in expected.items())
    if isinstance(expected, float):
        return abs(given - expected) <= 1e-5 * max(1.0, abs(expected))
    return bool(given == expected)


class Server:
    """`serve` of a project, as a process with its own follower; ready when constructed."""

    def __init__(self, case: "Case", **settings: str) -> None:
        self.port: int = case.module("load.targets").free_port()
        self.case, self.log = case, case.folder / "server.log"
        self.settings = {"SERVING_PORT": str(self.port), "SERVING_POLL": str(POLL), **settings}
        self.memory: list[float] = []
        """Resident MB, once a second of the process that was started last."""
        self.load: Load
        self.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def start(self) -> None:
        """Starts the process, and waits until it answers."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.case.package, "serve"],
                cwd=self.case.folder, env=self.case.environment | self.settings,
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(self.ready, "the server is ready")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def ready(self) -> bool:
        """Whether it answers with a model; raises Broken where it ended."""
        if self.process.poll() is not None:
            raise Broken(f"the server ended with {self.process.returncode}: {self.said()}")
        with suppress(OSError):
            return self.get("/readyz")[0] == 200
        return False

    def get(self, path: str) -> tuple[int, str]:
        """The status and the text of a GET."""
        connection = Connection(self.port)
        with connection.socket:
            status, body = connection.ask(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return status, body.decode()

    def metric(self, name: str) -> float:
        """A metric without labels."""
        lines = self.get("/metrics")[1].splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def follows(self, version: str) -> None:
        """Waits until that version is what clients are answered by."""
        wait_for(lambda: self.load.version == version, f"version {version} is served")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends the process by a signal; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Broken(f"the server did not end within 60 s of {how.name}") from None

    def children(self) -> dict[int, bool]:
        """The process ids of its children, and whether each is the follower."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        found = {}
        for pid in "".join(task.read_text() for task in tasks).split():
            with suppress(OSError):
                found[int(pid)] = b".follow" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return found

    def follower(self) -> int | None:
        """The process id of the follower; None while there is none."""
        return next((pid for pid, follows in self.children().items() if follows), None)

    def workers(self) -> list[int]:
        """The process ids of its workers; none where it answers itself."""
        return [pid for pid, follows in self.children().items() if not follows]

    def said(self) -> str:
        """The last line of its log."""
        return (self.log.read_text(errors="replace").strip().splitlines() or [""])[-1][:300]

    def resident(self, what: str = "VmRSS") -> float:
        """Resident memory in MB, with its workers'; VmHWM is the most since it was asked for."""
        total = 0
        for pid in (self.process.pid, *self.workers()):
            with suppress(OSError, IndexError):
                text = Path(f"/proc/{pid}/status").read_text()
                total += int(text.split(f"{what}:")[1].split()[0])
                if what == "VmHWM":
                    Path(f"/proc/{pid}/clear_refs").write_text("5")
        return total / 1024

    def _watch(self) -> None:
        while self.process.poll() is None:
            self.memory.append(self.resident())
            time.sleep(1)


def minutes(values: list[float]) -> tuple[float, float]:
    """The medians of the second minute and of the last; of a short run, of its quarters."""
    span = max(1, min(60, len(values) // 4))
    second = values[span : 2 * span] or values
    return statistics.median(second), statistics.median(values[-span:])


class Answers(dict[str, Any]):
    """What versions answer; a version that is not known yet was fetched by the server."""

    def __init__(self, of: Callable[[Path], Any]) -> None:
        super().__init__()
        self.of = of

    def __missing__(self, version: str) -> Any:
        self[version] = self.of(Path("var/bundles/test", version))
        return self[version]


class Case:
    """A copy of a trained project, the current folder meanwhile, and a row of the table."""

    def __init__(self, origin: Path, folder: Path, short: bool) -> None:
        self.folder, self.short = folder, short
        left = ".venv", "build", ".git", ".*_cache", "journal.db*", "bundles"
        shutil.copytree(origin, folder, ignore=shutil.ignore_patterns(*left))
        os.chdir(folder)
        self.package = package_of(folder)
        self.journal_url = f"sqlite:///{folder}/var/journal.db"
        self.environment = settled(folder) | QUICK | {"JOURNAL_URL": self.journal_url}
        self.sent = self.failed = self.expected = self.found = 0
        self.memory = ""
        self.lost: list[str] = []
        """Ids that were answered and are not in the journal."""
        self.answered: dict[str, float] = {}
        self.notes: list[str] = []
        self.broke: list[str] = []
        versions = sorted((path.name for path in folder.glob("var/versions/[0-9]*")), key=int)[-2:]
        examples = json.loads((folder / "var/versions" / versions[0] / "examples.json").read_text())
        self.rows = [{"features": one["features"]} for one in examples if "probe" not in one][:20]
        rows = self.module("contract").read([row["features"] for row in self.rows])
        load, predict = self.module("bundle").load, self.module("predict").predict
        self.answers = Answers(lambda path: predict(load(folder / path), rows))
        """What each of two versions answers to each row; and others, once they are served."""
        for version in versions:
            self.answers[version] = self.answers.of(Path("var/versions", version))

    def module(self, name: str) -> Any:
        """A module of the project's package."""
        return import_module(f"{self.package}.{name}")

    @property
    def registry(self) -> Any:
        """The project's registry."""
        return self.module("registry.store").connect(self.module("settings").load())

    def promote(self) -> str:
        """Promotes to `test` the version that it does not hold, and returns that."""
        registry, settings = self.registry, self.module("settings").load()
        (other,) = {*self.answers} - {registry.alias("test")}
        self.module("registry.promote").promote("test", settings, registry, version=other)
        return other

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """A command of the package, to its end."""
        return subprocess.run(
            [sys.executable, "-m", self.package, *arguments],
            cwd=self.folder, env=self.environment | settings, check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    def labelled(self, server: Server, count: int) -> Counter[str]:
        """Predictions whose outcomes are known at once; how many each version answered."""
        connection, versions = Connection(server.port), Counter[str]()
        for number in range(count):
            row = self.rows[number % len(self.rows)] | {"key": uuid.uuid4().hex}
            _, body = connection.ask(post("/predictions", row))
            answer = json.loads(body)
            path = f"/predictions/{answer['id']}/outcome"
            request = post(path, {"outcome": number % 3 == 0}).replace(b"POST", b"PUT", 1)
            status, said = connection.ask(request)
            self.expect(status == 202, f"an outcome was answered {status} {said!r}")
            versions[answer["version"]] += 1
        return versions

    def expect(self, held: bool, why_not: str) -> None:
        """Notes what broke."""
        if not held:
            self.broke.append(why_not)

    def times(self, full: int, short: int) -> range:
        """As many as this form takes."""
        return range(short if self.short else full)

    @contextmanager
    def served(self, rate: float = 100, **settings: str) -> Iterator[Server]:
        """The project's server under load; in the end the answers and the journal are counted.

        Whatever was done within, no answer may be another version's, and a clean stop loses none.
        """
        server = Server(self, **settings)
        server.load = load = Load(server.port, self, rate)
        try:
            wait_for(lambda: bool(load.version), "the first answer")
            yield server
        finally:
            load.stop()
            code = server.stop()
            self.sent += load.sent
            self.failed += len(load.failed)
            written = journalled(settings.get("JOURNAL_URL", self.journal_url))
            self.lost = [id for id in load.answered if id not in written]
            self.expected += len(load.answered)
            self.found += len(load.answered) - len(self.lost)
            self.expect(code == 0, f"SIGTERM ended the server with {code}")
            self.expect(not load.wrong, "; ".join(load.wrong[:1]))
            if server.memory:
                self.memory = "{:.0f} to {:.0f} MB".format(*minutes(server.memory))

    def none_failed(self, server: Server) -> None:
        """Breaks where a request failed, or a row is not in the journal."""
        self.expect(not server.load.failed, f"a request failed: {server.load.failed[:1]}")
        self.expect(not self.lost, f"{len(self.lost)} rows are not in the journal")

    def memory_held(self, server: Server, share: float = 0.05) -> None:
        """Breaks where memory grew from the second minute to the last; a short run says nothing."""
        first, last = minutes(server.memory)
        grew = last / first - 1
        self.expect(self.short or grew <= share, f"memory grew by {grew:.0%}")


def package_of(project: Path) -> str:
    """The name of a project's package."""
    return next(project.glob("src/*/serving/app.py")).parents[1].name


def few_rows(project: Path) -> Path:
    """A file of the newest of a project's rows."""
    import pandas as pd

    source, few = next((project / "data").glob("*.parquet")), project / "var" / "few.csv"
    few.parent.mkdir(exist_ok=True)
    pd.read_parquet(source).tail(2000).to_csv(few, index=False)
    return few


def settled(folder: Path) -> dict[str, str]:
    """The environment of a project's process, without settings of whoever runs this."""
    own = ("SERVING_", "JOURNAL_", "TRAIN_", "DATA_", "GATES_", "MLFLOW_TRACKING", "MLFLOW_REG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return kept | {"PYTHONPATH": str(folder / "src"), "MLFLOW_DISABLE_TELEMETRY": "true"}


def journalled(url: str) -> set[str]:
    """The ids in a journal."""
    import sqlalchemy as sa

    engine = sa.create_engine(url)
    with engine.connect() as connection:
        return set(connection.scalars(sa.text("SELECT id FROM predictions")))
