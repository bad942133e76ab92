"""The kinds of events, and what each says. A field is never renamed; others may be added."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..settings import Settings
from . import outbox

if TYPE_CHECKING:  # they tell what they do by this
    from ..monitoring.verdict import Verdict
    from ..registry.base import Move
    from ..registry.gates import Gate

FIELDS = ("environment", "version", "from", "by", "commit", "verdict", "reason", "gates")
"""What an event has beside `type`, `id`, `at`, `model` and `text`; null where it says nothing."""


def moved(settings: Settings, move: "Move") -> None:
    """A version was promoted, or an environment went back to one."""
    if move.kind == "rollback":
        text = (
            f"{move.by} rolled {move.environment} back from version {move.back_from} to {move.to}"
        )
    else:
        before = f"; before that it held {move.back_from}" if move.back_from else ""
        text = f"{move.by} promoted version {move.to} to {move.environment}{before}"
    _tell(
        settings,
        move.kind,
        text,
        f"{move.environment}-{move.id}",
        environment=move.environment,
        version=move.to,
        gates=list(move.gates.values()),
        by=move.by,
        commit=move.commit,
        **{"from": move.back_from or None},
    )


def refused(
    settings: Settings, environment: str, version: str, by: str, gates: list["Gate"], text: str
) -> None:
    """A gate said no."""
    failed = "; ".join(gate.detail for gate in gates if not gate.passed)
    said = [asdict(gate) for gate in gates]
    _tell(
        settings,
        "refusal",
        text,
        environment=environment,
        version=version,
        by=by,
        gates=said,
        reason=failed,
    )


def judged(settings: Settings, verdict: "Verdict") -> None:
    """The monitor looked."""
    held = f" and its version {verdict.version}" if verdict.version else ""
    _tell(
        settings,
        "verdict",
        f"the monitor says {verdict.verdict} of {verdict.environment}{held}: {verdict.reason}",
        environment=verdict.environment,
        version=verdict.version,
        verdict=verdict.verdict,
        reason=verdict.reason,
    )


def trained(settings: Settings, version: str, reason: str) -> None:
    """The cycle trained a version; its moves are told apart."""
    text = f"the cycle trained version {version}: {reason}"
    _tell(settings, "training", text, version=version, by="cycle", reason=reason)


def _tell(settings: Settings, type: str, text: str, id: str = "", **fields: Any) -> None:
    name = settings.model.name
    said = {"type": type, "model": name, **dict.fromkeys(FIELDS), **fields}
    outbox.add(settings, {**said, "text": f"{name}: {text}"}, id)
