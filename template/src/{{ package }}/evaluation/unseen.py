"""What a version said of rows that it had not seen: the only rows that can judge it.

Rows that came after it was trained are scored by the version itself. The rows that judged its
procedure, which it was fitted on in the end, were scored by models that had not seen them; the
bundle keeps those scores, by a hash of each row.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ..bundle import Bundle
from ..contract import KINDS, from_frame
from ..project.features import TIME
from ..project.target import TARGET
from ..training import snapshots

JUDGED = "judged.npz"
"""In a bundle: `rows`, the hashes (n,) of the rows that judged, and `scores`, (n, k) or (n,)."""
TRAINED = "trained.npy"
"""In a bundle: the hashes (n,) of the rows trained on, sorted. Only without TIME: where there is
one, it says what came later whatever the order."""


def row_hashes(frame: pd.DataFrame) -> np.ndarray:
    """A hash of each row's features and target, uint64 (n,), whatever its place in the table.

    Equal values have equal hashes whether a source gives them as integers, floats or objects.
    """
    plain = {name: _plain(frame[name], kind) for name, kind in KINDS.items()}
    numbers = pd.to_numeric(frame[TARGET], errors="coerce")
    kind = "number" if numbers.notna().all() else "category"
    plain[f"target {TARGET}"] = _plain(frame[TARGET], kind)
    return pd.util.hash_pandas_object(pd.DataFrame(plain), index=False).to_numpy()


def _plain(column: pd.Series, kind: str) -> pd.Series:
    if kind == "number":
        return pd.to_numeric(column, errors="coerce").astype("float64")
    if kind == "time":
        return pd.to_datetime(column).astype("datetime64[us]")
    return column.astype(object).where(column.notna(), "").map(str).astype(object)


def write(folder: Path, judged: pd.DataFrame, scores: np.ndarray, trained: pd.DataFrame) -> None:
    """Leaves in a bundle's folder, made if need be, what `scores` and `newer` read."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / JUDGED, rows=row_hashes(judged), scores=scores)
    if not TIME:
        np.save(folder / TRAINED, np.sort(row_hashes(trained)))


def newer(frame: pd.DataFrame, bundle: Bundle) -> np.ndarray:
    """Which rows of a snapshot came after a version was trained, and were not trained on, (n,).

    Of three equal rows, one of which was trained on, two are newer. A bundle that does not keep its
    rows is judged by the order alone.
    """
    later = snapshots.later(frame, bundle.manifest.trained_until)
    path = bundle.path / TRAINED
    if TIME or not path.exists():
        return later
    own = pd.Series(row_hashes(frame))
    trained = own.map(pd.Series(np.load(path)).value_counts()).fillna(0)
    return later & (own.groupby(own).cumcount() >= trained).to_numpy()


def scores(bundle: Bundle, frame: pd.DataFrame) -> np.ndarray:
    """The version's scores of a snapshot's rows, (n, k) or (n,); NaN for rows that it has seen, and
    for those that it has no answer for.

    Raises BundleError where the bundle needs a column that derive() no longer gives.
    """
    classes = bundle.manifest.classes
    found = np.full((len(frame),) if classes is None else (len(frame), len(classes)), np.nan)
    path = bundle.path / JUDGED
    if path.exists():
        with np.load(path) as kept:
            given = pd.DataFrame({"row": kept["rows"], "at": np.arange(len(kept["rows"]))})
            own = pd.DataFrame({"row": row_hashes(frame)})
            for table in (given, own):  # equal rows: the first is the first, the second the second
                table["which"] = table.groupby("row").cumcount()
            at = own.merge(given, on=["row", "which"], how="left")["at"].to_numpy()
            known = ~np.isnan(at)
            found[known] = kept["scores"][at[known].astype(int)]
    later = newer(frame, bundle)
    if later.any():
        found[later] = bundle.scores_or_nan(from_frame(frame[later]))
    return found
