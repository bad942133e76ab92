"""The loop closed: monitor, compare a candidate with what is served, and promote what is better.

Every turn that finds new labelled rows fits a candidate and scores it, what is served, and earlier
versions on the same rows, which none of them had seen. The candidate takes over when it is better
with the confidence that `gates.confidence` asks for; once the metric fell, when it is better rather
than not. An earlier version that does better than both comes back.

Every step may be killed and run again: training registers whole versions or none, and a move
that was half made is finished by the next.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pandas as pd

from . import bundle as bundles
from .bundle import Bundle
from .errors import BundleError, RegistryUnavailable, StoreUnavailable, UserError
from .evaluation import unseen
from .evaluation.metric import METRIC, no_worse
from .events import notify
from .load import run as load_test
from .monitoring import monitor
from .registry import gates, signature
from .registry.base import Registry
from .registry.gates import Gate, Scored
from .registry.history import rolled_back
from .registry.promote import Refused, promote
from .serving.journal.store import opened
from .settings import VERSIONS, Settings
from .training import snapshots
from .training.fitting import Judged, judge
from .training.train import train

COMPARED = "compared"
"""The tag of a version with which a candidate was compared: how many rows were new to it then."""


@dataclass
class Turn:
    """What one run of the cycle found and did."""

    verdict: str
    reason: str
    version: str = ""
    """The version trained in this turn; empty if none was."""
    back: str = ""
    """The earlier version that does better than what is served; empty if none does."""
    promoted: list[str] = field(default_factory=list)
    """The environments that hold the one or the other now."""
    refused: str = ""
    """Why a gate stopped it; empty if none did."""


@dataclass(frozen=True)
class Choice:
    """What a comparison on the newest labelled rows found."""

    judged: Judged
    """The candidate, not yet fitted on all rows."""
    gate: Gate
    """Whether it, or the version `back`, is better than what is served and what waits."""
    back: str = ""
    """The earlier version that is to come back instead of it."""


def choose(
    frame: pd.DataFrame,
    holder: Bundle,
    settings: Settings,
    fell: bool = False,
    waiting: Bundle | None = None,
    earlier: Sequence[Bundle] = (),
) -> Choice:
    """Compares a candidate, what is served and other versions on the rows new to what is served.

    `frame` holds a snapshot's rows. The candidate must be better than `holder`, and than the
    version that is `waiting` for a person; `fell` says that less confidence is enough. Of the
    `earlier` versions the best that is better than both may come back. Raises UserError where no
    candidate can be fitted, BundleError where a version cannot score these rows.
    """
    judged = judge(frame, settings.train)
    late, rows, limits = judged.late, judged.frame, settings.gates

    def scored(bundle: Bundle) -> Scored:
        scores = over_all(unseen.scores(bundle, late))
        return Scored(f"version {bundle.version}", scores, bundle.manifest.classes)

    def over_all(scores: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full((judged.first, *scores.shape[1:]), np.nan), scores])

    own, held = Scored("a candidate", over_all(judged.scores), judged.classes), scored(holder)

    @cache
    def waits() -> Scored | None:
        return None if waiting is None else scored(waiting)

    def compared(one: Scored, confidence: float | None = None) -> Gate:
        gate = gates.compare_scores(one, held, rows, limits, confidence)
        if gate.passed and (waiter := waits()) is not None:
            gate = gates.compare_scores(one, waiter, rows, limits)
        return gate

    gate = compared(own, settings.cycle.confidence_after_fall if fell else None)
    if gate.passed and not better(own, held, rows):  # a tie is no reason to move
        gate = Gate(gate.name, False, gate.detail + "; what is served is as good")
    best, found = own if gate.passed else held, Choice(judged, gate)
    for bundle in earlier:
        other = scored(bundle)
        gate = compared(other)
        if gate.passed and better(other, best, rows):
            best, found = other, Choice(judged, gate, bundle.version)
    return found


def better(one: Scored, other: Scored, frame: pd.DataFrame) -> bool:
    """Whether one model's metric is the better one on the rows that neither was trained on."""
    _, actual, (mine, others) = gates.common([one, other], frame)
    if not len(actual):
        return False
    return not no_worse(float(METRIC(actual, others)), float(METRIC(actual, mine)))


def turn(settings: Settings, registry: Registry, force: bool = False) -> Turn:
    """One run of the cycle: monitors production, compares a candidate, promotes the better version.

    Nothing is compared before `cycle.rows` labelled rows came since the last comparison. `force`
    trains whatever is found, and leaves the decision to the gates. Raises UserError when training
    or a gate cannot go on; that is not tried again before as many rows have come, unless it was
    the registry or the store that was away.
    """
    with opened(settings.journal.url) as journal:
        verdict = monitor.run(settings, registry, journal)
    done, version = Turn(verdict.verdict, verdict.reason), verdict.version
    if version is None:
        if force:
            snapshot = snapshots.snapshot(settings)
            _up(done, train(settings, registry, snapshot).version, settings, registry)
        return done
    signature.check()  # first: what fails below is not tried again before more rows came
    snapshot = snapshots.snapshot(settings)
    frame = snapshot.read()
    holder = _bundle(version, registry, "production")
    new = int(unseen.newer(frame, holder).sum())
    came = new - json.loads(registry.note(version, COMPARED) or "0")
    if not force and came < settings.cycle.rows:
        done.reason += (
            f"; {max(came, 0):,} labelled rows came since a candidate was compared, "
            f"{settings.cycle.rows:,} are needed (cycle.rows)"
        )
        return done
    fell = verdict.verdict == "retrain"
    try:
        _compare(done, frame, holder, settings, registry, snapshot, fell, force)
    except (RegistryUnavailable, StoreUnavailable):
        raise
    except UserError:
        registry.tag(version, COMPARED, json.dumps(new))
        raise
    registry.tag(version, COMPARED, json.dumps(new))  # last: a turn killed before is taken again
    return done


def _compare(
    done: Turn,
    frame: pd.DataFrame,
    holder: Bundle,
    settings: Settings,
    registry: Registry,
    snapshot: snapshots.Snapshot,
    fell: bool,
    force: bool,
) -> None:
    waits = registry.alias("staging")
    waiting = _bundle(waits, registry, "staging") if waits and waits != holder.version else None
    earlier = _earlier(holder.version, settings.cycle.earlier, registry)
    found = choose(frame, holder, settings, fell, waiting, earlier)
    done.reason += f"; {f'version {found.back}: ' if found.back else ''}{found.gate.detail}"
    if found.back and not force:
        done.back = found.back
        steps = ["staging", "production"] if settings.gates.unattended else []
        _move(done, found.back, steps, settings, registry, found.gate)
        if not done.promoted:
            done.reason += f"; make promote ENV=staging VERSION={found.back}, then production"
    elif found.gate.passed or force:
        trained = train(settings, registry, snapshot, found.judged)
        _up(done, trained.version, settings, registry, None if force else found.gate)
    elif waiting is not None:
        done.reason += (
            f"; version {waits} waits in staging: make promote ENV=production VERSION={waits}"
        )


def _up(
    done: Turn,
    version: str,
    settings: Settings,
    registry: Registry,
    compared: Gate | None = None,
) -> None:
    """Promotes a new version as far as the settings let a schedule do so."""
    done.version = version
    notify.trained(settings, version, done.reason)
    steps = ["test", "staging", *(["production"] if settings.gates.unattended else [])]
    _move(done, version, steps, settings, registry, compared)


def _move(
    done: Turn,
    version: str,
    steps: list[str],
    settings: Settings,
    registry: Registry,
    compared: Gate | None,
) -> None:
    for environment in steps:
        try:
            if environment == "production" and settings.gates.load:
                load_test.measure(settings, registry, "staging")
            promote(
                environment,
                settings,
                registry,
                by="cycle",
                unattended=True,
                version=version,
                compared=compared,
            )
        except Refused as error:
            done.refused = str(error)
            break
        done.promoted.append(environment)


def _bundle(version: str, registry: Registry, environment: str) -> Bundle:
    return bundles.load(registry.pull(version, VERSIONS, environment), any_contract=True)


def _earlier(holder: str, most: int, registry: Registry) -> list[Bundle]:
    """The versions that production held before, the newest first; not those gone back from."""
    moves = registry.moves("production")
    left = rolled_back(moves) | {holder}
    versions = [v for v in dict.fromkeys(m.to for m in reversed(moves)) if v not in left]
    found = []
    for version in versions[:most]:
        try:
            found.append(_bundle(version, registry, "production"))
        except BundleError:  # of other code: it cannot be compared
            continue
    return found
