"""The contract of a stream; cycle.py writes the field x0 as often as there are columns."""

from datetime import datetime

import numpy as np
from pydantic import BaseModel

KEY: str | None = None
TIME: str | None = "at"


class Features(BaseModel):
    """A row of a stream."""

    at: datetime
    x0: float


def derive(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All but the time."""
    return {name: column for name, column in columns.items() if name != "at"}
