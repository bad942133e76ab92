"""The loop closed: monitor, and where the metric fell for sure, retrain, gate, promote.

Every step may be killed and run again: training registers whole versions or none, and a move
that was half made is finished by the next.
"""

import json
from dataclasses import dataclass, field

from . import data, monitor
from .promote import Refused, promote
from .registry import Registry
from .serving.journal import opened
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


ANSWERED = "answered"
"""The tag of a version whose fall was answered by a retraining: the window, and with what."""


def turn(settings: Settings, registry: Registry, force: bool = False) -> Turn:
    """Watches production, and retrains on the newest labelled rows when its metric fell.

    A fall is answered once: if the gates refuse the new version, the next is trained when one
    more window of labels has come. `force` retrains whatever the monitor says. Raises UserError
    when training or a gate cannot go on.
    """
    with opened(settings.journal.url) as journal:
        verdict = monitor.run(settings, registry, journal)
    done = Turn(verdict.verdict, verdict.reason)
    if not force:
        if verdict.verdict != "retrain":
            return done
        before = json.loads(registry.note(verdict.version or "", ANSWERED) or "{}")
        if before and verdict.window <= before["until"]:
            done.reason += f"; version {before['version']} was trained on that already"
            return done
    snapshot = data.snapshot(settings)
    trained = train(settings, registry, snapshot)
    done.version = trained.version
    steps = ["test", "staging", *(["production"] if settings.gates.unattended else [])]
    for environment in steps:
        try:
            if environment == "production" and settings.gates.load:
                _measure(settings, registry)
            promote(
                environment,
                settings,
                registry,
                by="cycle",
                unattended=True,
                version=trained.version,
                snapshot=snapshot,
            )
        except Refused as error:
            done.refused = str(error)
            break
        done.promoted.append(environment)
    if verdict.version:  # last, so that a turn killed before is taken again
        answer = json.dumps({"until": verdict.window, "version": trained.version})
        registry.tag(verdict.version, ANSWERED, answer)
    return done


def _measure(settings: Settings, registry: Registry) -> None:
    from . import load

    load.measure(settings, registry, "staging")
