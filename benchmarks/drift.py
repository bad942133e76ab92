"""Data drift of 100,000 rows by 30 columns: our time, and with --evidently its time and numbers.

    python benchmarks/drift.py [--rows 100000] [--evidently] [--json FILE]

evidently is installed on demand into an environment of its own under build/, with the last pandas
it imports on. Both get the same 20 numbers and 10 categories, half of which moved. Needs NumPy and
SciPy; --evidently needs uv.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "evidently"
THEIRS = Path(__file__).with_name("drift_evidently.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--evidently", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    drift = module()
    then, now = table(given.rows, 0.0, 0), table(given.rows, 0.3, 1)
    start = time.perf_counter()
    reference = drift.reference(objects(then))
    summed = time.perf_counter() - start
    columns, seconds = objects(now), []
    for _ in range(given.rounds):
        drift._areas.cache_clear()
        start = time.perf_counter()
        ours = drift.distances(reference, columns)
        drift.thresholds(reference, given.rows, 0.1)
        seconds.append(time.perf_counter() - start)
    size, wrong = len(json.dumps(reference)), off(ours, exact(then, now))
    result = {"rows": given.rows, "columns": len(now), "seconds": min(seconds)}
    result |= {"reference_seconds": summed, "reference_bytes": size, "off_scipy": wrong}
    print(f"{given.rows:,} rows by {len(now)} columns, against a reference of as many rows")
    print(f"  distances and thresholds  {min(seconds):.2f} s, best of {given.rounds}")
    print(f"  the reference, once       {summed:.2f} s, {size / 1e3:.0f} kB")
    print(f"  off scipy on all rows     {wrong:.1e} at most")
    if given.evidently:
        theirs = evidently(then, now, given.rounds)
        ratio, wrong = theirs["seconds"] / min(seconds), off(ours, theirs["values"])
        result |= {"evidently_seconds": theirs["seconds"], "ratio": ratio, "off_evidently": wrong}
        print(f"  evidently                 {theirs['seconds']:.2f} s: {ratio:.0f} times ours")
        print(f"  off evidently             {wrong:.1e} at most, {len(theirs['values'])} columns")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


def module() -> ModuleType:
    """The template's drift.py, which imports nothing of the package."""
    path = next((ROOT / "template").glob("src/*/monitoring/drift.py"))
    spec = importlib.util.spec_from_file_location("drift", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def table(rows: int, moved: float, seed: int) -> dict[str, np.ndarray]:
    """20 numbers, normal and skewed, and 10 categories; every other one is `moved`."""
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for i in range(20):
        shape = rng.normal(size=rows) if i < 10 else rng.lognormal(size=rows)
        made[f"n{i}"] = shape + moved * (i % 2)
    for i in range(10):
        weight = np.arange(1, 6 + 5 * i, dtype=float)
        weight[0] += moved * weight.sum() * (i % 2)
        names = np.array([f"k{j}" for j in range(len(weight))])
        made[f"c{i}"] = rng.choice(names, rows, p=weight / weight.sum())
    return made


def objects(made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: v.astype(object) if name[0] == "c" else v for name, v in made.items()}


def exact(then: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> dict[str, float]:
    """The same distances by scipy, on all rows."""
    found = {}
    for name, x in then.items():
        if name[0] == "n":
            found[name] = wasserstein_distance(x, now[name]) / x.std()
        else:
            kinds = np.unique(np.concatenate([x, now[name]]))
            found[name] = jensenshannon(*[[np.mean(v == k) for k in kinds] for v in (x, now[name])])
    return found


def off(ours: dict[str, float], others: dict[str, float]) -> float:
    return max(abs(ours[name] - value) for name, value in others.items())


def evidently(then: dict[str, np.ndarray], now: dict[str, np.ndarray], rounds: int) -> dict:
    python = BUILD / "venv" / "bin" / "python"
    if not python.exists():
        print("  installing evidently", file=sys.stderr)
        subprocess.run(["uv", "venv", "-q", "--python", sys.executable, BUILD / "venv"], check=True)
        wanted = ["evidently>=0.7", "pandas<3.1"]
        subprocess.run(["uv", "pip", "install", "-q", "--python", python, *wanted], check=True)
    np.savez(BUILD / "then.npz", **then)
    np.savez(BUILD / "now.npz", **now)
    command = [str(python), "-W", "ignore", str(THEIRS), str(BUILD), str(rounds)]
    environment = {**os.environ, "DO_NOT_TRACK": "1"}
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(said.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
