"""Many rows at once, and training: beside the bare model, and a bare scikit-learn.

    python benchmarks/tables.py PROJECT --bundles FOLDER [--json FILE]

Arguments as of serving.py. Rows a second through `/predictions/batch`, by rows in a request; `make
score` of 100,000 rows beside pandas and the bare model; `make train` beside the same fits by
scikit-learn alone. The latter are whole processes, in turns, and their processor time counts.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pandas as pd
from client import used
from serving import Bench, arguments

PLAIN = Path(__file__).parent / "plain"
SIZES = {1: 2000, 100: 100, 10_000: 3}
"""Rows in a request: how many requests are sent."""
HEADERS = {"content-type": "application/json"}
ROWS = 100_000
Command = list[str | Path]


def main() -> None:
    """Measures and prints."""
    given = arguments(__doc__).parse_args()
    bench = Bench(given.project, given.bundles)
    found: dict[str, Any] = {"batches": batches(bench)}
    for size, rate in found["batches"].items():
        print(f"{size:6} rows a request: {rate:7.0f} rows/s", flush=True)
    for name, pair, rounds in (("score", scoring, 2), ("train", training, 1)):
        with pair(bench) as (own, bare):
            found[name] = beside(bench, own, bare, rounds)
        ours, plain = found[name]["own"], found[name]["bare"]
        print(
            f"{name}: {ours:.1f} s of processor time, bare {plain:.1f} s: {ours / plain:.2f} times",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def batches(bench: Bench) -> dict[int, float]:
    """Rows a second of one connection, by rows in a request."""
    rows = [json.dumps({"features": row}) for row in bench.rows]
    os.environ |= {"SERVING_MAX_BATCH": str(max(SIZES)), "SERVING_MAX_BODY_MB": "50"}
    found = {}
    with bench.own() as server, closing(HTTPConnection("127.0.0.1", server.port)) as client:
        for size, count in SIZES.items():
            many = ", ".join((rows * (size // len(rows) + 1))[:size])
            body = f'{{"rows": [{many}]}}'
            start = time.perf_counter()
            for _ in range(count):
                client.request("POST", "/predictions/batch", body, HEADERS)
                with client.getresponse() as answer:
                    if answer.status != 200:
                        raise SystemExit(f"{answer.status}: {answer.read(500)!r}")
                    answer.read()
            found[size] = count * size / (time.perf_counter() - start)
    return found


@contextmanager
def scoring(bench: Bench) -> Iterator[tuple[Command, Command]]:
    """`score` of as many rows as there are said to be, and the bare program."""
    data = pd.read_parquet(bench.project / "data" / "flights.parquet")
    with tempfile.TemporaryDirectory() as folder:
        table, ours, theirs = (Path(folder) / f"{n}.parquet" for n in ("rows", "ours", "theirs"))
        pd.concat([data] * (ROWS // len(data) + 1)).head(ROWS).to_parquet(table)
        yield (
            ["-m", bench.package, "score", table, ours],
            [PLAIN / "score.py", bench.package, bench.bundle / "model.onnx", table, theirs],
        )


@contextmanager
def training(bench: Bench) -> Iterator[tuple[Command, Command]]:
    """`train`, and the bare program."""
    yield ["-m", bench.package, "train"], [PLAIN / "train.py", bench.package]


def beside(bench: Bench, own: Command, bare: Command, rounds: int) -> dict[str, float]:
    """Processor seconds of both programs, the least of some rounds in turns."""
    seconds: dict[str, list[float]] = {"own": [], "bare": []}
    for _ in range(rounds):
        for name, command in (("own", own), ("bare", bare)):
            before = used()
            subprocess.run(
                [sys.executable, *map(str, command)],
                cwd=bench.project, check=True, capture_output=True,
                env=os.environ | {"PYTHONPATH": str(bench.project / "src")},
            )  # fmt: skip
            seconds[name].append(used() - before)
    return {name: min(each) for name, each in seconds.items()}


if __name__ == "__main__":
    main()
