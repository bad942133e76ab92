"""Writes a bundle, and proves that what it serves is what was trained, off the beaten path too.

Held-out rows show what the model met. Probes show what it may meet: rows with a field missing, a
category that is new, a number far out. The exported model and scikit-learn must agree on all.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import bundle as bundles
from .. import contract, predictor
from ..bundle import Bundle, Manifest
from ..contract import Columns
from ..errors import UserError
from . import snapshots
from .probes import Probe, evenly, probes
from .rounding import collapsed

if TYPE_CHECKING:
    from .fitting import Fitted

EXAMPLES = 50
"""Held-out rows kept in the bundle, with the scores they must give."""
PROBES = 25
"""Probes kept beside them."""
SAMPLE = 10_000
"""Rows by which float32 is judged."""
ADVICE = {
    "missing": "impute first in project/model.py",
    "category": "encode it with OneHotEncoder(handle_unknown='ignore') in project/model.py",
    "number": "limit it in derive() of project/features.py, or choose another estimator",
    "time": "limit it in derive() of project/features.py, or choose another estimator",
    "": "choose another estimator in project/model.py",
}


def export(
    fitted: "Fitted",
    early: pd.DataFrame,
    late: pd.DataFrame,
    manifest: Manifest,
    reference: dict[str, Any],
    path: Path,
    tolerance: float = bundles.TOLERANCE,
) -> Bundle:
    """Writes the bundle to the folder `path` and returns it as read back.

    `early` are the rows trained on; the exported model is compared with the fitted one on `late`
    and on probes made of both. `reference` comes from drift.reference. `manifest.parity` becomes
    the largest difference. Raises UserError when the model cannot be exported, or when they differ
    by more than `tolerance`.
    """
    path.mkdir(parents=True, exist_ok=True)
    manifest.dtype = predictor.DTYPE
    if manifest.dtype == "float32":
        _refuse_rounding(fitted, early)
    predictor.export(
        fitted.model, len(fitted.numbers), len(fitted.categories), path / predictor.FILE
    )
    draft = Bundle(path, manifest, predictor.load(path / predictor.FILE))
    probed = probes(early, late)
    manifest.parity = _compare(fitted, draft, late, probed, tolerance)
    return bundles.write(path, manifest, _examples(draft, late, probed), reference)


def scores(fitted: "Fitted", columns: Columns) -> np.ndarray:
    """What the fitted model itself says: probabilities (n, k) or values (n,), of raw columns."""
    derived = contract.derive(columns)
    matrix = contract.stack(
        *contract.matrices(derived, fitted.numbers, fitted.categories, predictor.DTYPE)
    )
    return fitted.predict(matrix).astype(np.float64)


def _compare(
    fitted: "Fitted", draft: Bundle, late: pd.DataFrame, probed: list[Probe], tolerance: float
) -> float:
    """The largest difference on held-out rows, some of them one by one, and probes."""
    raw = contract.from_frame(late)
    rows = [probe.row for probe in probed]
    columns = raw
    if rows:
        columns = {k: np.concatenate([raw[k], v]) for k, v in contract.columns(rows).items()}
    shape = () if fitted.classes is None else (len(fitted.classes),)
    with np.errstate(all="ignore"):  # far out, derive() and models overflow
        own = bundles.scores_or_nan(lambda c: scores(fitted, c), columns, shape)
        given = draft.scores_or_nan(columns)
        alone = evenly(len(late), EXAMPLES)
        single = np.concatenate(
            [draft.scores_or_nan({k: v[[i]] for k, v in raw.items()}) for i in alone]
        )
    classifies = fitted.classes is not None
    worst = bundles.differences(own, given, classifies)
    singly = bundles.differences(own[alone], single, classifies)
    worst[alone] = np.maximum(worst[alone], singly)
    largest = float(worst.max(initial=0.0))
    if largest > tolerance:
        raise UserError(_difference(late, worst, tolerance, probed, given))
    return largest


def _difference(
    late: pd.DataFrame,
    worst: np.ndarray,
    tolerance: float,
    probed: list[Probe],
    given: np.ndarray,
) -> str:
    """Where both differ most, and what to do, in a line."""
    n, off = len(late), worst > tolerance
    if off[:n].any():  # the probes are made of such rows
        at, where, kind = int(worst[:n].argmax()), "on held-out rows", ""
        for name in snapshots.FIELDS:
            gone = late[name].isna().to_numpy()
            if gone[off[:n]].all() and not gone.all():
                where, kind = f"where {name} is missing", "missing"
                break
    else:  # one change says more than several
        found = (n + np.flatnonzero(off[n:])).tolist()
        at = max(found, key=lambda i: (bool(probed[i - n].field), worst[i]))
        where, kind = f"where {probed[at - n].what}", probed[at - n].kind
    if np.isfinite(worst[at]):
        what = f"the exported model and scikit-learn differ by {worst[at]:.2g} {where}"
    elif np.isnan(given[at]).any():
        what = f"scikit-learn predicts and the exported model does not, {where}"
    else:
        what = f"the exported model predicts and scikit-learn does not, {where}"
    return f"{what}; {ADVICE[kind]}{predictor.ELSE}"


def _examples(draft: Bundle, late: pd.DataFrame, probed: list[Probe]) -> list[dict[str, Any]]:
    """Held-out rows, then probes, with what the exported model says: its own environment's word."""
    (rows,) = snapshots.rows(late.iloc[evenly(len(late), EXAMPLES)], "the snapshot")
    kinds = list({(probe.field, probe.kind): probe for probe in probed}.values())
    with np.errstate(all="ignore"):
        if kinds:
            given = draft.scores_or_nan(contract.columns([p.row for p in kinds]))
            kinds = [p for p, s in zip(kinds, given, strict=True) if np.isfinite(s).all()]
        kinds = [kinds[i] for i in evenly(len(kinds), PROBES)]
        expected = draft.scores(contract.columns([*rows, *(p.row for p in kinds)])).tolist()
    found: list[dict[str, Any]] = [{"features": contract.sent(row)} for row in rows]
    found += [{"features": contract.sent(p.row), "probe": p.what} for p in kinds]
    return [example | {"expected": e} for example, e in zip(found, expected, strict=True)]


def _refuse_rounding(fitted: "Fitted", early: pd.DataFrame) -> None:
    """Raises UserError naming the columns that float32 spoils, unless the model sees no more.

    (scikit-learn's own trees round to float32.)
    """
    sample = contract.from_frame(early.iloc[evenly(len(early), SAMPLE)])
    derived = contract.derive(sample)
    exact, categories = contract.matrices(derived, fitted.numbers, fitted.categories, np.float64)
    rounded = exact.astype(np.float32)
    spoilt = collapsed(exact, rounded)
    if not spoilt:
        return
    fine, coarse = (fitted.predict(contract.stack(m, categories)) for m in (exact, rounded))
    if not np.array_equal(fine, coarse, equal_nan=True):
        names = " and ".join(fitted.numbers[i] for i in spoilt)
        raise UserError(
            f"{names}: float32, in which ONNX models compute, loses too much of values such as "
            f"{np.nanmax(np.abs(exact[:, spoilt[-1]])):.15g}; subtract an origin, or take "
            f"differences, in derive() of project/features.py, which is float64{predictor.ELSE}"
        )
