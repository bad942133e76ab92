"""Load tests: the limits decide, what was not loaded is no success, and the result is noted.

Locust runs in processes of its own; it must never be imported here.
"""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import flight_delays
from flight_delays import bundle, errors, settings
from flight_delays.load import limits as slo
from flight_delays.load import run as load
from flight_delays.load import targets as trial
from flight_delays.monitoring import verdict
from flight_delays.registry import store as registry
from flight_delays.serving.journal import store

from .servers import serving

HERE = Path(flight_delays.__file__).parents[2]
FEW = {"users": 5, "spawn_rate": 5, "run_time": 3, "p95_ms": 9e4, "p99_ms": 9e4}


@pytest.fixture(autouse=True)
def locustfile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "LOCUSTFILE", HERE / load.LOCUSTFILE)


CLOSED = "HTTPConnectionClosed: connection closed."


def entry(times: dict[float, int], failures: int = 0) -> dict[str, Any]:
    """What was kept of the requests of one name: how many took so many milliseconds."""
    errors = {CLOSED: failures} if failures else {}
    flat = [ms for ms, n in times.items() for _ in range(n)]
    return {"times": flat, "errors": errors, "start": 0.0, "end": 10.0}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"one row": entry({5: 95, 90: 5})}, ""),
        ({"one row": entry({5: 94, 110: 6})}, "p95 of one row is 110 ms, above 100"),
        ({"one row": entry({5: 98, 250.4: 2})}, "p99 of one row is 250.4 ms, above 250"),
        (
            {"one row": entry({5: 98}), "batch": entry({5: 2}, 1)},
            f"1 of 100 requests failed, 1 of them 'batch' with {CLOSED}",
        ),
        ({}, "no request was made"),
        ({"batch": entry({5: 9})}, "no request was made"),
    ],
    ids=["within", "p95", "p99", "failures", "nothing", "nothing-of-the-kind"],
)
def test_the_limits_decide(bundle_dir: Path, record: dict[str, Any], reason: str) -> None:
    limits = settings.Load(p95_ms=100, p99_ms=250)
    report = slo.report(bundle.load(bundle_dir), record, limits)
    assert report["passed"] is not bool(reason)
    assert reason in report["summary"]


@pytest.mark.problem
def test_what_was_loaded_is_noted_on_the_version(trained: Path) -> None:
    found = registry.connect(settings.load())
    report = load.measure(settings.load(load=FEW), found, "test")
    assert report["passed"], report
    assert json.loads(Path("reports/load.json").read_text()) == report
    assert json.loads(found.note("1", "load"))["bundle"] == report["bundle"]
    assert not report["failures"]
    assert all(report[name] > 0 for name in ("p50", "p95", "p99", "rate"))
    assert report["machine"]["cpus"]
    strict = load.measure(settings.load(load=FEW | {"p95_ms": 0.01}), found, "test")
    assert not strict["passed"]
    assert not json.loads(found.note("1", "load"))["passed"]
    assert "locust" not in sys.modules


def test_what_is_not_there_is_not_loaded(trained: Path) -> None:
    found = registry.connect(settings.load())
    with pytest.raises(errors.UserError, match=r"version 99 of .* is not registered"):
        load.measure(settings.load(), found, "test", "99")
    with pytest.raises(errors.UserError, match=r"run `make promote ENV=staging`"):
        load.measure(settings.load(), found, "staging")


def test_a_broken_limit_fails_the_command(trained: Path) -> None:
    shutil.copytree(HERE / "loadtest", "loadtest")
    own = {"LOAD_USERS": "2", "LOAD_RUN_TIME": "2", "LOAD_P95_MS": "0.01"}
    command = [sys.executable, "-m", "flight_delays", "load", "--env", "test"]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "p95 of one row is" in done.stderr


def test_the_page_is_locusts_own_and_judges_nothing(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(load, "_locust", lambda *arguments, **_: asked.append(arguments))
    found = registry.connect(settings.load())
    report = load.measure(settings.load(), found, "test", ui=True)
    assert report["passed"] is None
    assert found.note("1", "load") == ""
    assert "--web-port" in asked[0][4]
    assert "--headless" not in asked[0][4]


def test_a_server_that_others_use_keeps_nothing_of_a_load_test(
    bundles: Path, tmp_path: Path, journal_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    token = "to-load-0123456789abcdef"
    monkeypatch.setenv("LOAD_TOKEN", token)
    tokens = f"{token} predict"
    with serving(bundles, JOURNAL_URL=journal_url, SERVING_TOKENS=tokens) as server:
        aim = f"http://127.0.0.1:{server.ready().port}"
        report = load.run(settings.load(load=FEW), bundle.load(bundles / "1"), url=aim)
        assert server.stop() == 0
    assert report["requests"] > 0
    assert not report["failures"]
    assert not store.Journal(journal_url).rows()


def test_why_requests_failed_is_told(bundle_dir: Path, tmp_path: Path) -> None:
    served = bundle.load(bundle_dir)
    scenario = load._scenario(settings.load(), served, tmp_path, outcomes=False, rate=2.0)
    record = load._attack(f"http://127.0.0.1:{trial.free_port()}", scenario, 5, 5, 2)
    told = slo.report(served, record, settings.Load())["summary"]
    assert "'one row' with ConnectionRefusedError" in told


@pytest.mark.problem
@pytest.mark.format
def test_a_server_answers_as_the_bundle_says(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVING_TOKENS_FILE", "tokens-of-production")  # a server of ours asks none
    served = bundle.load(bundle_dir)
    with trial.server(served) as url:
        assert trial.smoke(served, url) == len(served.examples)
        with trial.running(served, url) as same:
            assert same == url


def test_capacity_stops_where_the_limits_break(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attack(aim: str, scenario: Path, users: int, *_: object) -> dict[str, object]:
        rate = users * json.loads(scenario.read_text())["rate"]
        return {"one row": entry({5 if rate <= 130 else 500: round(rate * 10)})}

    monkeypatch.setattr(load, "_attack", attack)
    monkeypatch.chdir(tmp_path)
    found = load.capacity(settings.load(load={"p95_ms": 100}), bundle.load(bundle_dir))
    assert found["rate"] == 125
    assert "p95 of one row is 500 ms" in found["limited_by"]


def test_others_are_not_loaded_unasked(bundle_dir: Path) -> None:
    served = bundle.load(bundle_dir)
    with pytest.raises(errors.UserError, match="not on this machine"):
        load.run(settings.load(), served, url="http://model.example")
    with pytest.raises(errors.UserError, match="does not answer"):
        load.run(settings.load(), served, url=f"http://127.0.0.1:{trial.free_port()}")
    assert trial.loopback("http://localhost:8000")
    assert not trial.loopback("http://192.0.2.1")


@pytest.mark.parametrize("hours", [1, 47, 49, None])
def test_a_verdict_is_recalled_while_it_is_fresh(hours: int | None) -> None:
    noted = verdict.Verdict("ok", "all is well", "production", "1")
    if hours:
        noted.at = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    here = verdict.Verdict("unknown", "", "production", "1")
    here.recall(noted.note() if hours else "")
    assert here.verdict == ("ok" if hours and hours < 48 else "unknown")
    assert "make monitor" in here.reason or here.verdict == "ok"
