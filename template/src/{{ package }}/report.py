"""The last monitoring as one HTML page that needs nothing else: pictures inside, no scripts."""

import base64
import json
from collections.abc import Callable, Iterator
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from .errors import UserError
from .verdict import REPORTS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WORDS = {
    "ok": "The model does what it did when it was promoted.",
    "warn": "The data moved. The metric has not fallen for sure.",
    "retrain": "The metric has fallen for sure. Retrain.",
    "unknown": "It is not known how the model does.",
}
GOOD, BAD, GREY = "#2b6cb0", "#c05621", "#718096"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a202c; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.verdict { border-left: .5rem solid #718096; background: #f7fafc; padding: .8rem 1.2rem }
.verdict strong { font-size: 1.3rem } .verdict p { margin: .3rem 0 0 }
.ok { border-color: #2f855a } .warn { border-color: #d69e2e } .retrain { border-color: #c53030 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #e2e8f0 }
td.n, th.n { text-align: right } tr.bad { font-weight: 600; color: #9c4221 }
img { max-width: 100% } .small { color: #4a5568; font-size: .9rem }
"""


def write(source: Path = REPORTS / "monitor.json", to: Path = REPORTS / "monitor.html") -> Path:
    """Makes the page of a stored verdict and returns its path; UserError if there is none."""
    try:
        seen = json.loads(source.read_text())
    except FileNotFoundError:
        raise UserError(f"{source}: there is none yet; run `make monitor` first") from None
    draft = to.with_suffix(".tmp")
    draft.write_text(page(seen), encoding="utf-8")
    draft.replace(to)
    return to


def page(seen: dict[str, Any]) -> str:
    """The HTML of a verdict as verdict.py stores it."""
    version = f", version {seen['version']}" if seen["version"] else ""
    title = f"Monitoring of {seen['environment']}{version}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<div class="verdict {escape(seen["verdict"])}"><strong>{WORDS[seen["verdict"]]}</strong>
<p>{escape(seen["reason"])}.</p></div>
<p class="small">{escape(_facts(seen))}</p>
{"".join(_sections(seen))}
</body></html>
"""


def _facts(seen: dict[str, Any]) -> str:
    facts = [f"Looked at {seen['at']}", f"{seen['labelled']:,} labelled rows"]
    if seen["until"]:
        facts.append(f"newest row {_time(seen['until'])}")
    if seen["strange"]:
        facts.append(f"{seen['strange']:,} labels are no class of the model and were left out")
    return "; ".join(facts) + "."


def _sections(seen: dict[str, Any]) -> Iterator[str]:
    name = seen["metric"].get("name", "metric")
    if seen["windows"]:
        yield f"<h2>{escape(name)}, window by window</h2>" + _image(_metric, seen)
        yield _table(
            ["from", "until", "rows#", f"{name}#", "95 % interval#", "worse for sure"],
            [(w["violated"], _window(w)) for w in seen["windows"]],
        )
    if seen["adwin"]:
        last = seen["adwin"][-1]
        yield (
            f"<p class='small'>ADWIN, a second signal that does not decide, heard the error rise "
            f"{len(seen['adwin'])} times, the last time at {_time(last['at'])} "
            f"({last['before']:.3f} to {last['after']:.3f}).</p>"
        )
    if seen["columns"]:
        yield "<h2>Columns, against those the model was trained on</h2>" + _image(_columns, seen)
        if len(seen["drift"]) > 1:
            yield _image(_heat, seen)
        yield _table(
            ["column", "distance#", "threshold#", "drifted", "confirmed"],
            [(c["confirmed"], [name, *_column(c)]) for name, c in _ranked(seen)],
        )
    if seen["score"]:
        moved = (
            "moved" if seen["score"]["distance"] > seen["score"]["threshold"] else "did not move"
        )
        yield (
            f"<p>The predictions {moved}: distance {seen['score']['distance']:.3f}, threshold "
            f"{seen['score']['threshold']:.3f}. This is a proxy: it needs no label, and it cannot "
            "say whether they are right.</p>"
        )


def _ranked(seen: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    columns = seen["columns"].items()
    return sorted(columns, key=lambda c: -c[1]["distance"] / c[1]["threshold"])


def _time(text: str) -> str:
    return text[:16].replace("T", " ")


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _window(window: dict[str, Any]) -> list[str]:
    interval = " to ".join(_number(v) for v in window["interval"] or ())
    said = "yes" if window["violated"] else ""
    span = [_time(window["from"]), _time(window["until"]), f"{window['rows']:,}"]
    return [*span, _number(window["value"]), interval, said]


def _column(column: dict[str, Any]) -> list[str]:
    said = ["yes" if column[name] else "" for name in ("drifted", "confirmed")]
    return [_number(column["distance"]), _number(column["threshold"]), *said]


def _table(names: list[str], rows: list[tuple[bool, list[str]]]) -> str:
    """A table; names that end in # are of numbers, and rows that are bad stand out."""
    right = [' class="n"' if name.endswith("#") else "" for name in names]
    head = "".join(
        f"<th{r}>{escape(n.rstrip('#'))}</th>" for n, r in zip(names, right, strict=True)
    )
    body = "".join(
        f"<tr{' class=bad' if bad else ''}>"
        + "".join(f"<td{r}>{escape(cell)}</td>" for cell, r in zip(cells, right, strict=True))
        + "</tr>"
        for bad, cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _image(draw: Callable[[dict[str, Any]], Any], seen: dict[str, Any]) -> str:
    with matplotlib.rc_context({"svg.hashsalt": "", "font.size": 9}):  # the same file each time
        figure = draw(seen)
        stream = BytesIO()
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="" src="data:image/svg+xml;base64,{data}">'


def _metric(seen: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    base = seen["metric"]
    if base["baseline"] is not None:
        axes.axhspan(*base["interval"], color=GREY, alpha=0.2, linewidth=0)
        axes.axhline(base["baseline"], color=GREY, label="when promoted, and its 95 % interval")
    for i, window in enumerate(seen["windows"]):
        if window["value"] is not None:
            colour = BAD if window["violated"] else GOOD
            axes.vlines(i, *window["interval"], color=colour)
            axes.plot(i, window["value"], "o", color=colour)
    names = [_time(w["until"])[:10] for w in seen["windows"]]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    better = "higher is better" if base["greater_is_better"] else "lower is better"
    axes.set(ylabel=f"{base['name']} ({better})", xlabel="end of the window")
    axes.legend(frameon=False, loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _columns(seen: dict[str, Any]) -> Any:
    ranked = _ranked(seen)[:30][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.22 * len(ranked)), layout="constrained")
    colours = [BAD if c["drifted"] else GOOD for _, c in ranked]
    axes.barh([name for name, _ in ranked], [c["distance"] for _, c in ranked], color=colours)
    limits = [c["threshold"] for _, c in ranked]
    axes.scatter(limits, range(len(ranked)), marker="|", s=120, color="black", label="threshold")
    axes.set_xlabel("distance in the newest window")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _heat(seen: dict[str, Any]) -> Any:
    names = [name for name, _ in _ranked(seen)[:30]]
    limits = [seen["columns"][name]["threshold"] for name in names]
    share = np.array([[w["distances"][n] for w in seen["drift"]] for n in names]) / np.c_[limits]
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.22 * len(names)), layout="constrained")
    image = axes.imshow(share, aspect="auto", cmap="RdBu_r", vmin=0, vmax=2)
    axes.set_yticks(range(len(names)), names)
    ends = [_time(w["until"])[:10] for w in seen["drift"]]
    axes.set_xticks(range(len(ends)), ends)
    axes.set_xlabel("end of the window")
    figure.colorbar(image, label="distance / threshold", extend="max")
    return figure
