"""The loop closed: monitor, and where the metric fell for sure, retrain, gate, promote.

Every step may be killed and run again: training registers whole versions or none, and a move
that was half made is finished by the next.
"""

from dataclasses import dataclass, field

from . import data, monitor
from .errors import UserError
from .promote import Refused, promote
from .registry import Registry
from .serving.journal import Journal
from .settings import Settings
from .train import train


@dataclass
class Turn:
    """One turn of the cycle: what was seen, and what was done about it."""

    verdict: str
    reason: str
    version: str = ""
    """The version trained in this turn; empty if none was."""
    promoted: list[str] = field(default_factory=list)
    refused: str = ""
    """Why a gate stopped it; empty if none did."""


def turn(settings: Settings, registry: Registry, force: bool = False) -> Turn:
    """Watches production, and retrains on the newest labelled rows when its metric fell.

    `force` retrains whatever the monitor says. Raises UserError when nothing can be watched.
    """
    if not settings.journal.url:
        raise UserError("journal.url is empty: without a journal there is nothing to watch")
    journal = Journal(settings.journal.url)
    try:
        verdict = monitor.run(settings, registry, journal)
    finally:
        journal.close()
    done = Turn(verdict.verdict, verdict.reason)
    if verdict.verdict != "retrain" and not force:
        return done
    trained = train(settings, registry, data.snapshot(settings))
    done.version = trained.version
    steps = ["test", "staging", *(["production"] if settings.gates.unattended else [])]
    for environment in steps:
        try:
            if environment == "production" and settings.gates.load:
                _measure(settings, registry)
            promote(environment, settings, registry, by="cycle", unattended=True,
                    version=trained.version)
        except Refused as error:
            done.refused = str(error)
            break
        done.promoted.append(environment)
    return done


def _measure(settings: Settings, registry: Registry) -> None:
    from . import load

    load.measure(settings, registry, "staging")
