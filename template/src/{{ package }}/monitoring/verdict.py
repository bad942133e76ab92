"""What the monitor found, as it is stored."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..files import write

REPORTS = Path("reports")
FRESH = timedelta(days=2)
"""How long a verdict counts where there is no journal to look at."""

NOTED = ("verdict", "reason", "environment", "at", "until", "window")


@dataclass
class Verdict:
    """What was seen. `reports/monitor.json` holds it as it stands."""

    verdict: str
    """ok, warn, retrain, new or unknown"""
    reason: str
    environment: str
    version: str | None = None
    at: str = ""
    rows: int = 0
    """Rows looked at for drift of the data, the newest ones."""
    labelled: int = 0
    strange: int = 0
    """Labels that are no class of the model; they are left out."""
    until: str | None = None
    """Event time of the newest row."""
    metric: dict[str, Any] = field(default_factory=dict)
    """Its name, and what it was at training: value, interval and rows."""
    window: str = ""
    """Event time at the end of the newest whole window of labelled rows; empty if there is none."""
    windows: list[dict[str, Any]] = field(default_factory=list)
    """Labelled rows by event time, counted from the version's first."""
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each column in the newest window of rows."""
    drift: list[dict[str, Any]] = field(default_factory=list)
    """The columns' distances in each window of rows, counted back from the newest."""
    unseen: str = ""
    """Why drift of the data could not be looked at; empty if it could."""
    texts: list[str] = field(default_factory=list)
    """Columns of texts: whether what they say has moved is not seen, only how long they are."""
    score: dict[str, Any] | None = None
    """Drift of the predictions: a proxy, for it needs no label."""
    adwin: list[dict[str, Any]] = field(default_factory=list)
    """Rows where the error rose."""
    shadow: dict[str, Any] | None = None
    """What staging holds, where it ran beside the version, see shadow.py; it decides nothing."""

    def note(self) -> str:
        """In short, as JSON, for the version's tag in the registry, where CI reads it."""
        return json.dumps({name: getattr(self, name) for name in NOTED})

    def recall(self, note: str) -> None:
        """Takes over what was noted on the version where the journal is, if that is still fresh."""
        known = json.loads(note or "{}")
        seen = datetime.fromisoformat(known.get("at") or "1970-01-01T00:00:00+00:00")
        if known.get("environment") == self.environment and datetime.now(UTC) - seen < FRESH:
            for name in NOTED:
                setattr(self, name, known.get(name, getattr(self, name)))
            return
        last = f"the last look was at {known['at']}" if known else "the monitor has not run yet"
        self.reason = (
            f"there is no journal here (journal.url is empty), and {last}; set JOURNAL_URL, or run "
            "`make monitor` where the journal is"
        )

    def store(self) -> None:
        """Keeps the verdict as the newest, and by version and event time for the record."""
        text = json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"
        named = f"{self.version or self.environment}-{(self.until or 'empty').replace(':', '')}"
        for path in (REPORTS / "monitor" / f"{named}.json", REPORTS / "monitor.json"):
            write(path, text)
