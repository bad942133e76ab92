"""What is predicted."""

import pandas as pd

TARGET = "late"


def target(frame: pd.DataFrame) -> pd.Series:
    """The label of each row: whether the flight arrived 15 minutes late or more.

    A flight that has not arrived has no label, and is not trained on.
    """
    delay = frame["arrival_delay"]
    return (delay >= 15).where(delay.notna())
