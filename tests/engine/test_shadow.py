"""A shadow: what it says of live rows, what it must not disturb, and a bad candidate it catches."""

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from prometheus_client import generate_latest

from flight_delays import bundle as bundles_module
from flight_delays.monitoring import report
from flight_delays.monitoring import shadow as monitoring
from flight_delays.monitoring.verdict import Verdict
from flight_delays.predict import label
from flight_delays.serving import live as serving_live
from flight_delays.serving.candidate import shadow as shadows
from flight_delays.serving.journal import tables
from flight_delays.serving.journal.queue import Writer
from flight_delays.serving.journal.store import Journal, Record
from flight_delays.serving.metrics import Metrics

from ..helpers import wait_for, write_records
from .conftest import Another

Start = Callable[..., TestClient]
SHADOW = {"shadow": "staging"}
START = datetime(2031, 1, 1)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits long."""
    monkeypatch.setattr(serving_live, "LOOK", 0.02)
    monkeypatch.setattr(shadows, "EVERY", 0.01)


def meters(client: TestClient) -> dict[str, float]:
    """What /metrics says of the candidate."""
    lines = client.get("/metrics").text.splitlines()
    named = ("shadow_", "candidate_", "canary_")
    found = [line.rsplit(" ", 1) for line in lines if line.startswith(named)]
    return {name: float(value) for name, value in found if "_created" not in name}


def ready(client: TestClient) -> bool:
    """Whether the candidate is loaded."""
    return any("candidate_info" in name for name in meters(client))


def predicted(client: TestClient, examples: list[Any], rows: int) -> list[dict[str, Any]]:
    """The answers to some rows, the first of them alone."""
    asked = [{"features": example["features"]} for example in examples[:rows]]
    one = client.post("/predictions", json=asked[0]).json()
    many = client.post("/predictions/batch", json={"rows": asked[1:]}).json()
    return [one, *many["predictions"]]


@pytest.mark.problem
@pytest.mark.format
def test_a_shadow_predicts_what_was_answered_and_is_in_no_answer(
    start: Start, staging: Path, examples: list[Any], journal_url: str
) -> None:
    plain = start(journal={"url": f"{journal_url}-other"})
    client = start(serving=SHADOW)
    wait_for(lambda: ready(client))
    answers, without = (predicted(c, examples, 20) for c in (client, plain))
    assert [a | {"id": ""} for a in answers] == [a | {"id": ""} for a in without]
    name = 'shadow_predictions_total{version="2"}'
    wait_for(lambda: meters(client).get(name) == 20)
    found = meters(client)
    assert found['shadow_difference_total{version="2"}'] == pytest.approx(0, abs=1e-6)
    assert (found["shadow_dropped_total"], found["candidate_refused"]) == (0, 0)
    assert not meters(plain)
    digest = bundles_module.digest_of(staging / "2")
    journal = Journal(journal_url)
    shadow = "2", digest
    kept = wait_for(lambda: (r := journal.shadowed(shadow, "1"))[19:] and r)
    journal.close()
    assert [row.served for row in kept] == [row.shadow for row in kept]


def test_a_load_test_and_what_is_served_itself_have_no_shadow(
    start: Start, staging: Path, examples: list[Any]
) -> None:
    shutil.copytree(staging / "2", staging / "1")
    (staging / "current").write_text("1")
    client = start(serving=SHADOW)
    wait_for(lambda: ready(client))
    predicted(client, examples, 5)
    client.headers["x-load-test"] = "1"
    predicted(client, examples, 5)
    app: Any = client.app
    wait_for(lambda: not app.state.service.shadow._rows)
    assert 'shadow_predictions_total{version="1"}' not in meters(client)


def test_what_cannot_be_kept_up_with_is_dropped_and_counted(
    start: Start, staging: Path, examples: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "ROWS", 5)
    go = threading.Event()
    plain = shadows.Shadow._turn

    def slow(shadow: Any) -> None:
        go.wait(30)
        plain(shadow)

    monkeypatch.setattr(shadows.Shadow, "_turn", slow)
    client = start(serving=SHADOW)
    wait_for(lambda: ready(client))
    assert len(predicted(client, examples, 20)) == 20, "answered while the shadow stands still"
    assert meters(client)["shadow_dropped_total"] == 15
    go.set()
    wait_for(lambda: meters(client).get('shadow_predictions_total{version="2"}') == 5)


def test_without_a_candidate_it_waits_for_one(
    start: Start, bundles: Path, examples: list[Any]
) -> None:
    client = start(serving=SHADOW)
    predicted(client, examples, 5)
    folder = bundles.parent / "staging"
    shutil.copytree(bundles / "1", folder / "2")
    (folder / "current").write_text("2")
    wait_for(lambda: ready(client))
    predicted(client, examples, 5)
    wait_for(lambda: meters(client).get('shadow_predictions_total{version="2"}') == 5)


def test_another_contract_is_no_error_of_the_served_model(
    start: Start, staging: Path, examples: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    manifest = staging / "2" / "manifest.json"
    read = bundles_module.Manifest.model_validate_json(manifest.read_text())
    read.contract = "another"
    manifest.write_text(read.model_dump_json())
    client = start(serving=SHADOW)
    wait_for(lambda: meters(client)["candidate_refused"] == 1)
    assert len(predicted(client, examples, 3)) == 3
    assert client.get("/readyz").status_code == 200
    assert "bundle_refused 0.0" in client.get("/metrics").text
    (refused,) = [r for r in caplog.records if "follows contract" in r.getMessage()][:1]
    assert "staging" in refused.getMessage()


def test_rows_without_an_answer_are_kept_as_such(
    start: Start, staging: Path, examples: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bundles_module.Bundle.scores_or_nan

    def some(bundle: Any, columns: Any) -> Any:
        scores = plain(bundle, columns)
        scores[:2] = np.nan
        return scores

    client = start(serving=SHADOW)
    wait_for(lambda: ready(client))
    monkeypatch.setattr(bundles_module.Bundle, "scores_or_nan", some)
    client.post("/predictions/batch", json={"rows": [{"features": examples[0]["features"]}] * 9})
    wait_for(lambda: meters(client).get('shadow_failed_total{version="2"}') == 2)
    assert meters(client)['shadow_predictions_total{version="2"}'] == 7


# In the journal


def records(rows: int) -> list[Any]:
    return [
        Record(
            f"id{n}", f"key{n % 50}", START + timedelta(hours=n), "1", "c", {}, {"prediction": 1}
        )
        for n in range(rows)
    ]


def said(journal: Journal, ids: list[str], answer: Any = None, bundle: str = "digest") -> None:
    lines = [tables.shadow_line(id, "2", bundle, answer or {"prediction": 1}) for id in ids]
    journal.insert_shadows(lines)


def test_erasure_and_retention_reach_what_a_shadow_said(journal: Journal) -> None:
    def left() -> int:
        with journal.engine.connect() as connection:
            return connection.exec_driver_sql("SELECT count(*) FROM shadows").scalar_one()

    write_records(journal, records(5))
    said(journal, [f"id{n}" for n in range(5)] + ["nobody"])
    said(journal, ["id0"], {"prediction": 2})
    assert left() == 5
    rows = journal.shadowed(("2", "digest"), "1")
    assert [(row.key, row.shadow) for row in rows][:1] == [("key0", {"prediction": 1})]
    assert journal.shadowed(("2", "other"), "1") == []
    assert journal.erase("id0")
    assert left() == 4
    assert journal.erase_key("key1") == 1
    assert left() == 3
    assert journal.prune(datetime(3000, 1, 1)) == 3
    assert left() == 0


def test_no_shadow_is_written_before_its_prediction(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(journal, interval=60, max_lines=100)
    plain, more = journal.insert_predictions, records(5)

    def answer() -> None:
        record = more.pop()
        writer.add(tables.line(*record[:7]))
        writer.add_shadow(tables.shadow_line(record.id, "2", "digest", {"prediction": 1}))

    def while_another_comes(lines: Any) -> None:
        plain(lines)
        if more:
            answer()

    monkeypatch.setattr(journal, "insert_predictions", while_another_comes)
    answer()
    while writer.waiting:
        writer.flush()
    assert len(journal.shadowed(("2", "digest"), "1")) == 5


# Without labels, and with them


@pytest.fixture
def live(bundle_dir: Path, tmp_path: Path) -> Iterator[Callable[..., monitoring.Compared]]:
    """Compares a shadow that is so often right with a served model that is right in 9 of 10."""
    classes = bundles_module.load(bundle_dir).manifest.classes
    journal = Journal(f"sqlite:///{tmp_path}/live.db")

    def answer(value: Any) -> dict[str, Any]:
        if classes is None:
            return {"prediction": float(value)}
        keys = [label(c) for c in classes]
        shares = {
            k: 0.8 if c == value else 0.2 / (len(keys) - 1)
            for k, c in zip(keys, classes, strict=True)
        }
        return {"prediction": value, "probabilities": shares}

    def compared(right: float, rows: int = 600, labelled: bool = True) -> monitoring.Compared:
        random = np.random.default_rng(0)
        truth = [random.choice(2) if classes is None else classes[n % 2] for n in range(rows)]
        truth = [value.item() if hasattr(value, "item") else value for value in truth]

        def guess(value: Any, share: float) -> Any:
            if random.random() < share:
                return answer(value)
            return answer(1 - value if classes is None else classes[1 - classes.index(value)])

        served = [
            r._replace(prediction=guess(value, 0.9), outcome=value if labelled else None)
            for r, value in zip(records(rows), truth, strict=True)
        ]
        write_records(journal, served)
        lines = [
            tables.shadow_line(r.id, "2", "digest", guess(value, right))
            for r, value in zip(served, truth, strict=True)
        ]
        journal.insert_shadows(lines)
        return monitoring.compare(journal, ("2", "digest"), "1", 0.1)

    yield compared
    journal.close()


@pytest.mark.problem
def test_a_shadow_that_is_worse_is_told(live: Any) -> None:
    found = live(0.5)
    assert (found.rows, found.failed, found.labelled) == (600, 0, 600)
    assert found.surely_below(0.0)
    alike = found.agreement if found.difference is None else 1 - found.difference
    assert 0.4 < alike < 0.6
    line = found.told("metric")
    assert "version 2 predicted 600 rows" in line
    assert "surely worse" in line
    kept = dataclasses.asdict(found) | {"said": line}
    seen = Verdict("ok", "fine", "production", "1", shadow=kept)
    assert f"{line}." in report.page(dataclasses.asdict(seen))


@pytest.mark.problem
def test_without_labels_only_agreement_and_scores_are_told(live: Any) -> None:
    found = live(0.9, labelled=False)
    assert (found.labelled, found.metric, found.gain_high) == (0, None, None)
    assert found.distance < 0.2
    assert "labelled" not in found.told("metric")


@pytest.mark.parametrize(
    ("says", "agreement", "labelled"),
    [({"0": 0.6, "1": 0.2, "2": 0.2}, 1.0, 40), ({"2": 0.6, "3": 0.4}, 0.0, 0)],
)
def test_classes_that_one_of_them_does_not_know_are_left_out(
    tmp_path: Path, says: dict[str, float], agreement: float, labelled: int
) -> None:
    journal = Journal(f"sqlite:///{tmp_path}/journal.db")
    answer = {"prediction": 0, "probabilities": {"0": 0.7, "1": 0.3}}
    rows = [r._replace(prediction=answer, outcome=n % 3) for n, r in enumerate(records(60))]
    write_records(journal, rows)
    shadow = {"prediction": int(next(iter(says))), "probabilities": says}
    said(journal, [r.id for r in rows], shadow)
    found = monitoring.compare(journal, ("2", "digest"), "1", 0.1)
    journal.close()
    assert (found.rows, found.agreement, found.labelled) == (60, agreement, labelled)
    assert (found.distance is None) is (labelled == 0)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_what_the_monitor_found_is_in_the_metrics(tmp_path: Path) -> None:
    found = monitoring.Compared("2", 600, 0, agreement=0.9, metric=0.8, metric_served=0.7)
    seen = Verdict("ok", "fine", "production", "1", shadow=dataclasses.asdict(found))
    (tmp_path / "monitor.json").write_text(json.dumps(dataclasses.asdict(seen)))
    metrics = Metrics(None, tmp_path / "monitor.json")
    metrics.served = "1"
    text = generate_latest(metrics.registry).decode()
    for line in ("agreement 0.9", "metric 0.8", "metric_served 0.7", "rows 600.0"):
        assert f"\nmonitor_shadow_{line}\n" in text
    assert "shadow_gain" not in text


def test_the_same_model_is_not_worse(live: Any) -> None:
    assert not live(0.9).surely_below(0.0)


# The gate of production


def train(own: Any, frame: pd.DataFrame) -> str:
    """Trains a version on a table."""
    settings, connect = own("settings").load, own("registry.store").connect
    frame.to_csv("rows.csv", index=False)
    snapshots = own("training.snapshots")
    given = settings(data={"journal": False}, train={"folds": 2, "windows": (1.0,)})
    registry = connect(given)
    version: str = own("training.train").train(given, registry, snapshots.snapshot(given)).version
    return version


def table(seed: int, rows: int, leak: Any) -> pd.DataFrame:
    """Rows whose label is x > 0 in nine of ten; `leak` makes a column of the labels."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    y = ((x > 0) ^ (random.random(rows) < 0.1)).astype(int)
    return pd.DataFrame(
        {"id": [f"{seed}-{n}" for n in range(rows)], "x": x, "leak": leak(y), "y": y}
    )


def test_a_bad_candidate_that_passes_the_offline_gate_is_caught_by_the_shadow(
    another: Another, home: Path, tmp_path: Path
) -> None:
    """In the candidate's table a column was filled in once the label was known: on all rows there
    are it is perfect. When a prediction is asked for, the column is empty."""
    own = another("x: float\nleak: float | None = None")
    shutil.copytree(home / "var", "var")  # an empty registry, made already
    url = f"sqlite:///{tmp_path}/live.db"
    flags = {
        "gates": {"load": False, "shadow_rows": 400},
        "journal": {"url": url},
        "data": {"journal": False},
        "serving": {"bundles": tmp_path / "served", "shadow": "staging"},
    }
    settings = own("settings").load(**flags)
    registry = own("registry.store").connect(settings)
    promote, refused = own("registry.promote").promote, own("registry.promote").Refused
    first = train(own, table(0, 2000, lambda y: np.arange(len(y)) % 2))
    assert promote("staging", settings, registry, version=first)
    assert promote("production", settings, registry), "nothing was served that it could run beside"
    candidate = train(own, pd.concat([table(n, 2000, lambda y: y) for n in (0, 1)]))
    assert promote("staging", settings, registry, version=candidate), "better offline"
    with pytest.raises(refused, match=r"predicted 0 rows; 400 beside version 1 are needed"):
        promote("production", settings, registry)

    without = own("settings").load(**flags | {"journal": {"url": ""}})
    with pytest.raises(refused, match="set JOURNAL_URL"):
        promote("production", without, registry)

    for environment, version in (("production", "1"), ("staging", candidate)):
        folder = settings.serving.bundles / environment
        registry.pull(version, folder, environment)
        (folder / "current").write_text(version)
    journal = own("serving.journal.store").journal_at(url)
    app = own("serving.app").create_app(
        folder.parent / "production", journal, settings, "production"
    )
    own("serving.candidate.shadow").EVERY = 0.01
    live = table(2, 500, lambda y: np.full(len(y), np.nan))
    with TestClient(app) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        wait_for(lambda: "candidate_info{" in client.get("/metrics").text)
        rows = [{"features": {"x": x}} for x in live["x"]]
        answers = client.post("/predictions/batch", json={"rows": rows}).json()["predictions"]
        wait_for(
            lambda: meters(client).get(f'shadow_predictions_total{{version="{candidate}"}}') == 500
        )
        assert {answer["version"] for answer in answers} == {"1"}
    journal = own("serving.journal.store").journal_at(url)
    outcome_line = own("serving.journal.tables").outcome_line
    lines = [outcome_line(a["id"], int(y)) for a, y in zip(answers, live["y"], strict=True)]

    journal.insert_outcomes(lines[:100])
    seen = gate(own, candidate, settings, registry)
    assert seen.passed, "labels too few to decide"
    assert "300 labelled rows decide" in seen.detail
    journal.insert_outcomes(lines)
    with pytest.raises(refused, match=r"on 500 labelled rows, surely worse;"):
        promote("production", settings, registry)
    assert registry.alias("production") == "1"
    verdict = own("monitoring.monitor").run(settings, registry, journal)
    assert verdict.shadow["gain_high"] < 0
    assert "surely worse" in verdict.shadow["said"]
    journal.close()


def gate(own: Any, version: str, settings: Any, registry: Any) -> Any:
    """What the gate says of a version."""
    module = own("registry.gates")
    bundle = own("bundle").load(registry.pull(version, Path("var/versions")))
    candidate = module.Candidate(bundle, version, "1", "")
    return module._shadow_gate(candidate, settings)
