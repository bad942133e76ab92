"""The history in MLflow: each move is a run of its own, which nothing changes once it is closed."""

import json
import time

from mlflow.entities import ViewType

from .history import Move
from .tracking import Tracking, asked, every

TICK = 1e-3
"""Seconds between two moves of which the later one's clock is behind."""


class Moves(Tracking):
    """What was moved where, by whom and why. Every method raises RegistryUnavailable."""

    def intend(self, move: Move) -> Move:
        """Writes down that a move begins; `close` or `abandon` ends it."""
        with asked():
            run = self.client.create_run(
                self._experiment(f"{self.model(move.environment)}-moves"),
                run_name=f"{move.kind} {move.environment} {move.to}",
                tags={
                    "environment": move.environment,
                    "kind": move.kind,
                    "to": move.to,
                    "back_from": move.back_from,
                    "by": move.by,
                    "commit": move.commit,
                    "gates": json.dumps(move.gates),
                },
            )
        move.id = run.info.run_id
        return move

    def close(self, move: Move) -> None:
        """Writes down that a move was made, after all that were closed before, whatever the
        clocks say of those who made them."""
        closed = self.moves(move.environment)
        if any(known.id == move.id for known in closed):  # a repair was faster
            return
        move.at = max([time.time(), *(known.at + TICK for known in closed[-1:])])
        with asked():
            self.client.set_tag(move.id, "closed", repr(move.at))
            self.client.set_terminated(move.id)

    def abandon(self, move: Move) -> None:
        """Writes down that a move was not made."""
        with asked():
            self.client.set_terminated(move.id, "KILLED")

    def moves(self, environment: str, closed: bool = True) -> list[Move]:
        """The moves of an environment in the order they were closed; with closed=False, those
        that were begun and neither closed nor abandoned."""
        with asked():
            kept = self.client.get_experiment_by_name(f"{self.model(environment)}-moves")
            if kept is None:  # who makes it may manage it: that is not who only looks
                return []
            found = every(
                lambda token: self.client.search_runs(
                    [kept.experiment_id],
                    f"tags.environment = '{environment}' and attributes.status = "
                    f"'{'FINISHED' if closed else 'RUNNING'}'",
                    ViewType.ACTIVE_ONLY,
                    page_token=token,
                )
            )
        moves = []
        for run in found:
            t = run.data.tags
            moves.append(
                Move(
                    t["environment"],
                    t["kind"],
                    t["to"],
                    t["back_from"],
                    t["by"],
                    t["commit"],
                    json.loads(t["gates"]),
                    run.info.run_id,
                    float(t.get("closed", 0)),
                )
            )
        return sorted(moves, key=lambda m: (m.at, m.id))
