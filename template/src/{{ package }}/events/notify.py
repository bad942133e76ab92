"""Puts an event of each kind into the outbox. Fields may be added, but are never renamed."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..settings import Settings
from . import outbox

if TYPE_CHECKING:  # these modules import this one
    from ..monitoring.verdict import Verdict
    from ..registry.base import Move
    from ..registry.gates import Gate

FIELDS = ("environment", "version", "from", "by", "commit", "verdict", "reason", "gates")
"""The fields beside `type`, `id`, `at`, `model` and `text`; null if the event has no value."""


def moved(settings: Settings, move: "Move") -> None:
    """A version was promoted, or an environment was rolled back to one."""
    if move.kind == "rollback":
        text = (
            f"{move.by} rolled {move.environment} back from version {move.back_from} to {move.to}"
        )
    else:
        before = f"; before that it held {move.back_from}" if move.back_from else ""
        text = f"{move.by} promoted version {move.to} to {move.environment}{before}"
    _add(
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
    """A gate refused a version."""
    failed = "; ".join(gate.detail for gate in gates if not gate.passed)
    said = [asdict(gate) for gate in gates]
    _add(
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
    """The monitor reached a verdict."""
    held = f" with version {verdict.version}" if verdict.version else ""
    _add(
        settings,
        "verdict",
        f"the monitor says {verdict.verdict} for {verdict.environment}{held}: {verdict.reason}",
        environment=verdict.environment,
        version=verdict.version,
        verdict=verdict.verdict,
        reason=verdict.reason,
    )


def trained(settings: Settings, version: str, reason: str) -> None:
    """The cycle trained a version; its moves are events of their own."""
    text = f"the cycle trained version {version}: {reason}"
    _add(settings, "training", text, version=version, by="cycle", reason=reason)


def _add(settings: Settings, type: str, text: str, id: str = "", **fields: Any) -> None:
    name = settings.model.name
    said = {"type": type, "model": name, **dict.fromkeys(FIELDS), **fields}
    outbox.add(settings, {**said, "text": f"{name}: {text}"}, id)
