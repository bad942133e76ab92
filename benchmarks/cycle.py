"""What the loop gains: a model that is never retrained, calendars, and ciclo, on streams.

    python benchmarks/cycle.py [--seeds 3] [--streams "SEA, abrupt" ...] [--out build/bench-cycle]

Renders a project, gives its package the contract of each stream, and lets lifetime.py live through
it with the project's own code. Prints a table, and leaves it as JSON and as a picture. The best
calendar is the best of 20 in hindsight, for each stream; nobody knows it beforehand.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import Any

import copier

HERE = Path(__file__).resolve().parent
NOISE = 0.003
"""Differences of a metric that are none."""
FLIGHTS = "flights"
STREAM = HERE / "stream"
"""What the team of a stream would write into project/."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--streams", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "bench-cycle")
    parser.add_argument("--python", type=Path, help="of an environment that is there already")
    given = parser.parse_args()
    given.out = given.out.resolve()
    project = given.out / "project"
    python = rendered(project, given.python)
    known = json.loads(run(python, project, str(HERE / "streams.py")))
    chosen = {n: k for n, k in known.items() if n in given.streams or not given.streams}

    def live(name: str) -> list[dict[str, Any]]:
        source = contract(project, given.out, name, known[name]["problem"], known[name]["columns"])
        said = run(python, source, str(HERE / "lifetime.py"), name, str(given.seeds))
        return json.loads(said.splitlines()[-1])

    rows = []
    print(HEAD)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, lives in zip(chosen, pool.map(live, chosen), strict=True):
            rows.append(row(name, known[name]["drift"], lives))
            print(line(rows[-1]), flush=True)
    for text in summary(rows):
        print(text)
    (given.out / "cycle.json").write_text(json.dumps(rows, indent=2) + "\n")
    files = [given.out / name for name in ("cycle.json", "cycle.png")]
    subprocess.run([python, HERE / "cycle_picture.py", *files], check=True)
    print(f"picture: {files[1]}")


def rendered(project: Path, python: Path | None) -> Path:
    """A rendered project called `kept`, and the Python of its environment."""
    here = ".".join(map(str, sys.version_info[:2]))
    shutil.rmtree(project, ignore_errors=True)
    copier.run_copy(
        str(HERE.parent),
        project,
        data={"name": "kept", "python": here, "serving_format": "skops"},
        defaults=True,
        vcs_ref="HEAD",
        quiet=True,
    )
    if python:
        return python.absolute()
    subprocess.run(
        ["make", "--silent", "setup", f"PYTHON={sys.executable}"], cwd=project, check=True
    )
    return project / ".venv" / "bin" / "python"


def contract(project: Path, out: Path, name: str, problem: str, columns: int) -> Path:
    """A copy of the package that knows the stream's columns; the flights' knows its own."""
    source = out / "-".join(["source", *name.replace(",", "").split()])
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(project / "src", source / "src")
    own = source / "src" / "kept" / "project"
    if name == FLIGHTS:
        model = (own / "model.py").read_text()
        model = model.replace("n_estimators=100", "n_estimators=20").replace("n_jobs=-1, ", "")
        (own / "model.py").write_text(model)
        shutil.copytree(project / "data", source / "data")
        return source
    for path in (*STREAM.glob("*.py"), *(STREAM / problem).glob("*.py")):
        shutil.copy(path, own)
    fields = "".join(f"    x{i}: float\n" for i in range(columns))
    text = (own / "features.py").read_text()
    (own / "features.py").write_text(text.replace("    x0: float\n", fields))
    return source


def run(python: Path, source: Path, *arguments: str) -> str:
    """What a program says in the project's environment."""
    paths = os.pathsep.join([str(source / "src"), str(HERE)])
    own = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [str(python), *arguments],
        check=False,
        cwd=source,
        env=os.environ | own,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments[-2:])}: {done.stderr[-4000:]}")
    return done.stdout


def row(name: str, drift: str, lives: list[dict[str, Any]]) -> dict[str, Any]:
    """The means over seeds of one stream, with the calendar that is best in hindsight."""

    def mean(way: str, figure: str) -> float:
        return fmean(life[way][figure] for life in lives)

    calendars = [way for way in lives[0] if way.startswith("each")]
    best = max(calendars, key=lambda way: mean(way, "metric"))
    turns = mean("each 1, all", "promotions")
    found = {"stream": name, "drift": drift, "calendar": best, "turns": turns}
    for short, way in (("never", "never"), ("best", best), ("ciclo", "ciclo")):
        for figure in ("metric", "worst", "promotions", "tried", "seconds"):
            found[f"{short} {figure}"] = mean(way, figure)
    found["vain"] = mean("ciclo", "vain")
    losses = [life["ciclo"]["metric"] - life["never"]["metric"] for life in lives]
    return found | {"least gain": min(losses)}


HEAD = (
    f"{'stream':20} {'drift':9} {'never':>6} {'best':>6} {'ciclo':>6} {'share':>6} {'least':>7}  "
    f"{'worst tenth':>20}  {'promotions':>10} {'tried':>5}  {'seconds':>7}  best calendar"
)


def share(row: dict[str, Any]) -> float:
    """What ciclo gains over never retraining, of what the best calendar gains."""
    gain = row["best metric"] - row["never metric"]
    return (row["ciclo metric"] - row["never metric"]) / gain if gain > NOISE else float("nan")


def line(row: dict[str, Any]) -> str:
    """A line of the table."""
    metrics = " ".join(f"{row[f'{way} metric']:6.4f}" for way in ("never", "best", "ciclo"))
    worst = " ".join(f"{row[f'{way} worst']:6.3f}" for way in ("never", "best", "ciclo"))
    part = share(row)
    said = "     -" if isnan(part) else f"{part:6.0%}"
    promotions = f"{row['ciclo promotions']:4.1f} /{row['best promotions']:4.0f}"
    return (
        f"{row['stream']:20} {row['drift']:9} {metrics} {said} {row['least gain']:+7.4f}  "
        f"{worst:>20}  {promotions:>10} {row['ciclo tried']:5.0f}  {row['ciclo seconds']:7.0f}  "
        f"{row['calendar']}"
    )


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """The figures to reach, over all streams and seeds."""
    worst = min(rows, key=lambda row: row["least gain"])
    moved = [share(r) for r in rows if r["drift"] in ("abrupt", "gradual", "recurring")]
    moved = [part for part in moved if not isnan(part)]
    still = [r for r in rows if r["drift"] == "none"]
    more = [r["stream"] for r in rows if r["ciclo promotions"] >= max(r["best promotions"], 1)]
    found = [
        f"against never retraining, the worst seed of all: {worst['least gain']:+.4f} on "
        f"{worst['stream']} (noise is {NOISE})"
    ]
    if moved:
        found.append(
            f"with concept drift: {fmean(moved):.0%} of what the best calendar gains (least "
            f"{min(moved):.0%}); as many promotions as that or more: {', '.join(more) or 'nowhere'}"
        )
    if still:
        rate, vain = (fmean(r[n] / r["turns"] for r in still) for n in ("ciclo promotions", "vain"))
        found.append(
            f"without drift: {20 * rate:.2f} new versions in 20 windows, "
            f"{20 * vain:.2f} of them no better on all rows that came"
        )
    return found


if __name__ == "__main__":
    main()
