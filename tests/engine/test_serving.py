"""The API: predictions, the journal's routes, whatever clients may send, and swaps under load."""

import asyncio
import gc
import gzip
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from fastapi.testclient import TestClient

from flight_delays import contract
from flight_delays.bundle import load as load_bundle
from flight_delays.contract import KINDS
from flight_delays.project.features import Features
from flight_delays.serving import gather, logs, schemas, service
from flight_delays.serving import run as running
from flight_delays.serving.journal import queue, store
from flight_delays.serving.live import Served
from flight_delays.serving.metrics import Metrics
from flight_delays.serving.service import TIME_FEATURE as TIME
from flight_delays.settings import load as load_settings

from ..helpers import wait_for
from .servers import SOURCE, Client, Server, serving

FIELDS = Features.model_fields


def near(value: Any) -> Any:
    """What equals a prediction: a label itself, or a number that is almost it."""
    return pytest.approx(value, rel=1e-5) if isinstance(value, float) else value


def state(client: TestClient) -> service.Service:
    app: Any = client.app
    found: service.Service = app.state.service
    return found


def records(url: str) -> list[Any]:
    journal = store.Journal(url)
    try:
        return journal.rows()
    finally:
        journal.close()


# Predictions


@pytest.mark.problem
@pytest.mark.format
def test_rows_of_one_turn_share_a_run_and_are_not_mixed_up(
    client: TestClient, examples: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = state(client).live
    asks = [schemas.PredictionRequest(features=e["features"]) for e in examples[:50]]
    mine = service.Service(live, None, state(client).metrics)
    sizes = []
    run = mine.one.run

    def counted(rows: Sequence[Any]) -> Any:
        sizes.append(len(rows))
        return run(rows)

    mine.one.run = counted

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(mine.one(ask) for ask in asks))

    together = asyncio.run(all_at_once())
    alone: list[Any] = [mine._answers(mine.served, [ask])[0] for ask in asks]
    assert sizes == [50]
    for one, other in zip(together, alone, strict=True):
        assert one["prediction"] == near(other["prediction"])


def test_one_row_without_an_answer_does_not_spoil_the_others(
    client: TestClient, features: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = service.Service(state(client).live, None, state(client).metrics)
    ask = schemas.PredictionRequest(features=features)
    poison = ask.model_copy()
    read = service.columns

    def columns(rows: list[Any]) -> Any:
        if any(row is poison.features for row in rows):
            raise ValueError("a field: no place in a column")
        return read(rows)

    poison.features = ask.features.model_copy()
    monkeypatch.setattr(service, "columns", columns)

    async def three() -> list[Any]:
        asked = (mine.one(ask), mine.one(poison), mine.one(ask))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    first, second, third = asyncio.run(three())
    assert isinstance(first, dict)
    assert isinstance(second, service.Unanswerable)
    assert isinstance(third, dict)


@pytest.mark.problem
@pytest.mark.format
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("c is 'zz', which training did not see"), 422, "c is 'zz'"),
        (ValueError(), 422, "ValueError"),
        (RuntimeError("ours"), 500, "went wrong here"),
    ],
)
def test_a_row_that_the_model_refuses_is_named_and_a_fault_of_ours_is_none_of_the_clients(
    client: TestClient,
    features: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    said: str,
) -> None:
    bundle = state(client).served.bundle
    predictor, good = (
        bundle.predictor,
        bundle.derived(contract.columns([Features(**features)])),
    )
    name = bundle.manifest.numbers[0]
    bad = features | {n: 12345.0 for n in numbers() if n == name}
    if bad == features:
        pytest.skip("the model sees no raw number first")
    first = float(good[name][0])

    def refuses(left: Any, right: Any) -> Any:
        if (abs(left[:, 0] - first) > 1e-3).any():
            raise error
        return predictor(left, right)

    monkeypatch.setitem(bundle.__dict__, "predictor", refuses)
    one = client.post("/predictions", json={"features": bad})
    rows = [{"features": features}, {"features": bad}, {"features": features}]
    many = client.post("/predictions/batch", json={"rows": rows})
    assert (one.status_code, said in one.text) == (status, True)
    assert (many.status_code, said in many.text) == (status, True)
    assert ("rows.1" in many.text) == (status == 422)
    assert client.post("/predictions", json={"features": features}).status_code == 200


def test_a_run_of_the_model_has_a_bound() -> None:
    sizes = []

    def run(rows: Sequence[int]) -> list[int]:
        sizes.append(len(rows))
        return [-row for row in rows]

    answer = gather.Gather(run, lambda: False)

    async def many() -> list[int]:
        first = asyncio.gather(*(answer(i) for i in range(3 * gather.MOST + 5)))
        await asyncio.sleep(0)
        return [*await first, await answer(-1)]

    assert asyncio.run(many()) == [*(-i for i in range(3 * gather.MOST + 5)), 1]
    assert sizes == [gather.MOST] * 3 + [5, 1]


def test_a_slow_model_holds_up_nobody(
    client: TestClient, features: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, sizes = state(client).served, []
    fast = served.bundle.predictor

    def slow(left: Any, right: Any) -> Any:
        sizes.append(len(left))
        time.sleep(0.5)
        return fast(left, right)

    monkeypatch.setitem(served.bundle.__dict__, "predictor", slow)
    served.try_once()  # as it is done when it is loaded
    assert served.seconds > service.SLOW
    asked: list[int] = []

    def ask() -> None:
        asked.append(client.post("/predictions", json={"features": features}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(sizes) == 2)
    start = time.monotonic()
    for _ in range(5):
        assert client.get("/healthz").status_code == 200
        assert client.post("/predictions", json={}).status_code == 422
    assert time.monotonic() - start < 0.4
    for thread in threads:
        thread.join()
    assert asked == [200] * 4
    assert sum(sizes) == 5
    assert len(sizes) <= 4, "what comes meanwhile shares the next run"

    # Fast again, it is soon back where a thread costs nothing.
    monkeypatch.setitem(served.bundle.__dict__, "predictor", fast)
    for _ in range(50):
        ask()
    assert served.seconds < service.SLOW
    assert asked == [200] * 54


@pytest.mark.problem
def test_a_prediction_that_is_not_finite_is_refused(
    client: TestClient, features: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = state(client).served.bundle
    predictor = bundle.predictor
    monkeypatch.setitem(
        bundle.__dict__, "predictor", lambda *matrices: np.full_like(predictor(*matrices), np.nan)
    )
    answer = client.post("/predictions", json={"features": features})
    assert answer.status_code == 422
    assert "finite" in answer.text


# The journal's routes


def test_all_that_was_predicted_for_a_key_can_be_erased(
    client: TestClient, features: dict[str, Any]
) -> None:
    made = [
        client.post("/predictions", json={"features": features, "key": key}).json()
        for key in ("ada", "ada", "bob")
    ]
    assert client.delete("/predictions", params={"key": "ada"}).json() == {"predictions": 2}
    assert client.delete("/predictions", params={"key": "ada"}).json() == {"predictions": 0}
    assert client.delete("/predictions").status_code == 422
    found = [client.get(f"/predictions/{m['id']}").status_code for m in made]
    assert found == [404, 404, 200]


@pytest.mark.problem
def test_an_outcome_may_overtake_its_prediction(
    client: TestClient, features: dict[str, Any]
) -> None:
    when = features[TIME] if TIME else "2020-01-01T10:00:00"
    label = client.post("/predictions", json={"features": features}).json()["prediction"]
    path = "/predictions/a key, with: signs/outcome"
    told = client.put(path, params={"time": when}, json={"outcome": label})
    assert told.status_code == 202
    ask = {"features": features, "key": "a key, with: signs", "time": when}
    made = client.post("/predictions", json=ask).json()
    assert client.get(f"/predictions/{made['id']}").json()["outcome"] == label


def test_the_event_time_is_given_or_a_feature_or_now(
    client: TestClient, features: dict[str, Any]
) -> None:
    def time(**ask: Any) -> str:
        made = client.post("/predictions", json={"features": features, **ask}).json()
        return client.get(f"/predictions/{made['id']}").json()["time"]

    assert time(time="2020-01-01T10:00:00+02:00") == "2020-01-01T08:00:00Z"
    found = time()
    assert found.endswith("Z")
    utc, read = contract.utc, datetime.fromisoformat
    assert utc(read(found)) == utc(read(features[TIME])) if TIME else found > "2020"


@pytest.mark.problem
def test_labels_that_cannot_be_are_refused(client: TestClient, features: dict[str, Any]) -> None:
    made = client.post("/predictions", json={"features": features}).json()
    path = f"/predictions/{made['id']}/outcome"
    other = 1 if isinstance(made["prediction"], str) else "no such label"
    labels: list[Any] = [None, [1], {}, 10**400, other]
    bodies = [{"outcome": label} for label in labels]
    raw = ["{}", '{"outcome": NaN}', '{"outcome": 1e400}', '{"outcome": "\\ud800"}', "", "[]"]
    for text in [*map(json.dumps, bodies), *raw]:
        answer = client.put(path, content=text, headers={"content-type": "application/json"})
        assert answer.status_code == 422, text
        assert "outcome" in answer.text or text in ("", "[]")


@pytest.mark.parametrize(
    ("outcome", "classes", "kept"),
    [(1, [False, True], True), (2.0, [1, 2], 2), ("a", ["a", "b"], "a"), (3, None, 3)],
)
def test_a_label_is_kept_as_the_target_has_it(outcome: Any, classes: Any, kept: Any) -> None:
    found = schemas.label_for(outcome, classes)
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("outcome", "classes", "said", "new"),
    [
        (7, [1, 2], "7 is no class of the model (1, 2); say new=true", True),
        ("c", ["a", "b"], '"c" is no class of the model (a, b); say new=true', True),
        (70, [*range(50)], "18, 19, ...); say new=true", True),
        (7, [False, True], "7 is no class of the model (false, true)", False),
        ("7", [1, 2], '"7" is no class of the model (1, 2)', False),
        (1.5, [1, 2], "1.5 is no class of the model (1, 2)", False),
        (True, [2, 3], "true is no class of the model (2, 3)", False),
        (True, None, "should be a number", False),
        ("7", None, "should be a number", False),
        (float("nan"), None, "should be true, false, a number or a text", False),
    ],
)
def test_a_label_that_is_no_class_is_refused_unless_it_is_said_to_be_new(
    outcome: Any, classes: Any, said: str, new: bool
) -> None:
    label_for = schemas.label_for
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        label_for(outcome, classes)
    assert ("new=true" in str(error.value)) is new
    if new:
        assert label_for(outcome, classes, new=True) == outcome
    else:
        with pytest.raises(ValueError, match=re.escape(said)):
            label_for(outcome, classes, new=True)


def test_a_mistyped_label_is_refused_and_a_new_class_is_said(
    client: TestClient, features: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.post("/predictions", json={"features": features}).json()
    monkeypatch.setattr(state(client).served.bundle.manifest, "classes", [1, 2])
    path = f"/predictions/{made['id']}/outcome"
    refused = client.put(path, json={"outcome": 7})
    assert (refused.status_code, "(1, 2)" in refused.text) == (422, True)
    assert client.get(f"/predictions/{made['id']}").json()["outcome"] is None
    assert client.put(path, params={"new": "true"}, json={"outcome": 7}).status_code == 202
    assert client.get(f"/predictions/{made['id']}").json()["outcome"] == 7


@pytest.mark.problem
def test_a_load_test_is_answered_and_not_kept(
    client: TestClient, features: dict[str, Any], journal_url: str
) -> None:
    texts = {n: "never seen" for n, k in KINDS.items() if FIELDS[n].annotation is str}
    ask, test = {"features": features | texts, "key": "mine"}, {"x-load-test": "1"}
    one = client.post("/predictions", json=ask, headers=test)
    many = client.post("/predictions/batch", json={"rows": [ask]}, headers=test)
    assert many.json()["predictions"][0]["prediction"] == near(one.json()["prediction"])
    label, when = {"outcome": one.json()["prediction"]}, {"time": "2020-01-01T10:00:00Z"}
    told = client.put("/predictions/mine/outcome", json=label, params=when, headers=test)
    assert told.status_code == 202
    assert client.get(f"/predictions/{one.json()['id']}").status_code == 404
    assert "unseen_categories_total{" not in client.get("/metrics").text
    ask["time"] = when["time"]
    real = client.post("/predictions", json=ask).json()
    assert client.get(f"/predictions/{real['id']}").json()["outcome"] is None
    assert [r.id for r in records(journal_url)] == [real["id"]]


def test_with_the_journal_down_predictions_go_on(
    start: Callable[..., TestClient],
    features: dict[str, Any],
    tmp_path: Path,
    journal_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "SLOWEST", 0.05)
    blocked = tmp_path / "journal.db"
    blocked.mkdir()  # no database can be opened there
    client = start()
    made = client.post("/predictions", json={"features": features}).json()
    assert client.get(f"/predictions/{made['id']}").status_code == 503
    path = f"/predictions/{made['id']}/outcome"
    assert client.put(path, json={"outcome": made["prediction"]}).status_code == 202
    wait_for(lambda: "journal_up 0.0" in client.get("/metrics").text)
    blocked.rmdir()
    wait_for(lambda: "journal_up 1.0" in client.get("/metrics").text)
    assert client.get(f"/predictions/{made['id']}").json()["outcome"] == made["prediction"]


# Whatever clients may send


def numbers() -> list[str]:
    return [name for name, kind in KINDS.items() if kind == "number"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"[" * 100_000, b"{}", b'{"features":1}',
     b'{"features":{}}', b'{"features":null}', b"1" * 10_000],
    ids=range(13),
)  # fmt: skip
def test_malformed_bodies(client: TestClient, body: bytes) -> None:
    for path in ("/predictions", "/predictions/batch"):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422)
        assert "body" in answer.text
    assert client.get("/healthz").status_code == 200


def test_a_body_that_is_no_json_goes_when_it_is_answered(client: TestClient) -> None:
    """Garbage is collected late: a cycle that holds the body would let a client fill the memory."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        is_json = {"content-type": "application/json"}
        answer = client.post("/predictions", content=b'{"features": ', headers=is_json)
        assert answer.status_code == 422
        gc.collect()
        assert not [left for left in gc.garbage if isinstance(left, json.JSONDecodeError)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize("value", [0, 1.5, True, "1700000000", "20230514"])
def test_a_bare_number_is_no_time(client: TestClient, features: dict[str, Any], value: Any) -> None:
    asks: list[dict[str, Any]] = [{"features": features, "time": value}]
    asks += [{"features": features | {n: value}} for n, k in KINDS.items() if k == "time"]
    for ask in asks:
        for path, body in (("", ask), ("/batch", {"rows": [ask]})):
            answer = client.post(f"/predictions{path}", json=body)
            assert (answer.status_code, "ISO 8601" in answer.text) == (422, True)
    path = "/predictions/mine/outcome"
    answer = client.put(path, params={"time": value}, json={"outcome": 1})
    assert (answer.status_code, "ISO 8601" in answer.text) == (422, True)


def test_true_and_false_are_no_numbers(client: TestClient, features: dict[str, Any]) -> None:
    for name in schemas.NOT_BOOLEAN:
        answer = client.post("/predictions", json={"features": features | {name: True}})
        assert (answer.status_code, name in answer.text) == (422, True)


def test_a_body_that_is_compressed_or_no_json_is_told_what_to_send(
    client: TestClient, features: dict[str, Any]
) -> None:
    body = json.dumps({"features": features}).encode()
    is_json = {"content-type": "application/json"}
    for coding in ("gzip", "br", "GZIP, deflate"):
        answer = client.post(
            "/predictions",
            content=gzip.compress(body),
            headers=is_json | {"content-encoding": coding},
        )
        assert (answer.status_code, "not compressed" in answer.text) == (415, True)
        assert answer.headers["accept-encoding"] == "identity"
    for kind in ({}, {"content-type": "text/plain"}):
        answer = client.post("/predictions", content=body, headers=kind)
        assert (answer.status_code, "application/json" in answer.text) == (415, True)
    plain = client.post(
        "/predictions", content=body, headers=is_json | {"content-encoding": "identity"}
    )
    assert plain.status_code == 200


@pytest.mark.format
@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "[]", "{}", '"?"'])
def test_numbers_that_are_none(client: TestClient, features: dict[str, Any], literal: str) -> None:
    if not numbers():
        pytest.skip("the contract has no number")
    name = numbers()[0]
    text = json.dumps({"features": {**features, name: "HERE"}}).replace('"HERE"', literal)
    for path, body in (("", text), ("/batch", f'{{"rows":[{text}]}}')):
        answer = client.post(
            f"/predictions{path}", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 422
        assert name in answer.text
        assert "NaN" not in answer.text


@pytest.mark.problem
@pytest.mark.format
@pytest.mark.parametrize(
    "value", [10**400, 1e308, -1e308, "0001-01-01T00:00:00+14:00"], ids=range(4)
)
def test_values_at_the_edge_are_answered_or_refused(
    client: TestClient, features: dict[str, Any], value: Any
) -> None:
    for name, kind in KINDS.items():
        if (kind == "time") == isinstance(value, str):
            body = {"features": {**features, name: value}}
            answer = client.post("/predictions", json=body)
            assert answer.status_code == 200 or (
                answer.status_code == 422 and name in answer.text
            ), name


@pytest.mark.format
def test_texts_that_are_hard_to_keep(client: TestClient, features: dict[str, Any]) -> None:
    texts = [n for n, k in KINDS.items() if k == "category" and FIELDS[n].annotation is str]
    if not texts:
        pytest.skip("the contract has no free text")
    name = texts[0]
    for value, status in (("a\0b", 200), ("x" * 20_000, 422), ("'; DROP TABLE x --", 200)):
        answer = client.post("/predictions", json={"features": {**features, name: value}})
        assert answer.status_code == status
        if status == 200:
            kept = client.get(f"/predictions/{answer.json()['id']}").json()
            assert kept["features"][name] == value
    text = json.dumps({"features": {**features, name: "HERE"}}).replace("HERE", "\\ud800")
    answer = client.post("/predictions", content=text, headers={"content-type": "application/json"})
    assert (answer.status_code, name in answer.text) == (422, True)


@pytest.mark.problem
@pytest.mark.format
def test_an_unseen_category_is_served_and_counted(
    client: TestClient, features: dict[str, Any]
) -> None:
    known = [n for n in state(client).served.known_categories if FIELDS[n].annotation is str]
    if not known:
        pytest.skip("the contract has no free text that the model sees")
    body = {"features": {**features, known[0]: "never seen"}}
    assert client.post("/predictions", json=body).status_code == 200
    line = f'unseen_categories_total{{column="{known[0]}"}} 1.0'
    assert line in client.get("/metrics").text


def test_unseen_is_what_the_model_sees_and_what_was_not_kept_is_not_judged(
    client: TestClient, features: dict[str, Any]
) -> None:
    live, metrics = state(client).live, state(client).metrics

    def summary(rows: int) -> dict[str, Any]:
        return {"kind": "category", "counts": {"a": 5, "b": 2}, "missing": 1, "rows": rows}

    class Bundle:
        version = "1"
        reference = {"columns": {"all": summary(8), "some": summary(9)}}  # noqa: RUF012

    bundle: Any = Bundle()
    served = Served(bundle, metrics)
    mine = service.Service(live, None, metrics)
    column = np.array(["a", "", "b", "c"], dtype=object)
    mine._count_unseen(served, {"all": column, "some": column})
    told = client.get("/metrics").text
    assert 'unseen_categories_total{column="all"} 1.0' in told
    assert "some" not in told


def test_keys_that_no_database_keeps(client: TestClient, features: dict[str, Any]) -> None:
    keys: list[Any] = ["", "a\0b", "a\nb", "x" * 201, 5, {}]
    for key in keys:
        answer = client.post("/predictions", json={"features": features, "key": key})
        assert (answer.status_code, "key" in answer.text) == (422, True)
    assert client.put("/predictions/%00/outcome", json={"outcome": 1}).status_code == 422


def test_a_body_or_a_batch_too_large(
    start: Callable[..., TestClient], features: dict[str, Any]
) -> None:
    client = start(serving={"max_batch": 3, "max_body_mb": 0.1})

    def stream() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    for content in (b" " * 10_000_000, stream()):
        headers = {"content-type": "application/json"}
        answer = client.post("/predictions", content=content, headers=headers)
        assert (answer.status_code, "max_body_mb" in answer.text) == (413, True)
    for n, status in ((0, 422), (3, 200), (4, 422)):
        answer = client.post("/predictions/batch", json={"rows": [{"features": features}] * n})
        assert answer.status_code == status
        assert status == 200 or "rows" in answer.text


def test_many_errors_make_a_short_answer(client: TestClient) -> None:
    answer = client.post("/predictions/batch", json={"rows": [{"features": {}}] * 500})
    assert answer.status_code == 422
    assert len(answer.content) < 10_000


def test_an_error_of_ours_is_a_500_with_the_id_in_the_log(
    client: TestClient,
    features: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(service, "columns", broken)
    body = {"features": features}
    answer = client.post("/predictions", json=body, headers={"x-request-id": "abc-1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "abc-1")
    assert any(r.exc_info and r.levelno == logging.ERROR for r in caplog.records)
    assert 'status="500"' in client.get("/metrics").text


# State, logs and metrics


def test_a_refused_bundle_leaves_the_old_one_in_use(
    client: TestClient, bundles: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    shutil.copytree(bundles / "1", bundles / "2")
    manifest = bundles / "2" / "examples.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    (bundles / "current").write_text("2")
    wait_for(lambda: "bundle_refused 1.0" in client.get("/metrics").text)
    threading.Event().wait(0.7)  # more looks at the pointer
    assert len([r for r in caplog.records if "refused" in r.getMessage()]) == 1
    assert client.get("/readyz").json()["version"] == "1"


def test_what_the_fetching_process_refuses_is_told_until_it_takes_it_back(
    bundles: Path, client: TestClient
) -> None:
    (bundles / "refused").write_text("the next one: is missing; refused")
    wait_for(lambda: "bundle_refused 1.0" in client.get("/metrics").text)
    assert client.get("/readyz").json()["version"] == "1"
    (bundles / "refused").unlink()
    wait_for(lambda: "bundle_refused 0.0" in client.get("/metrics").text)
    assert client.get("/version").json()["version"] == "1"


def test_version_and_metrics(client: TestClient, features: dict[str, Any]) -> None:
    served = client.get("/version").json()
    assert served["version"] == "1"
    assert served["contract"] == contract.digest()
    client.post("/predictions/batch", json={"rows": [{"features": features}] * 3})
    client.get("/predictions/unknown")
    text = client.get("/metrics").text
    for line in (
        'predictions_total{version="1"} 3.0',
        f'model_info{{bundle="{served["digest"]}",version="1"}} 1.0',
        'http_requests_total{method="GET",route="/predictions/{id}",status="404"} 1.0',
        'http_request_duration_seconds_count{method="POST",route="/predictions/batch"} 1.0',
        "journal_queue ",
        "process_resident_memory_bytes ",
    ):
        assert line in text
    assert "unknown" not in text.replace('route="unknown"', "")


def test_drift_is_shown_as_the_monitor_reported_it(tmp_path: Path) -> None:
    from prometheus_client import generate_latest

    report = tmp_path / "monitor.json"
    metrics = Metrics(None, report)

    def shown() -> str:
        return generate_latest(metrics.registry).decode()

    assert "drift" not in shown()
    for broken in ("", "[]", "{", '{"columns": 5}', '{"columns": {"a": null}}'):
        report.write_text(broken)
        assert "drift_distance{" not in shown()
    columns = {"a": {"distance": 0.5, "threshold": 0.1}}
    report.write_text(json.dumps({"columns": columns, "verdict": "warn"}))
    assert 'drift_distance{column="a"} 0.5' in shown()
    assert 'drift_threshold{column="a"} 0.1' in shown()
    assert 'monitor_verdict{verdict="warn"} 1.0' in shown()


def test_request_ids_go_in_and_out(client: TestClient) -> None:
    def given(id: str) -> str:
        return client.get("/healthz", headers={"x-request-id": id}).headers["x-request-id"]

    assert given("0b9d7a52-1c6e-4c8b") == "0b9d7a52-1c6e-4c8b"
    for forged in ("a b", 'x","level":"ERROR', "x" * 200, ""):
        assert given(forged) not in (forged, given(forged))


def test_logs_are_json_with_the_request_id() -> None:
    record = logging.makeLogRecord({"msg": "a %s", "args": ("b\n",), "status": 200, "name": "x"})
    token = logs.REQUEST.set("abc")
    try:
        entry = json.loads(logs.JsonFormatter().format(record))
    finally:
        logs.REQUEST.reset(token)
    assert (entry["message"], entry["status"], entry["request_id"]) == ("a b\n", 200, "abc")


def test_traces_are_looked_for_only_where_they_are_set_up(
    start: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    for name in [name for name in os.environ if "OTEL_" in name]:
        monkeypatch.delenv(name)
    look = Mock(wraps=trace.get_tracer_provider)
    monkeypatch.setattr(trace, "get_tracer_provider", look)
    assert start().get("/healthz").status_code == 200
    look.assert_not_called()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "flights")
    assert start().get("/healthz").status_code == 200
    look.assert_called()


def test_the_page_of_the_api_is_there(client: TestClient) -> None:
    page = client.get("/docs").text
    if find_spec("fastapi_offline"):
        files = re.findall(r'(?:href|src)="([^"]+)"', page)
        assert len(files) == 3
        assert {client.get(file).status_code for file in files} == {200}
        assert "https://" not in page
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/predictions", "/predictions/batch", "/predictions/{id}", "/version"} <= set(paths)


@pytest.mark.parametrize("prefix", ["", "/model", "models/one/"])
@pytest.mark.parametrize("cut", [True, False])
def test_behind_a_prefix_whether_the_proxy_cuts_it_or_not(
    start: Callable[..., TestClient], features: dict[str, Any], prefix: str, cut: bool
) -> None:
    client = start(serving={"root_path": prefix})
    root = f"/{prefix.strip('/')}" if prefix else ""

    def ask(path: str) -> Any:
        assert path.startswith(f"{root}/")
        return client.get(path.removeprefix(root) if cut else path, follow_redirects=False)

    home = ask(f"{root}/")
    assert (home.status_code, home.headers["location"]) == (307, f"{root}/docs")
    page = ask(home.headers["location"]).text
    document = re.findall(r"url: '([^']+)'", page)[0]
    found = ask(document).json()
    assert found.get("servers", []) == ([{"url": root}] if root else [])
    assert "/" not in found["paths"]
    if find_spec("fastapi_offline"):
        files = re.findall(r'(?:href|src)="([^"]+)"', page)
        assert {ask(file).status_code for file in files} == {200}
    inside = "" if cut else root
    made = client.post(f"{inside}/predictions", json={"features": features})
    assert ask(f"{root}/predictions/{made.json()['id']}").status_code == 200
    assert ask(f"{root}/nowhere").status_code == 404
    assert 'route="/predictions/{id}"' in client.get("/metrics").text


def fits(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether a value is as a schema of the document says, with nothing that it does not name."""
    if "$ref" in schema:
        return fits(
            value, document["components"]["schemas"][schema["$ref"].split("/")[-1]], document
        )
    if "anyOf" in schema:
        return any(fits(value, choice, document) for choice in schema["anyOf"])
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool}
    types |= {"number": int | float, "integer": int, "null": type(None)}
    kind = schema.get("type")
    if kind and (
        not isinstance(value, types[kind]) or (isinstance(value, bool) != (kind == "boolean"))
    ):
        return False
    if schema.get("format") == "date-time":  # RFC 3339: with a zone
        return datetime.fromisoformat(value).tzinfo is not None
    if isinstance(value, list):
        return all(fits(item, schema["items"], document) for item in value)
    if isinstance(value, dict):
        named, other = schema.get("properties", {}), schema.get("additionalProperties", False)
        if not set(schema.get("required", [])) <= value.keys():
            return False
        return all(
            fits(item, named[name], document)
            if name in named
            else other is True or (isinstance(other, dict) and fits(item, other, document))
            for name, item in value.items()
        )
    return True


@pytest.mark.problem
def test_every_answer_is_as_the_document_of_the_api_says(
    start: Callable[..., TestClient], features: dict[str, Any]
) -> None:
    """Each operation is asked well and badly: what comes is documented, and what is can come."""
    sections = {"serving": {"max_body_mb": 0.05}}
    clients = [start(**sections), start(journal={"url": ""}, **sections)]
    document = clients[0].get("/openapi.json").json()
    bodies: dict[str, Any] = {
        "/predictions": {"features": features, "key": "mine"},
        "/predictions/batch": {"rows": [{"features": features}] * 2},
        "/predictions/{id}/outcome": {"outcome": 1},
    }
    headers = {"content-type": "application/json"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if not {"predictions", "outcomes", "state"} & set(operation.get("tags", [])):
                continue  # your own
            seen = set()
            for client in clients:
                made = client.post("/predictions", json=bodies["/predictions"]).json()
                bodies["/predictions/{id}/outcome"] = {"outcome": made["prediction"]}
                good = {"url": path.replace("{id}", made["id"]), "headers": headers}
                if path == "/predictions" and method == "delete":
                    good["params"] = {"key": "mine"}
                bad: list[dict[str, Any]] = [
                    {"url": path.replace("{id}", "unknown")},
                    {"url": path.replace("{id}", "%00")},
                    {"params": {"key": "", "time": "soon", "new": "perhaps"}},
                ]
                if "requestBody" in operation:
                    good["content"] = json.dumps(bodies[path]).encode()
                    texts = [b"{", b"\xff", b"[]", b"{}", b"1", b"", b" " * 60_000, b"[" * 40_000]
                    bad += [{"content": text} for text in texts]
                    bad += [{"headers": headers | {"content-encoding": "gzip"}}, {"headers": {}}]
                for change in [*bad, {}]:
                    answer = client.request(method.upper(), **good | change)
                    seen.add(str(answer.status_code))
                    told = operation["responses"].get(str(answer.status_code))
                    asked = (method, path, change, answer.status_code, answer.text[:300])
                    assert told, asked
                    if answer.content:
                        schema = told["content"][answer.headers["content-type"]]["schema"]
                        assert fits(answer.json(), schema, document), asked
            assert set(operation["responses"]) - seen <= {"503"}, (method, path)


def test_what_a_path_allows_is_told(client: TestClient) -> None:
    for path, allowed in (
        ("/predictions", "DELETE, POST"),
        ("/predictions/1", "DELETE, GET"),
        ("/predictions/batch", "POST"),
        ("/predictions/1/outcome", "PUT"),
        ("/healthz", "GET"),
    ):
        answer = client.request("PATCH", path, headers={"x-request-id": "abc-1"})
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.headers["x-request-id"] == "abc-1"
        assert "PATCH" in answer.json()["detail"]


def test_an_idle_connection_outlives_the_waits_of_clients(
    bundles: Path, start: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = []

    class Server:
        def __init__(self, config: Any) -> None:
            configs.append(config)

        def run(self, sockets: list[Any]) -> None:
            pass

    monkeypatch.setattr(running.uvicorn, "Server", Server)
    monkeypatch.setattr(running.logs, "configure", lambda level: None)
    listener = Mock(getsockname=lambda: ("127.0.0.1", 8000))
    running.run(bundles, load_settings(journal={"url": ""}), listener)
    running.run(
        bundles, load_settings(journal={"url": ""}, serving={"keep_alive_seconds": 9}), listener
    )
    assert [config.timeout_keep_alive for config in configs] == [75, 9]


# As a process


@pytest.fixture
def server(bundles: Path, journal_url: str) -> Iterator[Server]:
    with serving(bundles, JOURNAL_URL=journal_url) as process:
        yield process.ready()


@pytest.mark.format
def test_what_serves_imports_no_training(bundle_dir: Path) -> None:
    code = """
import sys
from pathlib import Path
from flight_delays import predictor
from flight_delays.bundle import load
from flight_delays.serving import app, run
load(Path(sys.argv[1]))
heavy = {"mlflow", "wandb", "matplotlib", "river"}
if predictor.FILE.endswith(".onnx"):  # scikit-learn itself takes pandas where there is one
    heavy |= {"pandas", "sklearn", "scipy"}
print(*sorted(heavy & set(sys.modules)))
"""
    command = [sys.executable, "-c", code, str(bundle_dir)]
    done = subprocess.run(
        command, cwd=SOURCE, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


@pytest.mark.format
def test_a_swap_under_load_fails_no_request(
    server: Server, bundles: Path, features: dict[str, Any]
) -> None:
    import shutil

    for version in ("2", "3"):
        shutil.copytree(bundles / "1", bundles / version)
    seen: list[tuple[int, str]] = []
    done = threading.Event()

    def load() -> None:
        client = Client(server.port)
        while not done.is_set():
            status, answer = client("POST", "/predictions", {"features": features})
            seen.append((status, answer.get("version")))
        client.connection.close()

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in ("2", "3", "1"):
            draft = bundles / "draft"
            draft.write_text(version)
            draft.replace(bundles / "current")
            wanted = (200, version)
            wait_for(lambda wanted=wanted: wanted in seen[-20:])  # type: ignore[misc]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == {"1", "2", "3"}


def test_what_no_server_should_get_hurts_no_worker_and_logs_are_json(
    server: Server, features: dict[str, Any]
) -> None:
    worker = server.process.pid
    bodies = [b"{", b"\xff\xfe", b"[" * 100_000, b'{"features":1e400}', b"1" * 10_000_000]
    for body in bodies:
        status, told = server.client("POST", "/predictions", body)
        assert 400 <= status < 500
        assert "body" in json.dumps(told)
    assert server.status("/healthz") == 200
    assert server.process.pid == worker
    assert server.stop() == 0
    for line in server.log.read_text().splitlines():
        assert {"level", "message"} <= json.loads(line).keys(), line


def test_every_meter_that_an_alarm_or_the_dashboard_reads_is_there(
    client: TestClient, features: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client.post("/predictions", json={"features": features})
    deploy = SOURCE.parent / "deploy"
    asked = (deploy / "prometheus" / "alerts.yml").read_text()
    asked += (deploy / "grafana" / "dashboards" / "model.json").read_text()
    report = tmp_path / "monitor.json"
    column = {"distance": 0.1, "threshold": 0.2, "confirmed": False}
    seen: dict[str, Any] = {"version": "1", "verdict": "ok", "columns": {"x": column}}
    seen |= {"windows": [{"value": 0.7}], "metric": {"baseline": 0.8}}
    report.write_text(json.dumps(seen))
    metrics = Metrics(None, report)
    metrics.served = "1"
    from prometheus_client import generate_latest

    told = client.get("/metrics").text + generate_latest(metrics.registry).decode()
    names = set(re.findall(r"^(?:# TYPE )?([a-z_]+)[ {]", told, re.MULTILINE))
    pattern = (
        r"\b((?:http|predictions|unseen|model|bundle|journal|drift|monitor|process)_[a-z_]+)\b"
    )
    wanted = set(re.findall(pattern, asked)) - {"model_job"}
    assert len(wanted) > 12, wanted
    assert wanted <= names, wanted - names
    metrics.served = "2"
    assert b"monitor_verdict" not in generate_latest(metrics.registry), "it is of another version"


def test_a_clean_stop_keeps_all_that_was_acknowledged(
    server: Server, journal_url: str, features: dict[str, Any]
) -> None:
    ids = []
    for _ in range(100):
        status, answer = server.client("POST", "/predictions", {"features": features})
        assert status == 200
        ids.append(answer["id"])
    body = {"outcome": answer["prediction"]}
    assert server.client("PUT", f"/predictions/{ids[-1]}/outcome", body)[0] == 202
    assert server.stop() == 0
    kept = records(journal_url)
    assert sorted(r.id for r in kept) == sorted(ids)
    assert [r.outcome for r in kept if r.id == ids[-1]] == [answer["prediction"]]


def test_a_kill_loses_only_what_came_since_the_last_write(
    server: Server, journal_url: str, features: dict[str, Any]
) -> None:
    def ask(n: int) -> set[str]:
        answers = [server.client("POST", "/predictions", {"features": features}) for _ in range(n)]
        return {answer["id"] for _, answer in answers}

    earlier = ask(50)
    wait_for(lambda: {r.id for r in records(journal_url)} >= earlier, seconds=5)
    last = ask(5)
    server.stop(signal.SIGKILL)
    kept = {r.id for r in records(journal_url)}
    assert earlier <= kept <= earlier | last


HEAD = b"POST /predictions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def test_a_request_without_end_is_ended_and_so_is_a_connection_without_one(bundles: Path) -> None:
    """What is no body has a limit of its own: it is read before the application sees it."""
    with serving(bundles, JOURNAL_URL="", SERVING_KEEP_ALIVE_SECONDS="1") as server:
        server.ready()

        def answered(*parts: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                try:
                    for part in parts:
                        connection.sendall(part)
                    return connection.recv(100)
                except ConnectionError:  # it was closed while there was more to send
                    return b"HTTP/1.1 400"

        endless = [b"x" * 1000] * 1000
        lines = [b"x: " + b"y" * 1000 + b"\r\n"] * 1000
        for start, parts in (
            (b"GET /", endless),
            (HEAD, lines),
            (HEAD + b"x: ", endless),
            (CHUNKED + b"2;", endless),
            (CHUNKED + b"2\r\n{}\r\n0\r\n", lines),
        ):
            assert answered(start, *parts).startswith(b"HTTP/1.1 400"), start
        wrong = b" " * 300_000 + b"{}"
        length = b"content-length: %d\r\n\r\n" % len(wrong)
        assert answered(HEAD + length + wrong).startswith(b"HTTP/1.1 422")
        chunks = [b"64\r\n" + b" " * 100 + b"\r\n"] * 20_000
        last = b"2\r\n{}\r\n0\r\n\r\n"
        assert answered(CHUNKED, b"".join(chunks), last).startswith(b"HTTP/1.1 422")
        assert answered() == b""
        for begun in (b"GET /hea", HEAD, HEAD + b"content-length: 9\r\n\r\n{"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
                slow.sendall(begun)
                assert slow.recv(100) == b"", begun


def test_a_port_in_use_is_one_clear_line(server: Server, bundles: Path) -> None:
    with serving(bundles, server.port) as other:
        assert other.process.wait(30) == 1
    told = other.log.read_text().strip().splitlines()
    assert len(told) == 1
    assert str(server.port) in told[0]
    assert "PORT=" in told[0]


@pytest.mark.problem
def test_an_outcome_is_kept_as_the_target_has_it(bundles: Path, start: Any) -> None:
    """Clients write true as 1 and a whole number as 2.0; the monitor must know them all."""
    classes = load_bundle(bundles / "1").manifest.classes
    client = start()
    example = json.loads((bundles / "1" / "examples.json").read_text())[0]["features"]
    id = client.post("/predictions", json={"features": example}).json()["id"]
    told = 2 if classes is None else classes[-1]
    spelt = int(told) if isinstance(told, bool) else told
    answer = client.put(f"/predictions/{id}/outcome", json={"outcome": spelt})
    assert answer.json()["outcome"] is told or answer.json()["outcome"] == told
    assert type(client.get(f"/predictions/{id}").json()["outcome"]) is type(told)
    wrong = "many" if classes is None or not isinstance(classes[0], str) else 7
    refused = client.put(f"/predictions/{id}/outcome", json={"outcome": wrong})
    assert refused.status_code == 422
    assert "outcome" in refused.text


def test_a_time_out_of_range_is_refused_and_hurts_nobody_else(bundles: Path, start: Any) -> None:
    client = start()
    example = json.loads((bundles / "1" / "examples.json").read_text())[0]["features"]
    for when in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        answer = client.post("/predictions", json={"features": example, "time": when})
        assert answer.status_code == 422, answer.text
        assert "time" in answer.text
