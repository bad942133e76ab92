"""One-row predictions per second and start to ready, against what others serve a model with.

    python benchmarks/peers.py PROJECT --bundles FOLDER [--rounds 5] [--seconds 2] [--only NAME]

MLflow's scoring server, BentoML and LitServe serve the same bundle by the same code, one worker
each; the latter two gather requests, as ours does. Each is installed on demand, with what the
project serves with, into an environment of its own under build/peers. Run it with the project's
own Python; needs uv. The peer and ours run on this machine in turns, so that the ratios count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

from serving import SERVERS, Server, load, post

BUILD = Path(__file__).parents[1] / "build" / "peers"


class Peer(NamedTuple):
    """How one is started and asked."""

    command: str
    ready: str
    """The path that answers 200 when it is."""
    path: str
    body: str
    """What is sent; ROW is the row's features."""


MLFLOW = "mlflow models serve --model-uri MODEL --env-manager local --workers 1 --port PORT"
PEERS = {
    "mlflow": Peer(MLFLOW, "/ping", "/invocations", '{"dataframe_records": [ROW]}'),
    "bentoml": Peer(
        "bentoml serve bento:Peer --port PORT", "/readyz", "/predict", '{"rows": [ROW]}'
    ),
    "litserve": Peer("python -m lit PORT", "/health", "/predict", '{"features": ROW}'),
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", choices=PEERS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = {}
    for name in [given.only] if given.only else PEERS:
        found[name] = against(name, given)
        print(
            f"{name:9} rate {found[name]['rate']:6.1f}/s, ours {found[name]['times']:.0f} times; "
            f"ready in {found[name]['ready']:.1f} s, ours in {found[name]['start']:.0%} of it; "
            f"environment {found[name]['disk_mb']:.0f} MB",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def against(name: str, given: argparse.Namespace) -> dict[str, float]:
    """The medians of rounds in turns: the peer's rate, how many times ours is that, the starts."""
    project, peer = given.project.resolve(), PEERS[name]
    bundles = given.bundles.resolve()
    bundle = bundles / (bundles / "current").read_text().strip()
    package = next((project / "src").glob("*/serving/app.py")).parent.parent.name
    home = installed(name, project)
    model = max(project.glob("var/artifacts/**/MLmodel"), key=lambda path: path.stat().st_mtime)
    rows = [example["features"] for example in json.loads((bundle / "examples.json").read_text())]
    ours = [post("/predictions", {"features": row}) for row in rows]
    theirs = [
        post(peer.path, json.loads(peer.body.replace("ROW", json.dumps(row)))) for row in rows
    ]
    command = [str(model.parent) if word == "MODEL" else word for word in peer.command.split()]
    with tempfile.TemporaryDirectory() as folder:
        place = {
            "cwd": Path(folder), "PYTHONPATH": f"{project / 'src'}{os.pathsep}{SERVERS}",
            "PACKAGE": package, "BUNDLE": str(bundle), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        command[0] = str(home / "bin" / command[0])
        own_command = [sys.executable, str(SERVERS / "ciclo.py"), package, "PORT", str(bundles)]
        server = Server(*command, path=peer.ready, PATH=path, **place)
        with (
            server,
            Server(*own_command, **place) as own,
        ):
            pairs = []
            for one, requests in ((server, theirs), (own, ours)):
                load(one.port, requests, given.connections, 1.0)
            for _ in range(given.rounds):
                rates = [
                    len(load(one.port, requests, given.connections, given.seconds)) / given.seconds
                    for one, requests in ((server, theirs), (own, ours))
                ]
                pairs.append(rates)
    return {
        "rate": statistics.median(peer for peer, _ in pairs),
        "times": statistics.median(our / peer for peer, our in pairs),
        "ready": server.ready,
        "start": own.ready / server.ready,
        "disk_mb": sum(f.stat().st_size for f in home.rglob("*") if f.is_file()) / 1e6,
    }


def installed(package: str, project: Path) -> Path:
    """An environment with a peer, and with what the project serves with."""
    home = BUILD / f"{package}-{sys.version_info.major}.{sys.version_info.minor}"
    if not (home / ".ready").exists():
        print(f"installing {package} into {home}", flush=True)
        pyproject = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        subprocess.run(
            ["uv", "venv", "--quiet", "--clear", "--python", sys.executable, home], check=True
        )
        subprocess.run(
            [
                "uv",
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--python",
                home,
                package,
                *pyproject["dependencies"],
            ],
            check=True,
        )
        (home / ".ready").touch()
    return home


if __name__ == "__main__":
    main()
