"""What is predicted."""

import pandas as pd

TARGET = "arrival_delay"


def target(frame: pd.DataFrame) -> pd.Series:
    """The value of each row: minutes late at arrival; negative is early."""
    return frame["arrival_delay"]
