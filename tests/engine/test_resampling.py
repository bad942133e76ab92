"""Intervals against known answers: rows that are independent, and rows that come in groups."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from flight_delays.evaluation import metric, resampling


def mean(actual: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(actual - predicted))


def rows(rng: np.random.Generator, groups: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share half of their variance with those of their group, and the groups."""
    shared = np.repeat(rng.normal(size=groups), size)
    return shared + rng.normal(size=groups * size), np.repeat(np.arange(groups), size)


@pytest.mark.parametrize(("groups", "size"), [(400, 1), (50, 20), (12, 50)])
def test_the_interval_holds_what_it_promises(
    groups: int, size: int, record_property: Callable[[str, str], None]
) -> None:
    """Equal models surpass the lower bound in 2.5 %, and the interval holds the truth in 95 %."""
    above, inside, tries = 0, 0, 400
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        (own, which), (other, _) = rows(rng, groups, size), rows(rng, groups, size)
        zero = np.zeros_like(own)
        given = which if size > 1 else None
        above += resampling.paired(mean, zero, own, other, given).low >= 0
        inside += abs(mean(own, zero)) <= 1.96 * resampling.spread(mean, own, zero, given)
    shares = f"{above / tries:.1%} (2.5 %) pass, {inside / tries:.1%} (95 %) inside"
    said = f"{groups} groups of {size}: {shares}"
    record_property("said", said)
    # of 400, 20 or more where 10 are meant come once in 200 tries, and so do 366 or fewer of 380
    assert above / tries < 0.05
    assert inside / tries > 0.915


def test_the_error_is_that_of_theory() -> None:
    rng = np.random.default_rng(1)
    values, which = rows(rng, 100, 30)
    zero = np.zeros_like(values)
    apart = resampling.spread(mean, values, zero)
    together = resampling.spread(mean, values, zero, which)
    assert apart == pytest.approx(np.sqrt(2 / 3000), rel=0.3)
    assert together == pytest.approx(np.sqrt((1 + 1 / 30) / 100), rel=0.3)
    # of several ways to group, the one that leaves it least sure counts
    both = np.stack([np.arange(3000), which], axis=1)
    assert resampling.spread(mean, values, zero, both) == together


def test_few_groups_are_told_by_a_wider_interval() -> None:
    values, which = np.repeat([1.0, 2.0, 3.0], 10), np.repeat([0, 1, 2], 10)
    found = resampling.paired(mean, values, np.zeros(30), np.ones(30) * values, which)
    assert (found.high - found.low) / 2 == pytest.approx(4.3027 * np.sqrt(1 / 3), rel=1e-3)


def test_a_metric_that_hangs_on_one_group_promises_nothing() -> None:
    def defined(actual: np.ndarray, predicted: np.ndarray) -> float:
        return 1.0 if (actual == 1).any() else float("nan")

    actual = (np.arange(100) == 7).astype(float)
    assert np.isnan(resampling.spread(defined, actual, actual))
    assert resampling.paired(defined, actual, actual, actual).low == -np.inf
    assert np.isnan(resampling.spread(mean, actual, actual, np.zeros(100, dtype=int)))


def test_days_and_repeated_keys_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "KEY", "who")
    monkeypatch.setattr(resampling, "TIME", "at")
    n = 480
    at = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n), unit="h")
    frame = pd.DataFrame({"who": [f"c{i % 40}" for i in range(n)], "at": at})

    def groups(frame: pd.DataFrame) -> np.ndarray:
        found = resampling.groups_of(frame)
        assert found is not None
        return found

    found = groups(frame)
    assert [len(np.unique(way)) for way in found.T] == [40, 20]
    assert all(len(set(found[frame["who"] == who, 0])) == 1 for who in frame["who"])
    assert len(np.unique(groups(frame[["at"]])[:, 0])) == 20
    # four days are too few to tell days apart: hours
    short = pd.DataFrame(
        {"at": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n) // 5, unit="h")}
    )
    assert len(np.unique(groups(short))) == 96
    # keys of their own and no time, and rows of no key
    alone = pd.DataFrame({"who": [f"c{i}" for i in range(n - 2)] + [None, None]})
    assert resampling.groups_of(alone) is None
    assert resampling.groups_of(frame.iloc[:0]) is None


def test_a_large_hold_out_is_measured_in_little_memory() -> None:
    import tracemalloc

    values = np.random.default_rng(2).normal(size=300_000)
    tracemalloc.start()
    found = resampling.spread(mean, values, np.zeros_like(values))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == pytest.approx(1 / np.sqrt(300_000), rel=0.3)
    assert peak < 12 * values.nbytes


def test_what_was_measured_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "KEPT", 3)
    monkeypatch.setattr(metric, "METRIC", mean)
    metric._MEASURED.clear()
    found = [metric.measure(np.arange(40.0) + i, np.zeros(40)) for i in range(6)]
    assert len(metric._MEASURED) == 3
    assert metric.measure(np.arange(40.0) + 5, np.zeros(40)) is found[-1]
    assert metric.measure(np.arange(40.0), np.zeros(40), np.arange(40) // 4).error > found[0].error
    metric._MEASURED.clear()
