"""The loop: what a turn sees, and what it does about it."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from . import package

bundles = package("bundle")
cycle = package("cycle")
journal = package("serving.journal")
promote = package("promote")
registry = package("registry")
settings = package("settings")
FREE = {"load": False, "min_rows": 50, "unattended": True}
WINDOW = 100


def kept(**gates: object):
    return settings.load(gates={**FREE, **gates}, monitor={"window": WINDOW, "threshold": 99.0})


@pytest.fixture
def known(trained: Path):
    """Version 1 is in every environment."""
    found = registry.Registry(settings.load())
    for environment in ("staging", "production"):
        promote.promote(environment, kept(), found, version="1")
    return found


def happen(windows: int, right: float, start: datetime = datetime(2031, 1, 1)) -> None:
    """Fills the journal with version 1's predictions, of which the share `right` came true."""
    bundle = bundles.load(Path("var/versions/1"))
    random = np.random.default_rng(0)
    predict = package("predict")
    examples = [e["features"] for e in bundle.examples]
    answers = predict.predict(bundle, bundles.ROWS.validate_python(examples))
    classes, records = bundle.manifest.classes, []
    for i in range(windows * WINDOW):
        e = int(random.integers(len(examples)))
        answer = answers[e]
        if classes is None:
            outcome = answer["prediction"] + (0.0 if random.random() < right else 500.0)
        else:
            chances = np.array(list(answer["probabilities"].values()))
            chances = chances**2 if random.random() < right else 1 - chances
            outcome = classes[int(random.choice(len(classes), p=chances / chances.sum()))]
        records.append(
            journal.Record(
                f"{start:%Y}{i:028}",
                None,
                start + timedelta(minutes=i),
                "1",
                bundle.manifest.contract,
                examples[e],
                answer,
                outcome,
            )
        )
    with journal.opened(settings.load().journal.url) as log:
        log.write(records)


def test_nothing_served_is_said(known) -> None:
    done = cycle.turn(kept(), known)
    assert (done.verdict, done.version) == ("unknown", "")
    assert "no row" in done.reason


def test_a_quiet_model_is_left_alone(known) -> None:
    happen(6, right=1.0)
    done = cycle.turn(kept(), known)
    assert done.verdict == "ok", done.reason
    assert len(known.versions()) == 1


def test_a_fall_is_answered_once_and_up_to_production(known) -> None:
    happen(6, right=0.0)
    done = cycle.turn(kept(margin=-1e9), known)
    assert (done.verdict, done.version) == ("retrain", "2"), done.reason
    assert done.promoted == ["test", "staging", "production"]
    assert known.alias("production") == "2"


def test_a_refused_answer_is_not_given_twice(known) -> None:
    happen(6, right=0.0)
    done = cycle.turn(kept(margin=1e9), known)
    assert (done.version, done.promoted) == ("2", ["test"])
    assert "needed" in done.refused
    again = cycle.turn(kept(margin=1e9), known)
    assert (again.verdict, again.version) == ("retrain", "")
    assert "version 2 was trained on that already" in again.reason
    happen(1, right=0.0, start=datetime(2032, 1, 1))
    assert cycle.turn(kept(margin=1e9), known).version == "3"


def test_production_is_left_to_people_unless_they_say_so(known) -> None:
    happen(6, right=0.0)
    done = cycle.turn(kept(margin=-1e9, unattended=False), known)
    assert done.promoted == ["test", "staging"]
    assert known.alias("production") == "1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "passed"),
    [("train", 0), ("promote", 0), ("promote", 1), ("promote", 2), ("tag", 0), ("tag", 1)],
)
def test_a_killed_turn_is_run_again(known, monkeypatch, where: str, passed: int) -> None:
    """Before the training, before each promotion, and before the answer is noted."""
    happen(6, right=0.0)
    holder = known if where == "tag" else cycle
    real, calls = getattr(holder, where), []

    def die(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) > passed:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(holder, where, die)
        with pytest.raises(KeyboardInterrupt):
            cycle.turn(kept(margin=-1e9), known)
    done = cycle.turn(kept(margin=-1e9), known)
    if (where, passed) == ("tag", 1):  # all was done but to note it: now version 2 is watched
        assert (known.alias("production"), done.version) == ("2", "")
    else:
        assert done.promoted == ["test", "staging", "production"]
    assert not known.moves("production", closed=False)
