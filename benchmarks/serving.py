"""One-row predictions of a project's server, beside two ceilings and five peers.

    python benchmarks/serving.py PROJECT --bundles FOLDER [--only NAME ...] [--json FILE]

PROJECT is a rendered project, FOLDER holds its versions and names one of them in `current`. Run it
with the project's own Python; needs uv. The ceilings are a bare FastAPI route with the same bodies
and no model, and the least that uvicorn answers. The peers serve the same bundle by the same code,
one worker each, as their documentation says; all but MLflow gather requests, as ours does. Each is
installed on demand, with what the project serves with, into an environment under build/peers. It
and ours run on this machine in turns, so that the ratios count and not the rates.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from client import WRK, Measured, Request, measure, one

SERVERS = Path(__file__).parent / "servers"
BUILD = Path(__file__).parents[1] / "build" / "peers"
CONNECTIONS = 1, 8, 32, 128
WORKERS = 2


class Other(NamedTuple):
    """Who is compared with: how it is started and asked."""

    package: str
    """What is installed; nothing beside the project's own environment where it is empty."""
    command: str
    path: str = "/predictions"
    body: str = '{"features": ROW}'
    """What is sent; ROW is the row's features."""
    rounds: int = 2
    seconds: int = 1
    """Of a round: a slow one must come to answer."""


MLFLOW = "mlflow models serve --model-uri MODEL --env-manager local --workers 1 --port PORT"
OTHERS = {
    "bare FastAPI": Other("", "python -m bare PROJECT_PACKAGE PORT", rounds=4),
    "bare ASGI": Other("", "python -m asgi PORT", rounds=4),
    "mosec": Other("mosec==0.9.8", "python -m mosecs --port PORT", "/inference", "ROW"),
    "LitServe": Other("litserve==0.2.19", "python -m lit PORT", "/predict"),
    "BentoML": Other(
        "bentoml==1.4.40", "bentoml serve bento:Peer --port PORT", "/predict", '{"rows": [ROW]}'
    ),
    "Ray Serve": Other("ray[serve]==2.60.0", "python -m rays PORT", "/predict", "ROW"),
    "MLflow": Other("mlflow==3.17.2", MLFLOW, "/invocations", '{"dataframe_records": [ROW]}', 2, 3),
}


class Server:
    """A server's processes; ready when constructed, all ended when the block ends.

    `command` is told its port in the place of PORT; it is ready when it answers `request`.
    """

    def __init__(self, command: list[str], request: Request, environment: dict[str, str]) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = tempfile.TemporaryFile()  # noqa: SIM115, closed as the block ends
        self.folder = tempfile.TemporaryDirectory()
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [str(self.port) if word == "PORT" else word for word in command],
            cwd=self.folder.name,
            env=environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        try:
            while one(self.port, request) != 200:
                late = time.perf_counter() - start > 120
                if late or self.process.poll() is not None:
                    self.log.seek(0)
                    print(self.log.read().decode(errors="replace")[-2000:], file=sys.stderr)
                    raise SystemExit(f"{' '.join(command)} ended or does not answer")
                time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise
        self.ready = time.perf_counter() - start

    def processes(self) -> list[Path]:
        """The folder in /proc of each of its processes (Linux): descendants and its session."""
        own, parents, found = self.process.pid, {}, set()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
                if int(fields[3]) == own:
                    found.add(int(folder.name))
        for pid in parents:
            above = pid
            while above in parents and above != own:
                above = parents[above]
            if above == own:
                found.add(pid)
        return [Path(f"/proc/{pid}") for pid in found]

    def memory(self) -> float:
        """MB of all its processes, what they share counted once."""
        total = 0
        for folder in self.processes():
            with suppress(OSError):
                text = (folder / "smaps_rollup").read_text()
                total += int(text.split("\nPss:")[1].split()[0])
        return total / 1024

    def cpu(self) -> float:
        """Processor seconds of all its processes so far."""
        total = 0
        for folder in self.processes():
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        processes = self.processes()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for folder in processes:
            with suppress(ProcessLookupError):
                os.kill(int(folder.name), signal.SIGKILL)
        self.process.wait()
        self.log.close()
        self.folder.cleanup()


class Bench:
    """A project, and how its server and those of others are started."""

    def __init__(self, project: Path, bundles: Path) -> None:
        self.project, self.bundles = project.resolve(), bundles.resolve()
        self.bundle = self.bundles / (bundles / "current").read_text().strip()
        self.package = next((project / "src").glob("*/serving/app.py")).parent.parent.name
        examples = json.loads((self.bundle / "examples.json").read_text())
        self.rows = [example["features"] for example in examples]

    def requests(
        self, path: str = "/predictions", body: str = '{"features": ROW}'
    ) -> list[Request]:
        """One for each row of the examples."""
        return [Request(path, body.replace("ROW", json.dumps(row))) for row in self.rows]

    def environment(self, home: Path) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{self.project / 'src'}{os.pathsep}{SERVERS}",
            "PACKAGE": self.package, "BUNDLE": str(self.bundle), "OMP_NUM_THREADS": "1",
            "JOURNAL_URL": "sqlite:///journal.db", "MLFLOW_DISABLE_TELEMETRY": "true",
            "BENTOML_DO_NOT_TRACK": "true", "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip

    def own(self, workers: int = 1) -> Server:
        """The project's server, with a journal of its own."""
        command = [sys.executable, "-m", "ciclo", self.package, "PORT", str(self.bundles)]
        environment = self.environment(Path(sys.prefix)) | {"SERVING_WORKERS": str(workers)}
        return Server(command, self.requests()[0], environment)

    def other(self, other: Other) -> Server:
        """One of the others."""
        home = installed(other.package, self.project) if other.package else Path(sys.prefix)
        known = {"PROJECT_PACKAGE": lambda: self.package, "MODEL": self.model}
        words = [known[w]() if w in known else w for w in other.command.split()]
        words[0] = str(home / "bin" / words[0])
        request = self.requests(other.path, other.body)[0]
        return Server(words, request, self.environment(home))

    def model(self) -> str:
        """The folder of the newest version in the registry, as MLflow serves one."""
        found = self.project.glob("var/artifacts/**/MLmodel")
        return str(max(found, key=lambda path: path.stat().st_mtime).parent)

    def against(self, name: str) -> dict[str, Any]:
        """Ours beside another: medians of rounds in turns."""
        other = OTHERS[name]
        with self.other(other) as theirs, self.own() as ours:
            asked = self.requests(other.path, other.body)
            pair = {"ours": Asked(ours, self.requests()), "theirs": Asked(theirs, asked)}
            found = self.turns(pair, other.rounds, other.seconds)
            result: dict[str, Any] = {
                "connections": {n: ratios(*rows) for n, rows in found.items()},
                "ready": theirs.ready,
                "own_ready": ours.ready,
                "memory": theirs.memory(),
                "own_memory": ours.memory(),
            }
        if other.package:
            home = installed(other.package, self.project)
            result["disk"] = disk(home) / disk(installed("", self.project))
        return result

    def workers(self) -> dict[str, Any]:
        """Ours with two workers beside ours with one."""
        with self.own(WORKERS) as many, self.own() as single:
            asked = self.requests()
            pair = {"ours": Asked(many, asked), "theirs": Asked(single, asked)}
            found = self.turns(pair, 5, 1, (32, 128))
            return {
                "connections": {n: ratios(*rows) for n, rows in found.items()},
                "own_memory": many.memory(),
                "memory": single.memory(),
            }

    def turns(
        self,
        pair: dict[str, "Asked"],
        rounds: int,
        seconds: int,
        connections: tuple[int, ...] = CONNECTIONS,
    ) -> dict[int, tuple[list["Round"], list["Round"]]]:
        """So many rounds of each server at each number of connections."""
        for server, requests in pair.values():
            measure(server.port, requests, 8, 2)
        found: dict[int, tuple[list[Round], list[Round]]] = {n: ([], []) for n in connections}
        for number in range(rounds):
            for n in connections:
                # whoever goes first may find a colder machine: take turns
                for name in sorted(pair, reverse=bool(number % 2)):
                    server, requests = pair[name]
                    before, long = server.cpu(), seconds if name == "theirs" else 1
                    seen = measure(server.port, requests, n, long)
                    used = (server.cpu() - before) / (seen.rate * long)
                    found[n][name == "theirs"].append(Round(seen, used))
        return found


class Asked(NamedTuple):
    """A server, and what it is sent."""

    server: Server
    requests: list[Request]


class Round(NamedTuple):
    """One measurement of a server."""

    seen: Measured
    server: float
    """Processor seconds of the server for each answer."""


def ratios(ours: list[Round], theirs: list[Round]) -> dict[str, float]:
    """Of each figure the median of ours / theirs, and our own medians."""
    pairs = [*zip(ours, theirs, strict=True)]
    middle = statistics.median
    return {
        "rate": middle(a.seen.rate / b.seen.rate for a, b in pairs),
        "p50": middle(a.seen.p50 / b.seen.p50 for a, b in pairs),
        "p99": middle(a.seen.p99 / b.seen.p99 for a, b in pairs),
        "cpu": middle(a.server / b.server for a, b in pairs),
        "own_rate": middle(a.seen.rate for a in ours),
        "own_p50": middle(a.seen.p50 for a in ours),
        "own_p99": middle(a.seen.p99 for a in ours),
        "own_client": middle(a.seen.client / (a.seen.client + a.server) for a in ours),
    }


def installed(package: str, project: Path) -> Path:
    """An environment with a peer, and with what the project serves with."""
    name = package.replace("[", "-").replace("]", "") or "serving"
    home = BUILD / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    if not (home / ".ready").exists():
        print(f"installing {package or 'what a project serves with'} into {home}", flush=True)
        pyproject = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        run = partial(subprocess.run, check=True)
        run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, home])
        install = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", home]
        run([*install, *([package] if package else []), *pyproject["dependencies"]])
        (home / ".ready").touch()
    return home


def disk(home: Path) -> float:
    """MB of all files of a folder."""
    return sum(f.stat().st_size for f in home.rglob("*") if f.is_file()) / 1e6


def arguments(doc: str) -> argparse.ArgumentParser:
    """What each program takes that measures a project."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    return parser


def main() -> None:
    """Measures and prints."""
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=[*OTHERS, "workers"], nargs="+")
    given = parser.parse_args()
    bench = Bench(given.project, given.bundles)
    print(f"client: {'wrk' if WRK else 'Python, for there is no wrk'}")
    found = {}
    for name in given.only or [*OTHERS, "workers"]:
        found[name] = bench.workers() if name == "workers" else bench.against(name)
        printed(f"{WORKERS} workers / 1" if name == "workers" else f"ours / {name}", found[name])
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def printed(title: str, found: dict[str, Any]) -> None:
    """The ratios of one comparison."""
    parts = []
    if "ready" in found:
        parts.append(f"ready in {found['own_ready']:.1f} s, it in {found['ready']:.1f}")
    parts.append(f"memory {found['own_memory']:.0f} MB, it {found['memory']:.0f}")
    if "disk" in found:
        parts.append(f"its environment {found['disk']:.2f} times ours")
    print(f"{title}: {'; '.join(parts)}")
    print(
        "                     rate   p50   p99  processor  ours       p50      p99  client's share"
    )
    for n, r in found["connections"].items():
        own = f"{r['own_rate']:5.0f}/s {r['own_p50'] * 1e3:5.1f} ms {r['own_p99'] * 1e3:5.1f} ms"
        print(
            f"  {n:4} connections: {r['rate']:6.2f} {r['p50']:5.2f} {r['p99']:5.2f}"
            f"  {r['cpu']:9.2f}  {own}  {r['own_client']:.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
