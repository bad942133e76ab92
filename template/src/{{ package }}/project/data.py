"""Where the rows come from, and which of them are held out."""

import pandas as pd

from ..sources import read
from .features import TIME

SOURCE = "data/flights.parquet"
"""A CSV or Parquet file or address, or a SQL URL with `#table`; DATA_URI overrides it."""


def load(uri: str) -> pd.DataFrame:
    """All labelled rows, with the columns of the contract and what the target is made from."""
    return read(uri)


def split(frame: pd.DataFrame, holdout: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Earlier rows to train on, and the newest share `holdout` to judge by.

    A random split would let the model see the future.
    """
    if TIME:
        frame = frame.sort_values(TIME, kind="stable")
    cut = round(len(frame) * (1 - holdout))
    return frame.iloc[:cut], frame.iloc[cut:]
