"""The verdict: on streams whose answer is known, and on a journal of the project's own rows."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flight_delays import bundle as bundles
from flight_delays import predict
from flight_delays.errors import UserError
from flight_delays.evaluation import metric
from flight_delays.monitoring import concept, drift, monitor, report
from flight_delays.monitoring.verdict import Verdict
from flight_delays.project import target
from flight_delays.registry.base import Registry
from flight_delays.registry.store import connect
from flight_delays.serving.journal.store import Journal, Record
from flight_delays.settings import Monitor, Settings, load
from flight_delays.training import snapshots

from ..helpers import write_records

START, SIZE, SEEDS = datetime(2024, 1, 1), 500, 40
RULES = Monitor(window=SIZE)
DELAY = timedelta(days=1)
"""Until a label comes."""


Row = dict[str, Any]


class Rows:
    """A journal in memory."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def rows(
        self,
        version: str | None = None,
        labelled: bool | None = None,
        limit: int | None = None,
        environment: str | None = None,
        since: datetime | None = None,
        every: int = 1,
    ) -> list[Record]:
        kept = [
            r
            for r in self.records
            if (version is None or r.version == version)
            and (labelled is None or labelled == (r.outcome is not None))
            and (since is None or r.at >= since)
        ][::every]
        return kept[-limit:] if limit else kept

    def count(self, *given: Any, **named: Any) -> int:
        return len(self.rows(*given, **named))


class World:
    """River's Agrawal generator: rows, labels by one of ten known rules, a model of rule 0."""

    def __init__(self) -> None:
        from river.datasets.synth import Agrawal
        from sklearn.tree import DecisionTreeClassifier

        self.x, self.y = [], []
        for rule in (0, 2):
            stream = list(
                Agrawal(classification_function=rule, seed=rule, perturbation=0.3).take(6000)
            )
            self.x.append([{k: float(v) for k, v in x.items()} for x, _ in stream])
            self.y.append(np.array([y for _, y in stream]))
        tree = DecisionTreeClassifier(min_samples_leaf=50, random_state=0)
        tree.fit(self.matrix(self.x[0][:2000]), self.y[0][:2000])
        self.p = [tree.predict_proba(self.matrix(x)) for x in self.x]
        held = slice(2000, 3500)
        self.reference = drift.reference(self.columns(self.x[0][:2000]), self.p[0][held])
        self.reference["baseline"] = concept.baseline(self.y[0][held], self.p[0][held])
        manifest = SimpleNamespace(classes=[0, 1], metrics={})
        self.bundle: Any = SimpleNamespace(manifest=manifest, reference=self.reference)

    @staticmethod
    def matrix(rows: Sequence[Row]) -> np.ndarray:
        return np.array([list(row.values()) for row in rows])

    @staticmethod
    def columns(rows: Sequence[Row]) -> dict[str, np.ndarray]:
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def records(
        self,
        seed: int,
        windows: int,
        changed_after: int | None = None,
        where: Callable[[Row], bool] | None = None,
    ) -> list[Record]:
        """Rows drawn anew; rule 0 holds, and after `changed_after` windows rule 2."""
        rng, made = np.random.default_rng(seed), []
        for i in range(windows * SIZE):
            rule = 1 if changed_after is not None and i >= changed_after * SIZE else 0
            while where is not None and i >= SIZE:
                at = rng.integers(3500, 6000)
                if where(self.x[rule][at]):
                    break
            else:
                at = rng.integers(3500, 6000)
            p = self.p[rule][at].tolist()
            prediction = {"prediction": int(p[1] > p[0]), "probabilities": {"0": p[0], "1": p[1]}}
            when = START + timedelta(hours=i)
            made.append(Record(str(i), None, when, "1", "c", self.x[rule][at], prediction,
                               int(self.y[rule][at]), when + DELAY, written=when))  # fmt: skip
        return made


def accuracy(actual: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(predicted.argmax(axis=1) == actual))


made = cache(World)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(metric, "MAIN", "accuracy")
    monkeypatch.setattr(metric, "METRIC", accuracy)
    monkeypatch.setattr(metric, "GREATER_IS_BETTER", True)
    monkeypatch.setattr(monitor, "derived", lambda rows: World.columns([r.features for r in rows]))
    return made()


def memory(records: list[Record]) -> Any:
    """Rows, in the place of a journal."""
    return Rows(records)


def judge(world: World, records: list[Record], rules: Monitor = RULES) -> Verdict:
    seen = Verdict("unknown", "", "production", "1")
    now = records[-1].at if records else START
    monitor.watch(seen, world.bundle, memory(records), rules, now)
    return seen


def test_no_drift_stays_quiet(world: World, record_property: Callable[[str, str], None]) -> None:
    found = [judge(world, world.records(seed, 5)).verdict for seed in range(SEEDS)]
    said = f"no drift: {found.count('retrain')} retrain, {found.count('warn')} warn of {SEEDS}"
    record_property("said", said)
    assert found.count("retrain") <= 0.05 * SEEDS
    assert found.count("warn") <= 0.1 * SEEDS
    assert "unknown" not in found


def test_a_changed_rule_is_found(world: World, record_property: Callable[[str, str], None]) -> None:
    found = [judge(world, world.records(seed, 4, changed_after=2)) for seed in range(SEEDS)]
    hits = [v.verdict for v in found].count("retrain")
    heard = sum(any(change["row"] >= 2 * SIZE for change in v.adwin) for v in found)
    record_property("said", f"changed rule: {hits} retrain of {SEEDS}; ADWIN heard it in {heard}")
    assert hits >= 0.9 * SEEDS
    assert heard >= 0.9 * SEEDS


def test_moved_data_warn_and_do_not_retrain(world: World) -> None:
    found = [
        judge(world, world.records(seed, 4, where=lambda row: row["car"] > 8)) for seed in range(10)
    ]
    assert [v.verdict for v in found] == ["warn"] * 10
    assert all(v.columns["car"]["confirmed"] and "car" in v.reason for v in found)


def test_what_was_not_seen_is_unknown(world: World) -> None:
    rows = world.records(0, 12)
    silent = [r._replace(outcome=None, labelled_at=None) for r in rows]
    for records, why in (
        ([], "version 1 has 0 labelled rows"),
        (silent[:20], "0 labelled rows"),
        (rows[: SIZE - 1], "499 labelled rows; needed: 500"),
        (rows[: 6 * SIZE] + silent[6 * SIZE :], "labels stopped"),
        ([r._replace(outcome="other") for r in rows], "0 labelled rows"),
    ):
        seen = judge(world, records)
        assert (seen.verdict, why in seen.reason) == ("unknown", True), seen.reason
        json.dumps(seen.__dict__, allow_nan=False)


def test_what_was_promoted_lately_is_new_as_long_as_labels_come(world: World) -> None:
    rows = world.records(0, 4)
    fresh = [r._replace(version="2") for r in rows[-20:]]
    for records, verdict in ((rows[:-20] + fresh, "new"), (rows[:-20], "new"), (fresh, "unknown")):
        seen = Verdict("unknown", "", "production", "2")
        monitor.watch(seen, world.bundle, memory(records), RULES, records[-1].at)
        assert seen.verdict == verdict, seen.reason
    late = rows[-1].at + timedelta(days=60)
    seen = Verdict("unknown", "", "production", "2")
    waiting = [r._replace(outcome=None, labelled_at=None, at=late, written=late) for r in fresh * 3]
    monitor.watch(seen, world.bundle, memory(rows + waiting), RULES, late + timedelta(days=9))
    assert (seen.verdict, "labels stopped" in seen.reason) == ("unknown", True), seen.reason


def test_what_is_late_is_not_missing(world: World) -> None:
    """A busy service, whose newest rows wait for their labels as all rows did."""
    rows = world.records(0, 12)
    busy = [
        r._replace(labelled_at=at)
        if at <= rows[-1].at - timedelta(hours=1)
        else r._replace(outcome=None, labelled_at=None)
        for r, at in [(r, r.at + timedelta(days=200)) for r in rows]
    ]
    assert sum(r.outcome is None for r in busy) > len(rows) * 0.7
    assert judge(world, busy).verdict == "ok", judge(world, busy).reason
    assert not monitor.overdue(memory(busy), "production", rows[-1].at)
    dead = rows[-1].at + timedelta(days=401)
    assert "labels stopped" not in monitor.overdue(memory(busy), "production", dead)
    dead = rows[-1].at + timedelta(days=800)
    assert "labels stopped" in monitor.overdue(memory(busy), "production", dead)


def test_windows_may_be_days_and_weeks(world: World) -> None:
    rows = world.records(0, 4)  # a row each hour
    for window, each in (("week", 7 * 24), ("day", None)):
        seen = judge(world, rows, Monitor(window=window))
        if each is None:
            assert not seen.windows, "a day has 24 rows, and fewer than 30 make no window"
            assert "a whole day of 30 or more" in seen.reason
        else:
            whole = [w for w in seen.windows if w["rows"] == each]
            assert len(whole) >= 9
            assert all(datetime.fromisoformat(w["from"]).weekday() == 0 for w in whole)


def test_what_goes_round_within_the_week_is_no_drift(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty rows an hour, none at night or on Sundays: hour and weekday stay where they were."""

    def around(weeks: int, hours: range) -> list[tuple[datetime, Row]]:
        found = []
        for hour in range(weeks * 7 * 24):
            at = START + timedelta(hours=hour)
            if at.hour in hours and at.weekday() < 6:
                row = {"hour": float(at.hour), "weekday": float(at.weekday())}
                found += [(at + timedelta(minutes=3 * i), row) for i in range(20)]
        return found

    monkeypatch.setattr(monitor, "TIME", "when")
    usual, shifted = around(12, range(6, 22)), around(12, range(0, 6))
    columns = World.columns([row for _, row in usual])
    reference = drift.reference(columns)
    days = np.array([(at - START).days for at, _ in usual])
    reference["spread"] = {
        "day": drift.spread(reference, columns, days),
        "week": drift.spread(reference, columns, days // 7),
    }
    bundle: Any = SimpleNamespace(
        manifest=SimpleNamespace(classes=[0, 1], metrics={}), reference=reference
    )
    answer = {"prediction": 0, "probabilities": {"0": 0.6, "1": 0.4}}
    for rows, moved in ((usual, set()), (shifted, {"hour"})):
        for cut in (1, 77, 200, 500):
            records = [
                Record(str(i), None, at, "1", "c", row, answer)
                for i, (at, row) in enumerate(rows[: len(rows) - cut])
            ]
            seen = Verdict("unknown", "", "production", "1")
            monitor.watch(seen, bundle, memory(records), RULES, records[-1].at)
            confirmed = {name for name, found in seen.columns.items() if found["confirmed"]}
            assert confirmed == moved, seen.columns


def test_of_texts_it_is_said_that_only_their_length_is_watched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = world.records(0, 4)
    texts = np.array([f"{i} came by and said {i * 7}" for i in range(2000)], dtype=object)
    monkeypatch.setattr(
        monitor, "derived", lambda rows: {"note": texts[: len(rows)], "age": np.arange(len(rows))}
    )
    columns = {"note": texts, "age": np.arange(2000.0)}
    monkeypatch.setitem(world.reference, "columns", drift.reference(columns)["columns"])
    seen = judge(world, rows)
    assert seen.texts == ["note"]
    assert "of note only the length is watched" in seen.reason
    assert "said 7" not in json.dumps(world.reference)
    made = report.page(json.loads(json.dumps(seen.__dict__)))
    assert "Of note only the length is watched" in made


def test_rows_of_another_contract_are_never_called_good(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise KeyError("age")

    monkeypatch.setattr(monitor, "derived", refuse)
    seen = judge(world, world.records(0, 4))
    assert (seen.verdict, "could not be measured" in seen.reason) == ("warn", True), seen.reason


def test_an_undefined_metric_is_unknown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "METRIC", lambda actual, predicted: float("nan"))
    seen = judge(world, world.records(0, 2))
    assert seen.verdict == "unknown"
    assert "not defined" in seen.reason


def test_windows_stay_where_they_are_when_rows_are_added(world: World) -> None:
    rows = world.records(0, 4)
    before, after = judge(world, rows[: 3 * SIZE + 7]), judge(world, rows)
    assert before.windows == after.windows[:3]
    assert judge(world, rows) == after


def test_values_are_judged_as_classes_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metric, "METRIC", lambda actual, predicted: float(np.abs(actual - predicted).mean())
    )
    monkeypatch.setattr(metric, "GREATER_IS_BETTER", False)
    rng = np.random.default_rng(0)
    at = world.columns(world.x[0][:2000])
    errors = rng.exponential(size=600)
    reference = drift.reference(at, at["age"][:600])
    reference["baseline"] = concept.baseline(at["age"][:600] + errors, at["age"][:600])
    bundle: Any = SimpleNamespace(
        manifest=SimpleNamespace(classes=None, metrics={}), reference=reference
    )
    for factor, verdict in ((1.0, "ok"), (0.5, "ok"), (1.5, "retrain")):
        records = [
            r._replace(prediction={"prediction": r.features["age"]},
                       outcome=r.features["age"] + factor * rng.exponential())
            for r in world.records(1, 3)
        ]  # fmt: skip
        seen = Verdict("unknown", "", "production", "1")
        monitor.watch(seen, bundle, memory(records), RULES, records[-1].at)
        assert seen.verdict == verdict, seen.reason


# The project's own rows, model, metric, journal and registry.


def journal_of(settings: Settings, registry: Registry, repeat_first: bool) -> Journal:
    """The rows trained on, shuffled, served by version 1 and labelled; or one of them each time."""
    loaded = bundles.load(registry.pull("1", Path("var/versions")))
    frame = snapshots.snapshot(settings).read().sample(frac=1, random_state=0)
    records = snapshots.records(frame[snapshots.FIELDS])
    if repeat_first:
        records = records[:1] * len(records)
    rows = bundles.ROWS.validate_python(records)
    answers = predict.predict(loaded, rows)
    outcomes = frame[target.TARGET].tolist()
    journal = Journal(settings.journal.url)
    write_records(
        journal,
        [
            Record(str(i), None, START + timedelta(minutes=i), "1", loaded.manifest.contract,
                   row.model_dump(mode="json"), answer, outcome)
            for i, (row, answer, outcome) in enumerate(zip(rows, answers, outcomes, strict=True))
        ],
    )  # fmt: skip
    return journal


@pytest.mark.problem
def test_windows_stay_where_they_are_when_only_the_newest_rows_are_read(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(monitor={"window": 40})
    registry = connect(settings)
    registry.set_alias("production", "1")
    journal = journal_of(settings, registry, False)
    everything = monitor.run(settings, registry, journal).windows
    monkeypatch.setattr(monitor, "LIMIT", 90)
    newest = monitor.run(settings, registry, journal).windows
    journal.close()
    assert 1 <= len(newest) <= 2
    assert newest == everything[-len(newest) :]


@pytest.mark.problem
@pytest.mark.parametrize("repeat_first", [False, True])
def test_the_whole_way(trained: Path, repeat_first: bool) -> None:
    rows = len(snapshots.snapshot(load()).read())
    settings = load(monitor={"window": max(30, rows // 8)})
    registry = connect(settings)
    journal = journal_of(settings, registry, repeat_first)
    nothing = monitor.run(settings, registry, journal)
    assert (nothing.verdict, "holds no version" in nothing.reason) == ("unknown", True)
    registry.set_alias("production", "1")
    assert "no journal" in monitor.run(settings, registry, None).reason
    seen = monitor.run(settings, registry, journal)
    again = monitor.run(settings, registry, journal)
    journal.close()
    assert seen.verdict != "unknown", seen.reason
    assert {**seen.__dict__, "at": again.at} == again.__dict__
    stored = json.loads(Path("reports/monitor.json").read_text())
    assert stored["verdict"] == seen.verdict
    assert len(list(Path("reports/monitor").glob("1-2024*.json"))) == 1
    tags = next(v.tags for v in registry.versions() if v.version == "1")
    assert json.loads(tags["monitor"])["verdict"] == seen.verdict
    drifted = [name for name, found in seen.columns.items() if found["confirmed"]]
    assert bool(drifted) == repeat_first, drifted


@pytest.mark.parametrize("changed_after", [0, None])
def test_the_report_says_it_in_words(
    world: World, tmp_path: Path, changed_after: int | None
) -> None:
    found = judge(world, world.records(0, 3, changed_after=changed_after))
    (tmp_path / "monitor.json").write_text(json.dumps(found.__dict__))
    made = report.write(tmp_path / "monitor.json", tmp_path / "monitor.html").read_text()
    assert (found.verdict == "retrain") == (changed_after == 0)
    assert report.WORDS[found.verdict] in made
    assert found.reason in made
    assert made.count("data:image/svg+xml") == 3
    assert "http" not in made.replace("http-equiv", "")
    assert "nan" not in made.split("<h2>", 1)[0]


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make monitor"):
        report.write(tmp_path / "monitor.json", tmp_path / "monitor.html")
    empty = Verdict("unknown", "<nothing> is served", "production")
    made = report.page(json.loads(json.dumps(empty.__dict__)))
    assert "could not check" in made
    assert "&lt;nothing&gt;" in made
