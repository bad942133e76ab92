"""What a version said of rows that it had not seen: the only rows that can judge it.

Those that came after it was trained are scored by the version itself. The rows that judged its
procedure, which it was fitted on in the end, were scored by models that had not seen them; the
bundle keeps those scores, by a hash of each row.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from . import data
from .bundle import Bundle
from .contract import Columns
from .project.target import TARGET

FILE = "judged.npz"


def hashes(frame: pd.DataFrame) -> np.ndarray:
    """A number (n,) uint64 for each row of a snapshot: its features and its label."""
    return pd.util.hash_pandas_object(frame[[*data.FIELDS, TARGET]], index=False).to_numpy()


def write(folder: Path, frame: pd.DataFrame, scores: np.ndarray) -> None:
    """Keeps in a bundle's folder how its procedure scored rows that it had not seen."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / FILE, rows=hashes(frame), scores=scores)


def scores(bundle: Bundle, frame: pd.DataFrame, columns: Columns) -> np.ndarray:
    """The version's scores of a snapshot's rows, (n, k) or (n,); NaN for rows that it has seen.

    `columns` are the raw columns of `frame`. Raises BundleError where the bundle needs a column
    that derive() no longer gives.
    """
    width = () if bundle.manifest.classes is None else (len(bundle.manifest.classes),)
    found = np.full((len(frame), *width), np.nan)
    file = bundle.path / FILE
    if bundle.manifest.judged and file.exists():
        with np.load(file) as kept:
            known, given = kept["rows"], kept["scores"]
        order = np.argsort(known, kind="stable")
        own = hashes(frame)
        at = np.searchsorted(known, own, sorter=order)
        at = order[np.minimum(at, len(order) - 1)]
        same = known[at] == own
        found[same] = given[at[same]]
    later = data.later(frame, bundle.manifest.trained_until)
    if later.any():
        found[later] = bundle.scores({name: column[later] for name, column in columns.items()})
    return found
