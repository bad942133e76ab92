"""Judges a model on held-out rows: metrics, pictures and the model card."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..bundle import Manifest
from ..project.features import TIME
from ..project.metrics import METRICS
from ..project.target import TARGET
from .metric import MAIN
from .pictures import panels

SPANS = {"M": "month", "W-SUN": "week", "D": "day"}


def evaluate(actual: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Each metric of project/metrics.py that is defined on these rows."""
    values = {name: float(metric(actual, predicted)) for name, metric in METRICS.items()}
    return {name: value for name, value in values.items() if np.isfinite(value)}


def figures(
    frame: pd.DataFrame,
    actual: np.ndarray,
    predicted: np.ndarray,
    classes: list[Any] | None,
    to: Path,
) -> None:
    """Draws the pictures of the hold-out into the folder `to`, as PNG files."""
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import RocCurveDisplay

    if classes is None:
        error = np.abs(actual - predicted)
        with panels(to / "residuals.png", (6, 4)) as (axes,):
            axes.set_title("Residuals")
            axes.scatter(predicted, actual - predicted, s=4, alpha=0.3)
            axes.axhline(0, color="grey", linestyle=":")
            axes.set(xlabel=f"predicted {TARGET}", ylabel="actual - predicted")
    else:
        error = (predicted.argmax(axis=1) != actual).astype(float)
        drawn = list(enumerate(classes))[-1 if len(classes) == 2 else 0 :]
        with panels(to / "roc.png", (5, 5)) as (axes,):
            axes.set_title(f"ROC of {TARGET}")
            for i, c in drawn:
                own = actual == i
                if 0 < own.sum() < len(actual):
                    RocCurveDisplay.from_predictions(own, predicted[:, i], name=str(c), ax=axes)
            axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
        with panels(to / "calibration.png", (5, 5)) as (axes,):
            axes.set_title("Calibration")
            for i, c in drawn:
                seen, said = calibration_curve(
                    actual == i, predicted[:, i], n_bins=10, strategy="quantile"
                )
                axes.plot(said, seen, marker="o", label=str(c))
            axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
            axes.set(xlabel="predicted probability", ylabel="share observed")
            axes.legend()
    label, groups = _spans(frame)
    mean = pd.Series(error).groupby(groups).agg(["mean", "sem"])
    with panels(to / "error_over_time.png", (6, 4)) as (axes,):
        axes.set_title("Error over time")
        x = [str(group) for group in mean.index]
        axes.bar(x, mean["mean"], yerr=1.96 * mean["sem"].fillna(0), capsize=4)
        axes.set(xlabel=label, ylabel="mean error on the hold-out")
        axes.tick_params(axis="x", rotation=45 if len(x) > 4 else 0)


def _spans(frame: pd.DataFrame) -> tuple[str, np.ndarray]:
    """What the rows are grouped by: the longest span that still shows a change over time."""
    if not TIME:
        return "tenth of the rows, in order of arrival", np.arange(len(frame)) * 10 // len(frame)
    for span in SPANS:
        starts = frame[TIME].dt.to_period(span).dt.start_time.dt.strftime("%Y-%m-%d").to_numpy()
        if len(set(starts)) >= 4:
            break
    return f"first day of the {SPANS[span]}", starts


PROCEDURE = """\
What was judged is a procedure: {:,} models, each fitted on the rows before those that it scored.
What is served was made by the same procedure, with the rows that judged it."""
IMPORTED = """\
It was read from a file of the SHA-256 {}.
Whether it was fitted on these rows is not known; if so, it is better on them than on others."""


def card(manifest: Manifest, parameters: dict[str, Any]) -> str:
    """The model card, Markdown (after Mitchell et al., Model Cards for Model Reporting, 2019)."""
    kind = "classifies" if manifest.classes else "estimates"
    among = f" among {', '.join(map(str, manifest.classes))}" if manifest.classes else ""
    metrics = "\n".join(f"| {name} | {value:.4g} |" for name, value in manifest.metrics.items())
    judged = manifest.judged
    assert judged
    tried = "\n".join(f"| the newest {int(w):,} | {v:.4g} |" for w, v in judged.tried.items())
    settings = "\n".join(f"| {name} | {value} |" for name, value in sorted(parameters.items()))
    made, how = "trained", PROCEDURE.format(judged.models)
    if manifest.imported:
        made, how = "imported", IMPORTED.format(manifest.imported)
    return f"""# {manifest.name}

It {kind} `{TARGET}`{among} from {", ".join([*manifest.numbers, *manifest.categories])}.

| | |
| --- | --- |
| {made} | {manifest.created}, on the {manifest.rows:,} newest rows |
| newest row trained on | {manifest.trained_until} |
| data | snapshot `{manifest.data}` |
| code | commit `{manifest.commit}`{" with changes" if manifest.dirty else ""} |
| contract | `{manifest.contract}` |

## On the {judged.rows:,} newest rows

| metric | value |
| --- | --- |
{metrics}

{how}

| rows fitted on | {MAIN} |
| --- | --- |
{tried}

{MAIN} decides at the gates. The exported model differs from the trained one by
{manifest.parity:.1g} at most. The pictures beside this card show where it errs.

## Parameters

| parameter | value |
| --- | --- |
{settings}

## Limits

It knows what these rows know: read the error over time before you trust it on another season,
region or population. Inputs far from the training data are served and counted as drift.
"""
