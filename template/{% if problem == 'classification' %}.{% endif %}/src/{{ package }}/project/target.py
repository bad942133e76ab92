"""What is predicted."""

import pandas as pd

TARGET = "late"


def target(frame: pd.DataFrame) -> pd.Series:
    """The label of each row: whether the flight arrived 15 minutes late or more."""
    return frame["arrival_delay"] >= 15
