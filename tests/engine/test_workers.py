"""Engines: everything is done once, whoever is killed; see batch/engine.py.

Dask and Ray are tested where they are installed; tests/test_engine.py has an environment of these.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flight_delays import bundle as bundles
from flight_delays import settings
from flight_delays.batch import engine, score
from flight_delays.errors import UserError
from flight_delays.serving.journal.store import Journal

from .tasks import dies, doubled

HERE = str(Path(__file__).parents[2])
PACKAGES = {"local": "joblib", "dask": "distributed", "ray": "ray"}
ENGINES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None, reason=f"{package} is not installed"
        ),
    )
    for name, package in PACKAGES.items()
]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions below are of a module that workers import, too."""
    paths = [HERE, *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.fixture(params=ENGINES)
def own(request: pytest.FixtureRequest) -> settings.Engine:
    """Two workers of each engine."""
    return settings.Engine(name=request.param, workers=2)


def run(own: settings.Engine, shared: int, items: list[tuple[int, str]]) -> dict[int, Any]:
    given = ((number, (number, file)) for number, file in items)
    found: dict[int, Any] = {}
    with closing(engine.each(own, doubled, shared, given)) as results:
        for key, result in results:
            assert key not in found, "done twice"
            found[key] = result
    return found


def test_each_item_is_done_once_though_a_worker_is_killed(
    own: settings.Engine, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    items = [(i, str(victim) if i == 3 else "") for i in range(12)]
    found = run(own, -1, items)
    assert {key: value for key, (value, _) in found.items()} == {i: 2 * i for i in range(12)}
    assert not victim.exists()
    assert os.getpid() not in {pid for _, pid in found.values()}
    with pytest.raises(UserError, match=r"^5: is not liked$"):
        run(own, 5, [(i, "") for i in range(8)])


def test_what_kills_every_worker_is_one_line() -> None:
    own = settings.Engine(workers=2)
    said = r"^engine local: the processes that had part . were killed, 4 times"
    with (
        pytest.raises(UserError, match=said),
        closing(engine.each(own, dies, None, [(0, 1), (1, 1)])) as found,
    ):
        list(found)


def test_items_are_taken_as_they_are_needed() -> None:
    taken = []

    def items() -> Iterator[tuple[int, tuple[int, str]]]:
        for i in range(1000):
            taken.append(i)
            yield i, (i, "")

    with closing(engine.each(settings.Engine(workers=2), doubled, -1, items())) as found:
        next(found)
    assert len(taken) <= 6


def test_one_item_is_done_here() -> None:
    assert run(settings.Engine(), -1, [(4, "")]) == {4: (8, os.getpid())}
    assert run(settings.Engine(), -1, []) == {}


def test_what_an_engine_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [(1, ""), (2, "")]
    with pytest.raises(UserError, match=r"^engine.address = tcp://x:1: set engine.name"):
        run(settings.Engine(address="tcp://x:1"), -1, items)
    for name, module in (("dask", "distributed"), ("ray", "ray")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(UserError, match=f"ENGINES = {name} into local.mk") as error:
                run(settings.Engine(name=name), -1, items)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ENGINES)
def test_scores_are_the_same_to_the_last_bit_and_the_journal_too(
    name: Any, trained: Path, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On each engine as one after the other."""
    monkeypatch.setattr(score, "PARTITION", len(sample) // 4)
    bundle = bundles.load(trained / "var/versions/1")
    made = []
    for own in (None, settings.Engine(name=name, workers=2)):
        journal = Journal(f"sqlite:///{own and own.name}.db")
        rows = score.score(bundle, "rows.parquet", "out/", journal, "test", own)
        assert rows == len(sample)
        parts = sorted(Path("out").iterdir())
        assert [part.name for part in parts] == [f"{i:06}.parquet" for i in range(4)]
        made.append(([part.read_bytes() for part in parts], len(journal.rows())))
        journal.close()
    assert made[0] == made[1]
