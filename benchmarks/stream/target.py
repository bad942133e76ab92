"""What is predicted of a stream."""

import pandas as pd

TARGET = "y"


def target(frame: pd.DataFrame) -> pd.Series:
    """Its label."""
    return frame["y"]
