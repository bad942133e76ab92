"""What is wrong with the order of the rows, which decides who judges a model."""

import pandas as pd

from ..project.features import TIME
from ..project.target import TARGET
from . import snapshots

FALSE_ALARMS = 0.01
"""How often, at most, rows in random order are called sorted."""
LEAST = 0.1
"""Smaller distances are not told, however sure they are: they do not spoil a hold-out."""
MOST = 10_000
"""Rows of a part that are compared."""
SHUFFLE = "frame.sample(frac=1, random_state=0)"


def warnings(early: pd.DataFrame, late: pd.DataFrame) -> list[str]:
    """What is wrong with rows and the rows that judge, a line each; both as in a snapshot."""
    found = [] if TIME else [sorted_by(early, late)]
    newer = int(snapshots.later(late, snapshots.until(early)).sum())
    if newer < len(late) / 2:
        found.append(
            f"of the {len(late):,} rows held out, {newer:,} are newer than all rows trained on, "
            "and the gates judge by such rows only: let split() in project/data.py hold out the "
            "newest" + ("" if TIME else f", and load() shuffle instead: {SHUFFLE}")
        )
    return [text for text in found if text]


def sorted_by(early: pd.DataFrame, late: pd.DataFrame) -> str:
    """Names the column in which the rows held out differ most from those trained on, if one does.

    Each column, the target too, is compared by the two-sample test of Kolmogorov and Smirnov (texts
    in alphabetical order, what is missing first), with Bonferroni's correction: rows in random
    order are called sorted once in a hundred times, at most. Of the source's rows only: those of
    the journal have an order of their own.
    """
    from scipy.stats import ks_2samp

    parts = [part[part[snapshots.ARRIVAL] < snapshots.ROWS_END] for part in (early, late)]
    sizes = [min(len(part), MOST) for part in parts]
    if not all(sizes):
        return ""
    both = pd.concat([part.sample(n, random_state=0) for part, n in zip(parts, sizes, strict=True)])
    names, worst, most = [*snapshots.FIELDS, TARGET], "", LEAST
    for name in names:
        column = both[name]
        numeric = pd.api.types.is_numeric_dtype(column)
        codes, _ = pd.factorize(column if numeric else column.astype(str), sort=True)
        test = ks_2samp(codes[: sizes[0]], codes[sizes[0] :], method="asymp")
        if test.pvalue < FALSE_ALARMS / len(names) and test.statistic >= most:
            worst, most = name, test.statistic
    if not worst:
        return ""
    return (
        f"the rows held out are not like those trained on: {worst} differs most, by {most:.2f} "
        "(Kolmogorov-Smirnov, 0 to 1); without TIME the order of the rows splits them, so if it "
        f"means nothing, shuffle in load() of project/data.py: {SHUFFLE}"
    )
