"""What a registry remembers, whichever it is: versions, and moves between environments."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Version:
    """A registered version."""

    version: str
    run: str
    created: float
    tags: dict[str, str]
    environments: list[str]


@dataclass
class Move:
    """One change of what an environment holds, as it is kept for ever."""

    environment: str
    kind: str
    """promote or rollback"""
    to: str
    back_from: str
    """The version that was there; empty if none was."""
    by: str
    commit: str
    gates: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    at: float = 0.0
    """When it was closed, seconds since 1970; 0 while it is only an intent."""
