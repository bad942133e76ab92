"""Draws what run.py measured of the server: python serving_picture.py bench.json serving.png."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = "#cbd5e0", "#90a4c0", "#5b7aa6", "#2c4f7c"
"""By the number of connections, the fewest first."""


def main() -> None:
    found = json.loads(Path(sys.argv[1]).read_text())
    others = {name: seen for name, seen in found["serving"].items() if name != "workers"}
    figure, axes = plt.subplots(figsize=(9, 1 + 0.75 * len(others)), layout="constrained")
    for i, seen in enumerate([*others.values()][::-1]):
        for j, (connections, ratios) in enumerate(seen["connections"].items()):
            at, rate = i + 0.3 - 0.2 * j, ratios["rate"]
            name = f"{connections} at once" if i == 0 else None
            axes.barh(at, rate - 1, 0.18, left=1, color=COLOURS[j], label=name)
            side = ("left", 3) if rate > 1 else ("right", -3)
            axes.annotate(
                f"{rate:.2g}", (rate, at), (side[1], 0), textcoords="offset points",
                ha=side[0], va="center", fontsize=7, color="#4a5568",
            )  # fmt: skip
    axes.axvline(1, color="#4a5568", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(others)), [*others][::-1])
    axes.set_xlabel("one-row predictions a second of ciclo, as a multiple of the other's")
    axes.set_title(f"{found['when']}, {found['machine']}", fontsize=8, loc="right")
    axes.legend(frameon=False, loc="upper right", title="requests")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.savefig(sys.argv[2], dpi=120)


if __name__ == "__main__":
    main()
