"""What the monitor found, as it is stored."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPORTS = Path("reports")


@dataclass
class Verdict:
    """What was seen. `reports/monitor.json` holds it as it stands."""

    verdict: str
    """ok, warn, retrain or unknown"""
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
    """Its name, and its value when the version was promoted."""
    windows: list[dict[str, Any]] = field(default_factory=list)
    """Labelled rows by event time, counted from the version's first."""
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each column in the newest window of rows."""
    drift: list[dict[str, Any]] = field(default_factory=list)
    """The columns' distances in each window of rows, counted back from the newest."""
    score: dict[str, Any] | None = None
    """Drift of the predictions: a proxy, for it needs no label."""
    adwin: list[dict[str, Any]] = field(default_factory=list)
    """Rows where the error rose."""

    def note(self) -> str:
        """In short, as JSON, for the version's tag in the registry, where CI reads it."""
        names = ("verdict", "reason", "environment", "at", "until")
        return json.dumps({name: getattr(self, name) for name in names})

    def store(self) -> None:
        """Keeps the verdict as the newest, and by version and event time for the record."""
        text = json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"
        named = f"{self.version or self.environment}-{(self.until or 'empty').replace(':', '')}"
        for path in (REPORTS / "monitor" / f"{named}.json", REPORTS / "monitor.json"):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".tmp")
            draft.write_text(text)
            draft.replace(path)
