"""The contract: what a row holds, and what the model sees of it.

Training validates every row with `Features`, and the API takes it as the body of a request.
A field that may be missing is `| None`. Ranges are left to the drift monitor; write
`Field(ge=0)` where a value out of range must be refused.
"""

from datetime import datetime

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

KEY: str | None = "flight_id"
"""The column that names a row, so that a late label finds its prediction; None if there is none."""

TIME: str | None = "scheduled_departure"
"""The column that says when; None if there is none (then the order of arrival counts)."""


class Features(BaseModel):
    """One flight as it is known before departure."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    scheduled_departure: datetime = Field(examples=["2013-01-01T06:00:00"])
    carrier: str = Field(examples=["EV"], description="IATA code of the airline")
    origin: str = Field(examples=["LGA"])
    destination: str = Field(examples=["IAD"])
    distance: float = Field(examples=[229], description="miles")
    plane_year: float | None = Field(None, examples=[1998], description="year built")
    seats: float | None = Field(None, examples=[55])
    temperature: float | None = Field(None, examples=[39.9], description="degrees Fahrenheit")
    humidity: float | None = Field(None, examples=[54.8], description="percent")
    wind_speed: float | None = Field(None, examples=[16.1], description="mph")
    precipitation: float | None = Field(None, examples=[0.0], description="inches")
    pressure: float | None = Field(None, examples=[1011.7], description="millibars")
    visibility: float | None = Field(None, examples=[10.0], description="miles")


def derive(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model sees: the raw columns in, the model's columns out, all of one length.

    Numbers are float64 with NaN where missing, categories are strings with "" where missing,
    and times are datetime64. Training, batch scoring and the API all compute features here.
    """
    columns = dict(columns)
    departure = columns.pop("scheduled_departure")
    day = departure.astype("datetime64[D]")
    columns["hour"] = (departure - day) / np.timedelta64(1, "h")
    columns["weekday"] = (day.astype(np.int64) + 3) % 7.0  # 1970-01-01 was a Thursday
    return columns
