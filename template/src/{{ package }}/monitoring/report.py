"""The last monitoring as one HTML page that needs nothing else: pictures inside, no scripts."""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from .. import files
from ..errors import UserError
from .figures import columns, heat, image, metric, minute, ranked
from .verdict import REPORTS

WORDS = {
    "ok": "The model is as good as at training.",
    "warn": "The inputs have drifted. The metric has not fallen significantly.",
    "retrain": "The metric has fallen significantly. Retrain.",
    "new": "What is served is new: too few labelled rows to judge it by yet.",
    "unknown": "The monitor could not check the model.",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a202c; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.verdict { border-left: .5rem solid #718096; background: #f7fafc; padding: .8rem 1.2rem }
.verdict strong { font-size: 1.3rem } .verdict p { margin: .3rem 0 0 }
.ok { border-color: #2f855a } .warn { border-color: #d69e2e } .retrain { border-color: #c53030 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #e2e8f0 }
td.n, th.n { text-align: right; padding-right: 1.6rem } tr.bad { font-weight: 600; color: #9c4221 }
img { width: 100% } .small { color: #4a5568; font-size: .9rem }
"""


def write(source: Path = REPORTS / "monitor.json", to: Path = REPORTS / "monitor.html") -> Path:
    """Makes the page of a stored verdict and returns its path; UserError if there is none."""
    try:
        seen = json.loads(source.read_text())
    except FileNotFoundError:
        raise UserError(f"{source}: there is none yet; run `make monitor` first") from None
    except ValueError:
        raise UserError(f"{source}: is no JSON; run `make monitor` again") from None
    files.write(to, page(seen))
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
    newest = f"; newest row {minute(seen['until'])}" if seen["until"] else ""
    strange = f"; {seen['strange']:,} left out, no class of the model" if seen["strange"] else ""
    return f"Looked at {seen['at']}; {seen['labelled']:,} labelled rows{strange}{newest}."


def _sections(seen: dict[str, Any]) -> Iterator[str]:
    name = seen["metric"].get("name", "metric")
    if seen["windows"]:
        yield f"<h2>{escape(name)}, window by window</h2>" + image(metric, seen)
        yield _table(
            ["from", "until", "rows#", f"{name}#", "95 % interval#", "significantly worse"],
            [(w["violated"], _window(w)) for w in seen["windows"]],
        )
    if seen["adwin"]:
        last = seen["adwin"][-1]
        yield (
            "<p class='small'>ADWIN, a second signal that does not decide, heard the error rise "
            f"{len(seen['adwin'])} times, last at {minute(last['at'])} "
            f"({last['before']:.3f} to {last['after']:.3f}).</p>"
        )
    if seen["columns"]:
        yield "<h2>Columns, against those the model was trained on</h2>" + image(columns, seen)
        if len(seen["drift"]) > 1:
            yield image(heat, seen)
        yield _table(
            ["column", "distance#", "threshold#", "drifted", "confirmed"],
            [(c["confirmed"], [name, *_column(c)]) for name, c in ranked(seen)],
        )
    if seen.get("texts"):
        yield (
            f"<p class='small'>Of {escape(', '.join(seen['texts']))} only the length is watched: "
            "whether what such texts say has moved is not seen.</p>"
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
    if seen.get("shadow"):
        yield f"<h2>Shadow</h2><p>Beside what was answered {escape(seen['shadow']['said'])}.</p>"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _window(window: dict[str, Any]) -> list[str]:
    interval = " to ".join(_number(v) for v in window["interval"] or ())
    said = "yes" if window["violated"] else ""
    span = [minute(window["from"]), minute(window["until"]), f"{window['rows']:,}"]
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
