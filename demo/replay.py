"""Nine months of flights over HTTP, with late labels, while the cycle turns.

Runs in the rendered project with the project's own Python. It trains on January to March of 2013,
serves that model, and then lives through the rest of the year a week at a time: the server
predicts each day's flights, every outcome is sent a week later, and the cycle takes a turn. Two
lines are drawn beside it, computed offline by the same recipe: the first model never retrained,
and a model retrained on the first of every month.
"""

import base64
import html
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.update(
    DATA_URI="var/january-to-march.parquet",  # all that is known on the first of April
    TRAIN_WINDOW="7500",  # three months of this sample
    TRAIN_WINDOWS="[1.0]",  # and no other; the fewer models, the quicker the demo
    TRAIN_FOLDS="3",
    CYCLE_ROWS="1000",  # a candidate is compared every other week
    GATES_UNATTENDED="true",
    SERVING_POLL="0.3",
    JOURNAL_FLUSH_SECONDS="0.1",
    LOAD_RUN_TIME="2",
    LOAD_USERS="10",
)

import numpy as np
import pandas as pd
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from flight_delays import cycle
from flight_delays import settings as settings_
from flight_delays.cli.common import bundle_in
from flight_delays.cli.lifecycle import write_examples
from flight_delays.console import console
from flight_delays.evaluation.metric import MAIN, METRICS, codes
from flight_delays.load.run import measure
from flight_delays.project import data
from flight_delays.project.features import KEY, TIME
from flight_delays.project.target import TARGET
from flight_delays.registry.base import Registry
from flight_delays.registry.promote import promote
from flight_delays.registry.store import connect
from flight_delays.training import fitting, snapshots
from flight_delays.training.train import train

SOURCE = "data/flights.parquet"
CLIENTS = 4
BATCH = "/predictions/batch"
OUT = Path("reports/demo")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100% }
table { border-collapse: collapse }
td, th { padding: .2rem .9rem; text-align: right; border-bottom: 1px solid #ddd }
"""


def main() -> None:
    assert TIME, "flights have a time"
    year = snapshots.labelled(data.load(SOURCE), SOURCE).sort_values(TIME, kind="stable")
    april = pd.Timestamp("2013-04-01")
    known, later = year[year[TIME] < april], year[year[TIME] >= april]
    Path("var").mkdir(exist_ok=True)
    raw = data.load(SOURCE)
    raw[raw[TIME] < april].to_parquet("var/january-to-march.parquet", index=False)
    console.quiet = True  # what each turn reads is not told
    settings = settings_.load()
    registry = connect(settings)
    print("training on January to March, and through the gates to production", flush=True)
    first = train(settings, registry, snapshots.snapshot(settings))
    for environment in ("test", "staging", "production"):
        if environment == "production":
            measure(settings, registry, "staging")
        promote(environment, settings, registry)
    with serving() as url:
        lived, turns = live(later, url, settings, registry)
    print("two more lines, offline: never retrained, and retrained every month", flush=True)
    lines = {
        "never retrained": never(known, later, settings),
        "every month": monthly(year, later, settings),
        "ciclo": lived,
    }
    write_examples(bundle_in("production", settings))
    show(later, lines, turns, first.version)


@contextmanager
def serving() -> Iterator[str]:
    """The project's own `serve`, on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "flight_delays",
        "serve",
        "--env",
        "production",
        "--port",
        str(port),
    ]
    with Path("var/serve.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"127.0.0.1:{port}"
    try:
        version(url, wait=60)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def ask(client: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    """One request; raises RuntimeError for an answer that is no success."""
    text = None if body is None else json.dumps(body)
    client.request(method, path, text, {"Content-Type": "application/json"})
    answer = client.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
    return json.loads(content)


def version(url: str, expected: str | None = None, wait: float = 30) -> str:
    """Waits until the server answers with the expected version, or with any."""
    end = time.monotonic() + wait
    while time.monotonic() < end:
        client = http.client.HTTPConnection(url, timeout=10)
        try:
            found = ask(client, "GET", "/version")["version"]
            if found and (expected is None or found == expected):
                return found
        except (OSError, RuntimeError, KeyError):
            pass
        finally:
            client.close()
        time.sleep(0.1)
    raise SystemExit(
        f"error: no server with version {expected or 'any'} at {url}; see var/serve.log"
    )


def live(
    later: pd.DataFrame, url: str, settings: Any, registry: Registry
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Every flight through the server; returns the scores, and what each week's turn did."""
    scores = np.full((len(later), 2), np.nan)
    times = [time.isoformat() for time in later[TIME]]
    keys, labels = later[KEY].tolist(), later[TARGET].tolist()
    rows = snapshots.records(later[snapshots.FIELDS])
    bodies = [
        {"key": key, "features": row | {TIME: time}}
        for key, row, time in zip(keys, rows, times, strict=True)
    ]
    local = threading.local()

    def client() -> http.client.HTTPConnection:
        """This thread's connection; the server closes one that was idle for some seconds."""
        if time.monotonic() - getattr(local, "used", 0) > 2:
            local.client = http.client.HTTPConnection(url, timeout=30)
            local.client.connect()
            local.client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        local.used = time.monotonic()
        return local.client

    def fly(day: np.ndarray) -> None:
        if not len(day):
            return
        asked = {"rows": [bodies[i] for i in day]}
        for i, answer in zip(day, ask(client(), "POST", BATCH, asked)["predictions"], strict=True):
            scores[i] = list(answer["probabilities"].values())

    def land(i: int) -> None:
        path = f"/predictions/{keys[i]}/outcome?time={times[i]}"
        ask(client(), "PUT", path, {"outcome": labels[i]})

    since = (later[TIME] - later[TIME].iloc[0].normalize()).dt.days.to_numpy()
    week = since // 7
    turns = []
    with ThreadPoolExecutor(CLIENTS) as pool, bar("April to December", len(later)) as advance:
        for w in range(week[-1] + 2):
            list(pool.map(land, np.flatnonzero(week == w - 2)))
            if w >= 2:
                settled(url)
                done = cycle.turn(settings, registry)
                at = later[TIME].to_numpy()[np.searchsorted(week, min(w, week[-1]))]
                turns.append({"at": at, **vars(done)})
                if "production" in done.promoted:
                    version(url, moved_to(vars(done)))
            list(pool.map(fly, (np.flatnonzero(since == day) for day in range(7 * w, 7 * w + 7))))
            advance(int((week == w).sum()))
    return scores, turns


def moved_to(turn: dict[str, Any]) -> str:
    """The version that a turn trained or went back to; empty if it was quiet."""
    return str(turn["version"] or turn["back"])


def settled(url: str) -> None:
    """Waits until the journal has written all that the server acknowledged."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        client = http.client.HTTPConnection(url, timeout=10)
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode()
        client.close()
        queue = [line for line in text.splitlines() if "journal_queue" in line and line[0] != "#"]
        if all(float(line.split()[-1]) == 0 for line in queue):
            return
        time.sleep(0.05)
    raise SystemExit("error: the journal did not settle; see var/serve.log")


@contextmanager
def bar(name: str, total: int) -> Iterator[Any]:
    """A progress display; nothing where nobody looks."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} flights"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, disable=bool(os.environ.get("CI"))) as progress:
        task = progress.add_task(name, total=total)
        yield lambda n: progress.advance(task, n)


def fitted(rows: pd.DataFrame, later: pd.DataFrame, settings: Any) -> np.ndarray:
    """Scores of `later` by a model of the newest rows, fitted as `make train` fits it."""
    both = fitting.Table.of(pd.concat([rows.iloc[-settings.train.window :], later]))
    first = len(both.labels) - len(later)
    return fitting.fit(both, 0, first, settings.train.seed).scores(both.matrix[first:])


def never(known: pd.DataFrame, later: pd.DataFrame, settings: Any) -> np.ndarray:
    """The first model, for ever."""
    return fitted(known, later, settings)


def monthly(year: pd.DataFrame, later: pd.DataFrame, settings: Any) -> np.ndarray:
    """A new model on the first of each month, from the flights whose outcome was known then."""
    parts = []
    for month, rows in later.groupby(later[TIME].dt.to_period("M")):
        told = month.start_time - pd.Timedelta(days=7)
        parts.append(fitted(year[year[TIME] < told], rows, settings))
    return np.concatenate(parts)


def show(
    later: pd.DataFrame, lines: dict[str, np.ndarray], turns: list[dict[str, Any]], first: str
) -> None:
    """Table, picture and page."""
    OUT.mkdir(parents=True, exist_ok=True)
    actual = codes(later[TARGET], [False, True])
    months = later[TIME].dt.strftime("%b").to_numpy()
    order = list(dict.fromkeys(months))
    table = pd.DataFrame(
        {
            name: [METRICS[MAIN](actual[months == m], scores[months == m]) for m in order]
            for name, scores in lines.items()
        },
        index=order,
    )
    table.loc["mean"] = table.mean()
    retrained = [t for t in turns if t["version"]]
    moved = [t for t in turns if moved_to(t)]
    promoted = [t for t in moved if "production" in t["promoted"]]
    passed, back = (sum(bool(t[how]) for t in promoted) for how in ("version", "back"))
    counts = (
        f"ciclo trained {len(retrained)} times, {passed} versions passed the gates and {back} came "
        f"back, the calendar trained {len(order)} times; {len(turns) - len(moved)} of {len(turns)} "
        "weekly turns were quiet."
    )
    mean = table.loc["mean"]
    below = [m for m in order if table.loc[m, "ciclo"] < table.loc[m, "every month"]]
    verdict = (
        f"In the mean ciclo is {mean['ciclo'] - mean['never retrained']:+.3f} against never "
        f"retraining and {mean['ciclo'] - mean['every month']:+.3f} against the calendar; "
        f"the calendar was better in {', '.join(below) or 'no month'}."
    )
    picture(table, promoted)
    print(f"\n{MAIN} of the flights of each month\n\n{table.round(3).to_string()}\n")
    for t in moved:
        went = "production" if "production" in t["promoted"] else "refused by the gates"
        print(f"{t['at']:.10}  {t['reason']}: version {moved_to(t)}, {went}")
    print(f"\n{counts}\n{verdict}")
    page(table, counts, verdict, moved)
    record = {"table": table.to_dict(), "turns": turns, "first": first}
    (OUT / "demo.json").write_text(json.dumps(record, indent=2, default=str) + "\n")
    print(f"\npicture: {(OUT / 'demo.png').resolve()}\npage:    {(OUT / 'demo.html').resolve()}")


def picture(table: pd.DataFrame, promoted: list[dict[str, Any]]) -> None:
    import matplotlib.pyplot as plt

    rows, means = table.drop(index="mean"), table.loc["mean"].to_dict()
    figure, axes = plt.subplots(figsize=(9, 4.5))
    styles = {
        "never retrained": ("#999999", ":"),
        "every month": ("#4c78a8", "--"),
        "ciclo": ("#d1495b", "-"),
    }
    for name, (color, style) in styles.items():
        axes.plot(
            range(len(rows)),
            rows[name],
            color=color,
            linestyle=style,
            marker="o",
            linewidth=2,
            label=f"{name} ({means[name]:.3f})",
        )
    for t in promoted:
        at = pd.Timestamp(t["at"])
        axes.axvline(
            at.month - 4.5 + at.day / at.days_in_month, color="#d1495b", alpha=0.35, linewidth=1
        )
    axes.set_xticks(range(len(rows)), list(rows.index))
    axes.set(
        ylabel=f"{MAIN} of the month's flights", title="Flights of 2013: the model kept by ciclo"
    )
    axes.legend(
        title="mean", frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08)
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(OUT / "demo.png", dpi=120, bbox_inches="tight")
    plt.close(figure)


def page(table: pd.DataFrame, counts: str, verdict: str, moved: list[dict[str, Any]]) -> None:
    image = base64.b64encode((OUT / "demo.png").read_bytes()).decode()
    events = "".join(
        f"<li><b>{str(t['at'])[:10]}</b> {html.escape(t['reason'])}: version {moved_to(t)} to "
        f"{', '.join(t['promoted']) or 'no environment'}. {html.escape(t['refused'])}</li>"
        for t in moved
    )
    (OUT / "demo.html").write_text(f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>ciclo: the demo</title>
<style>{STYLE}</style>
<h1>One model through nine months of flights</h1>
<p>Trained on January to March of 2013, served over HTTP, with outcomes a week late. A vertical
line is a new version in production. {html.escape(counts)} {html.escape(verdict)}</p>
<img alt="{MAIN} a month of three lines" src="data:image/png;base64,{image}">
{table.round(3).to_html(border=0)}
<h2>What the cycle did</h2><ol>{events}</ol></html>
""")


if __name__ == "__main__":
    main()
