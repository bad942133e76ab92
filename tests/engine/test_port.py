"""What every registry does alike: the promises of base.py, whichever answers `model_registry`.

Only `connect` and the Protocol are used; what people, accidents and servers do to a registry is in
a module beside: port_mlflow.py, port_team.py where TEST_MLFLOW has a server, or port_wandb.py and
port_folder.py.
"""

import importlib
import json
import os
import shutil
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flight_delays import bundle as bundles
from flight_delays import errors, settings
from flight_delays.errors import UserError
from flight_delays.registry import base, history, store
from flight_delays.registry.base import Move, Registry, Training
from flight_delays.training import snapshots

KINDS = ["mlflow"] if hasattr(store, "MlflowRegistry") else ["wandb", "folder"]
if os.environ.get("TEST_MLFLOW"):
    KINDS = ["team"]
ENVIRONMENTS = settings.ENVIRONMENTS
PARAMETERS = {"depth": 3, "name": "a forest"}
METRICS = {"score": 0.5}
PICTURE = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""One pixel, as a PNG file."""
Made = Callable[[Registry, str], str]
"""Registers a bundle for a run, and returns the version."""


@pytest.fixture(scope="module")
def made(bundle_dir: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Registers a bundle that no other one equals, and returns the version."""
    folder = tmp_path_factory.mktemp("made")
    frame = snapshots.typed(pd.read_parquet(home / "rows.parquet").head(20), "rows")
    report = folder / "report"
    report.mkdir()
    (report / "model_card.md").write_text("# A card\n")
    counted = iter(range(1, 1000))

    def register(registry: Registry, run: str) -> str:
        to = folder / f"bundle{next(counted)}"
        shutil.copytree(bundle_dir, to)
        manifest = json.loads((to / "manifest.json").read_text())
        (to / "manifest.json").write_text(json.dumps({**manifest, "run": run}))
        bundle = bundles.load(to)
        rows = frame[snapshots.FIELDS]
        training = Training(bundle, rows, PARAMETERS, METRICS, report, "rows", ["numpy"])
        return registry.register(run, training)

    return register


def registered(registry: Registry, made: Made) -> str:
    with registry.run("train") as run:
        return made(registry, run)


@pytest.fixture(scope="module", params=KINDS)
def opened(
    request: pytest.FixtureRequest,
    home: Path,
    made: Made,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """What opens a registry of a test's own that knows three versions."""
    kind = importlib.import_module(f"..port_{request.param}", __name__)

    def fill(registry: Registry) -> None:
        for _ in range(3):
            registered(registry, made)

    with kind.kept(home, fill, tmp_path_factory.mktemp("filled")) as opened:
        yield opened


@pytest.fixture
def port(opened: Any, tmp_path: Path) -> Iterator[Any]:
    with opened(tmp_path) as port:
        yield port


@pytest.fixture
def known(port: Any) -> Registry:
    found: Registry = port.connect()
    return found


@pytest.fixture
def three(known: Registry) -> list[str]:
    """The versions, oldest first."""
    return known.numbers()[::-1]


def promoted(registry: Registry, environment: str, *versions: str) -> list[Move]:
    return [
        history.make(
            Move(environment, "promote", v, registry.alias(environment) or "", "ana", "c0ffee"),
            registry,
        )
        for v in versions
    ]


# VERSIONS


def test_versions_grow_and_the_newest_is_first(known: Registry, made: Made) -> None:
    before = [int(v) for v in known.numbers()]
    assert before == sorted(before, reverse=True)
    assert len(before) == 3
    new = registered(known, made)
    assert int(new) > before[0]
    assert known.numbers() == [new, *map(str, before)]
    assert [v.version for v in known.versions()] == known.numbers()


def test_a_version_says_where_it_is_from(port: Any, known: Registry, made: Made) -> None:
    with known.run("train") as run:
        new = made(known, run)
    found = next(v for v in port.connect().versions() if v.version == new)
    assert found.run == run
    assert abs(found.created - time.time()) < 60
    assert {"bundle", "commit", "data", "trained_until", "contract"} <= set(found.tags)
    assert any(name.startswith("metric.") for name in found.tags)
    assert found.environments == []


def test_a_training_is_tracked(port: Any, known: Registry, made: Made) -> None:
    with known.run("train") as run:
        made(known, run)
    state, parameters, metrics = port.tracked(run)
    assert state == "finished"
    assert {name: str(value) for name, value in PARAMETERS.items()}.items() <= parameters.items()
    assert metrics["score"] == 0.5


def test_a_training_that_failed_is_tracked_as_failed(port: Any, known: Registry) -> None:
    with pytest.raises(ZeroDivisionError), known.run("train") as run:
        raise ZeroDivisionError
    assert port.tracked(run)[0] == "failed"


def test_a_search_is_tracked_with_its_trials(port: Any, known: Registry, tmp_path: Path) -> None:
    before = known.numbers()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "tune.png").write_bytes(PICTURE)
    trials = [
        base.Trial(0, {"depth": 3, "name": None}, {"score": 0.5}, 1.5),
        base.Trial(1, {"depth": -1, "name": "a"}, {}, 0.5, "depth must be positive"),
    ]
    search = known.track("tune", trials, pictures)
    assert known.numbers() == before
    assert port.tracked(search)[0] == "finished"
    first, second = port.trials(search)
    assert (first[0], second[0]) == ("finished", "failed")
    assert str(first[1]["depth"]) == "3"
    assert first[2]["score"] == 0.5
    assert (second[2]["seconds"], "score" in second[2]) == (0.5, False)


def test_what_a_training_raises_is_not_the_registrys(known: Registry) -> None:
    with pytest.raises(ValueError, match=r"^mine$"), known.run("train"):
        raise ValueError("mine")
    with pytest.raises(UserError, match=r"^mine too$"), known.run("train"):
        raise UserError("mine too")


def test_nothing_is_registered_when_it_is_interrupted(
    port: Any, known: Registry, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = known.numbers()

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        client, step = port.interrupted
        patch.setattr(client, step, stop)
        with pytest.raises(KeyboardInterrupt):
            registered(known, made)
    assert port.connect().numbers() == before
    assert registered(known, made) not in before


def test_a_registry_of_nothing(known: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "nobody-s")
    empty = store.connect(settings.load())
    assert (empty.versions(), empty.numbers()) == ([], [])
    for environment in ENVIRONMENTS:
        assert empty.alias(environment) is None
        assert empty.moves(environment) == empty.moves(environment, closed=False) == []
        assert history.repair(environment, empty) == []
    with pytest.raises(UserError, match="holds no version"):
        base.version_in("staging", empty)
    with pytest.raises(UserError, match="not registered"):
        base.require("1", empty)


def test_it_says_where_it_is(known: Registry) -> None:
    assert known.address
    assert "***" not in known.address


# ALIASES


def test_each_environment_holds_one_version(known: Registry, three: list[str]) -> None:
    assert [known.alias(e) for e in ENVIRONMENTS] == [None, None, None]
    for environment, version in zip(ENVIRONMENTS, three, strict=True):
        known.set_alias(environment, version)
    assert [known.alias(e) for e in ENVIRONMENTS] == three
    held = {v.version: v.environments for v in known.versions()}
    assert held == {v: [e] for e, v in zip(ENVIRONMENTS, three, strict=True)}


def test_an_alias_moves(port: Any, known: Registry, three: list[str]) -> None:
    for version in (three[0], three[2], three[1], three[1]):
        known.set_alias("staging", version)
        assert port.connect().alias("staging") == version
        holds = [v.version for v in port.connect().versions() if "staging" in v.environments]
        assert holds == [version]


def test_one_version_is_held_by_many(known: Registry, three: list[str]) -> None:
    for environment in ENVIRONMENTS:
        known.set_alias(environment, three[1])
    (held,) = [v for v in known.versions() if v.environments]
    assert (held.version, held.environments) == (three[1], [*ENVIRONMENTS])


def test_what_is_not_there_is_not_held(known: Registry) -> None:
    with pytest.raises(UserError) as caught:
        known.set_alias("staging", "99")
    assert len(str(caught.value).splitlines()) == 1
    assert known.alias("staging") is None


# NOTES


def test_the_last_note_counts(port: Any, known: Registry, three: list[str]) -> None:
    assert known.note(three[0], "load") == ""
    known.tag(three[0], "load", "first")
    known.tag(three[0], "load", "second")
    known.tag(three[0], "monitor", "third")
    assert port.connect().note(three[0], "load") == "second"
    assert port.connect().note(three[0], "monitor") == "third"
    assert known.note(three[1], "load") == ""
    assert next(v for v in known.versions() if v.version == three[0]).tags["load"] == "second"


def test_a_note_may_be_long(known: Registry, three: list[str]) -> None:
    text = json.dumps({"é": "a \"quoted\" 'text'\n" * 80})
    known.tag(three[0], "load", text)
    assert known.note(three[0], "load") == text


def test_notes_and_aliases_leave_each_other_alone(known: Registry, three: list[str]) -> None:
    tags = next(v for v in known.versions() if v.version == three[0]).tags
    known.set_alias("staging", three[0])
    known.tag(three[0], "load", "text")
    known.set_alias("production", three[0])
    found = next(v for v in known.versions() if v.version == three[0])
    assert found.environments == ["staging", "production"]
    assert found.tags == {**tags, "load": "text"}


def test_a_version_that_is_not_there_has_no_notes(known: Registry) -> None:
    for call in (lambda: known.note("99", "load"), lambda: known.tag("99", "load", "text")):
        with pytest.raises(UserError) as caught:
            call()
        assert not isinstance(caught.value, errors.RegistryUnavailable), "it did answer"


# BUNDLES


def test_the_bundle_is_pulled_whole(known: Registry, three: list[str], tmp_path: Path) -> None:
    for version in three:
        path = known.pull(version, tmp_path / "to")
        assert path == tmp_path / "to" / version
        assert bundles.load(path).digest == known.note(version, "bundle")
    assert sorted(p.name for p in (tmp_path / "to").iterdir()) == sorted(three)


def test_what_is_there_is_left_as_it_is(known: Registry, three: list[str], tmp_path: Path) -> None:
    path = known.pull(three[0], tmp_path / "to")
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    known.pull(three[0], tmp_path / "to")
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_a_copy_that_is_damaged_here_is_pulled_again(
    known: Registry, three: list[str], tmp_path: Path
) -> None:
    path = known.pull(three[0], tmp_path / "to")
    model = max(path.iterdir(), key=lambda file: file.stat().st_size)
    model.write_bytes(model.read_bytes()[:-1])
    assert bundles.load(known.pull(three[0], tmp_path / "to"))


def test_a_bundle_of_another_registry_is_replaced(
    known: Registry, three: list[str], tmp_path: Path
) -> None:
    to = tmp_path / "to"
    shutil.copytree(known.pull(three[0], tmp_path / "other"), to / three[1])
    assert bundles.load(known.pull(three[1], to)).digest == known.note(three[1], "bundle")


def test_an_artifact_that_is_damaged_is_refused(
    port: Any, known: Registry, three: list[str], tmp_path: Path
) -> None:
    port.damage(three[1])
    with pytest.raises(errors.UserError) as caught:
        bundles.load(known.pull(three[1], tmp_path / "to"))
    assert len(str(caught.value).splitlines()) == 1
    assert not isinstance(caught.value, errors.RegistryUnavailable)


def test_another_digest_than_the_registered_one_is_refused(
    known: Registry, three: list[str], tmp_path: Path
) -> None:
    known.tag(three[0], "bundle", "0" * 12)
    with pytest.raises(errors.BundleError, match="not the one that was registered"):
        known.pull(three[0], tmp_path / "to")
    assert not list((tmp_path / "to").iterdir())


def test_a_version_that_is_not_there_is_not_pulled(known: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        known.pull("99", tmp_path / "to")
    assert not (tmp_path / "to" / "99").exists()


def test_what_is_kept_may_be_held(known: Registry, three: list[str], tmp_path: Path) -> None:
    digest = known.note(three[1], "bundle")
    for _ in range(2):
        known.copy_into("production", three[1], digest)
    known.set_alias("production", three[1])
    path = known.pull(three[1], tmp_path / "to", "production")
    assert bundles.digest_of(path) == digest


# MOVES


def test_a_move_is_kept_for_ever(port: Any, known: Registry, three: list[str]) -> None:
    gates = {"better": {"name": "better", "passed": True, "detail": 'gain 0.1, "é"', "n": [1.5]}}
    move = Move("staging", "promote", three[0], "", "Zoë <zoe@x>", "c0ffee", gates)
    assert known.intend(move).id
    (begun,) = port.connect().moves("staging", closed=False)
    assert begun == move
    assert known.moves("staging") == []
    known.close(move)
    (closed,) = port.connect().moves("staging")
    assert closed == move
    assert abs(closed.at - time.time()) < 60
    assert known.moves("staging", closed=False) == []


def test_a_move_that_was_not_made_is_no_move(known: Registry, three: list[str]) -> None:
    known.abandon(known.intend(Move("staging", "promote", three[0], "", "ana", "")))
    assert known.moves("staging") == known.moves("staging", closed=False) == []


def test_a_closed_move_stays_as_it_is(port: Any, known: Registry, three: list[str]) -> None:
    promoted(known, "staging", three[0])
    (before,) = known.moves("staging")
    port.connect().close(Move("staging", "promote", "7", "", "eve", "", id=before.id))
    assert known.moves("staging") == [before]


def test_each_environment_has_a_history(known: Registry, three: list[str]) -> None:
    promoted(known, "staging", three[0], three[1])
    promoted(known, "production", three[0])
    assert [m.to for m in known.moves("staging")] == three[:2]
    assert [m.to for m in known.moves("production")] == three[:1]
    assert known.moves("test") == []


def test_a_version_walks_up_and_back(port: Any, known: Registry, three: list[str]) -> None:
    promoted(known, "staging", *three)
    assert history.rollback("staging", port.connect()).to == three[1]
    assert history.rollback("staging", known).to == three[0]
    with pytest.raises(UserError, match="no earlier version"):
        history.rollback("staging", known)
    promoted(known, "staging", three[2])
    assert history.rollback("staging", known).to == three[0]
    moves = port.connect().moves("staging")
    assert [m.to for m in moves] == [*three, three[1], three[0], three[2], three[0]]
    assert [m.kind for m in moves] == ["promote"] * 3 + ["rollback"] * 2 + ["promote", "rollback"]
    assert known.alias("staging") == three[0]


@pytest.mark.parametrize("reached", ["intent", "alias"])
def test_a_move_killed_half_way_is_repaired(
    port: Any, known: Registry, three: list[str], monkeypatch: pytest.MonkeyPatch, reached: str
) -> None:
    promoted(known, "staging", three[0])

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(known, "set_alias" if reached == "intent" else "close", die)
        with pytest.raises(KeyboardInterrupt):
            promoted(known, "staging", three[1])
    other = port.connect()
    assert other.moves("staging", closed=False)
    assert len(history.repair("staging", other)) == 1
    assert history.repair("staging", other) == []
    assert not other.moves("staging", closed=False)
    held = three[0] if reached == "intent" else three[1]
    assert other.alias("staging") == other.moves("staging")[-1].to == held


def test_an_alias_set_by_hand_follows_the_history(
    port: Any, known: Registry, three: list[str]
) -> None:
    promoted(known, "production", three[0])
    port.point("production", three[1])
    assert known.alias("production") == three[1]
    history.repair("production", known)
    assert known.alias("production") == three[0]


def test_two_promoters_at_once_lose_no_move(port: Any, known: Registry, three: list[str]) -> None:
    promoted(known, "staging", three[0])
    ready = threading.Barrier(2)

    def move(version: str) -> str:
        mine = port.connect()
        mine.alias("staging")
        ready.wait()
        try:
            return history.make(Move("staging", "promote", version, "", version, ""), mine).to
        except UserError:  # overtaken
            return ""

    with ThreadPoolExecutor(2) as pool:
        done = {*pool.map(move, three[1:])}
    moves = known.moves("staging")
    assert sorted(m.to for m in moves) == three
    assert known.alias("staging") == moves[-1].to
    assert moves[-1].to in done


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_is_overtaken_hears_so(
    port: Any, known: Registry, three: list[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    real, other = known.close, port.connect()

    def close(move: Move) -> None:
        if when == "after":
            real(move)
        history.repair("staging", other)  # as a promotion begins
        promoted(other, "staging", three[2])
        if when == "before":
            real(move)

    monkeypatch.setattr(known, "close", close)
    with pytest.raises(UserError, match=r"was overtaken by ana, whose promote to version . counts"):
        promoted(known, "staging", three[1])
    assert [m.to for m in other.moves("staging")] == three[1:]
    assert other.alias("staging") == three[2]


@pytest.mark.parametrize("clocks", [(3600, 0, 0), (-3600, 0, -3600), (0, -3600, 3600)])
def test_moves_keep_their_order_whatever_the_clocks_say(
    known: Registry,
    three: list[str],
    monkeypatch: pytest.MonkeyPatch,
    clocks: tuple[int, int, int],
) -> None:
    now = time.time()
    for version, wrong in zip(three, clocks, strict=True):
        monkeypatch.setattr(base.time, "time", lambda wrong=wrong: now + wrong)
        promoted(known, "staging", version)
        assert known.alias("staging") == version
    assert [m.to for m in known.moves("staging")] == three
    assert history.rollback("staging", known).to == three[1]


def test_two_rollbacks_at_once_are_one_step(
    port: Any, known: Registry, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(known, "staging", *three)
    real, other = known.intend, port.connect()

    def intend(move: Move) -> Move:
        assert history.rollback("staging", other).to == three[1]  # somebody else, just before
        return real(move)

    monkeypatch.setattr(known, "intend", intend)
    assert history.rollback("staging", known).to == three[1]
    assert other.alias("staging") == three[1]
    assert history.rollback_path(other.moves("staging")) == three[:2]
    assert history.rollback("staging", other).to == three[0]


# WHAT PEOPLE AND SERVERS DO


def test_a_version_may_be_deleted(
    port: Any, known: Registry, three: list[str], made: Made, tmp_path: Path
) -> None:
    known.set_alias("staging", three[1])
    port.delete(three[1])
    assert known.numbers() == [three[2], three[0]]
    assert known.alias("staging") is None
    assert [v.version for v in known.versions()] == [three[2], three[0]]
    for call in (
        lambda: known.set_alias("staging", three[1]),
        lambda: known.pull(three[1], tmp_path / "to"),
        lambda: base.require(three[1], known),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    assert int(registered(known, made)) > int(three[2])


def test_who_may_not_promote_changes_nothing(port: Any, three: list[str]) -> None:
    promoted(port.connect(), "production", three[0])
    with port.protected("production"):
        mine = port.connect()
        promoted_before = mine.alias("production")
        with pytest.raises(errors.NotPermitted) as caught:
            promoted(mine, "production", three[1])
        assert mine.alias("production") == promoted_before == three[0]
        assert mine.versions(), "who may not write may read"
    (line,) = str(caught.value).splitlines()
    assert "permission" in line
    other = port.connect()
    (said,) = history.repair("production", other)
    assert "dropped" in said
    assert [m.to for m in other.moves("production")] == three[:1]


CALLS: dict[str, Callable[[Registry], Any]] = {
    "versions": lambda known: known.versions(),
    "numbers": lambda known: known.numbers(),
    "alias": lambda known: known.alias("staging"),
    "note": lambda known: known.note("1", "load"),
    "tag": lambda known: known.tag("1", "load", "text"),
    "set_alias": lambda known: known.set_alias("staging", "1"),
    "pull": lambda known: known.pull("1", Path("var/versions")),
    "intend": lambda known: known.intend(Move("staging", "promote", "1", "", "", "")),
    "moves": lambda known: known.moves("staging"),
    "run": lambda known: known.run("train").__enter__(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_is_away_is_said_in_a_line(port: Any, name: str) -> None:
    with port.away() as address:
        begun = time.monotonic()
        with pytest.raises(errors.RegistryUnavailable) as caught:
            CALLS[name](port.connect())
        assert time.monotonic() - begun < 20
    (line,) = str(caught.value).splitlines()
    assert not isinstance(caught.value, errors.NotPermitted)
    assert address in line
    assert port.variable in line


def test_it_is_there_again_after_a_while(port: Any, known: Registry, three: list[str]) -> None:
    with port.away(), pytest.raises(errors.RegistryUnavailable):
        port.connect().numbers()
    assert port.connect().numbers() == three[::-1]
