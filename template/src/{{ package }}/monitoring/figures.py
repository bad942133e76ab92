"""The pictures of the monitoring report, as SVG inside the page."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GOOD, BAD, GREY = "#2b6cb0", "#c05621", "#718096"


def ranked(seen: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The columns of a verdict, those farthest over their thresholds first."""
    columns = seen["columns"].items()
    return sorted(columns, key=lambda c: -c[1]["distance"] / c[1]["threshold"])


def minute(text: str) -> str:
    """A time as a person reads it, from ISO."""
    return text[:16].replace("T", " ")


def image(draw: Callable[[dict[str, Any]], Any], seen: dict[str, Any]) -> str:
    """What one of the functions below draws of a verdict, as an <img>."""
    with matplotlib.rc_context({"svg.hashsalt": "", "font.size": 9}):  # the same file each time
        figure = draw(seen)
        stream = BytesIO()
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="" src="data:image/svg+xml;base64,{data}">'


def metric(seen: dict[str, Any]) -> Any:
    """The metric of each window with its interval, and the one at training."""
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    base = seen["metric"]
    if base["baseline"] is not None:
        axes.axhspan(*base["interval"], color=GREY, alpha=0.2, linewidth=0)
        axes.axhline(base["baseline"], color=GREY, label="at training, and its 95 % interval")
    for i, window in enumerate(seen["windows"]):
        if window["value"] is not None:
            colour = BAD if window["violated"] else GOOD
            axes.vlines(i, *window["interval"], color=colour)
            axes.plot(i, window["value"], "o", color=colour)
    names = [minute(w["until"])[:10] for w in seen["windows"]]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    better = "higher is better" if base["greater_is_better"] else "lower is better"
    axes.set(ylabel=f"{base['name']} ({better})", xlabel="end of the window")
    return _tidy(figure, axes)


def columns(seen: dict[str, Any]) -> Any:
    """How far each column is from the training, the 30 worst."""
    worst = ranked(seen)[:30][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.22 * len(worst)), layout="constrained")
    colours = [BAD if c["drifted"] else GOOD for _, c in worst]
    axes.barh([name for name, _ in worst], [c["distance"] for _, c in worst], color=colours)
    limits = [c["threshold"] for _, c in worst]
    axes.scatter(limits, range(len(worst)), marker="|", s=120, color="black", label="threshold")
    axes.set_xlabel("distance in the newest window")
    return _tidy(figure, axes)


def heat(seen: dict[str, Any]) -> Any:
    """The same for the last windows: above 1 is drift."""
    names = [name for name, _ in ranked(seen)[:30]]
    limits = [seen["columns"][name]["threshold"] for name in names]
    share = np.array([[w["distances"][n] for w in seen["drift"]] for n in names]) / np.c_[limits]
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.22 * len(names)), layout="constrained")
    image = axes.imshow(share, aspect="auto", cmap="RdBu_r", vmin=0, vmax=2)
    axes.set_yticks(range(len(names)), names)
    ends = [minute(w["until"])[:10] for w in seen["drift"]]
    axes.set_xticks(range(len(ends)), ends)
    axes.set_xlabel("end of the window")
    figure.colorbar(image, label="distance / threshold", extend="max")
    return figure


def _tidy(figure: Any, axes: Any) -> Any:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
