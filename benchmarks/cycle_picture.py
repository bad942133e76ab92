"""Draws what cycle.py measured: python cycle_picture.py cycle.json cycle.png."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    rows = json.loads(Path(sys.argv[1]).read_text())[::-1]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.34 * len(rows)), layout="constrained")
    for i, row in enumerate(rows):
        best, ciclo = (row[f"{way} metric"] - row["never metric"] for way in ("best", "ciclo"))
        names = ("best calendar, in hindsight", "ciclo") if i == 0 else (None, None)
        axes.plot([0, best], [i, i], color="#cbd5e0", zorder=1)
        axes.plot(best, i, "|", color="#4a5568", markersize=12, label=names[0])
        axes.plot(ciclo, i, "o", color="#d1495b", label=names[1])
        text = f"{row['ciclo promotions']:.0f} / {row['best promotions']:.0f}"
        axes.annotate(text, (1.01, i), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvline(0, color="#a0aec0", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["stream"] for row in rows])
    axes.set_xscale("symlog", linthresh=0.02)
    axes.set_xlabel("gain over a model that is never retrained")
    axes.set_title("at the right: new versions, ciclo / calendar", fontsize=9, loc="right")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(sys.argv[2], dpi=120)


if __name__ == "__main__":
    main()
