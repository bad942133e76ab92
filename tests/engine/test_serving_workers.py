"""Several workers of one server: nothing is lost, and each tells of all; see serving/workers/."""

import os
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from flight_delays.serving import middleware
from flight_delays.serving.journal.store import Journal
from flight_delays.serving.workers import meters

from ..helpers import wait_for
from .servers import Client, Server, serving

WORKERS = 2


@pytest.fixture
def server(bundles: Path, journal_url: str) -> Iterator[Server]:
    with serving(bundles, SERVING_WORKERS=str(WORKERS), JOURNAL_URL=journal_url) as process:
        yield process.ready()
        if process.process.poll() is None:
            process.stop()


def told(port: int) -> dict[str, float]:
    """What /metrics says, asked over a connection of its own."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {n: float(v) for n, _, v in (x.rpartition(" ") for x in lines if x[0] != "#")}


def pids(server: Server) -> set[int]:
    """The processes that answer, by their own log."""
    lines = [x for x in server.log.read_text().splitlines() if "Started server process" in x]
    found = {int(x.partition("process [")[2].partition("]")[0]) for x in lines}
    return {pid for pid in found if Path(f"/proc/{pid}").exists()}


def predict(port: int, body: Any, times: int) -> list[dict[str, Any]]:
    """Predictions, each over a connection of its own."""
    found = []
    for _ in range(times):
        client = Client(port)
        status, answer = client("POST", "/predictions", body)
        client.connection.close()
        assert status == 200
        found.append(answer)
    return found


def counted(port: int) -> float:
    return sum(v for n, v in told(port).items() if n.startswith("predictions_total"))


@pytest.mark.format
def test_two_workers_count_and_keep_all_and_come_back(
    server: Server, bundles: Path, journal_url: str, features: dict[str, Any]
) -> None:
    body = {"features": features, "key": "mine"}
    answers: list[dict[str, Any]] = []

    def load() -> None:
        answers.extend(predict(server.port, body, 100))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: counted(server.port) == 400, seconds=5)
    asked = 'http_requests_total{method="POST",route="/predictions",status="200"}'
    assert {told(server.port)[asked] for _ in range(8)} == {400.0}

    # What one worker has just answered, the other finds.
    for answer in predict(server.port, body, 10):
        outcome = {"outcome": answer["prediction"]}
        for ask in (("PUT", "/outcome", outcome, 202), ("GET", "", None, 200)):
            client = Client(server.port)
            status, _ = client(ask[0], f"/predictions/{answer['id']}{ask[1]}", ask[2])
            client.connection.close()
            assert status == ask[3]
    assert server.client("GET", f"/predictions/{middleware.new_ids(1)[0]}")[0] == 404

    # Both switch.
    shutil.copytree(bundles / "1", bundles / "2")
    (bundles / "draft").write_text("2")
    (bundles / "draft").replace(bundles / "current")
    wait_for(lambda: [a["version"] for a in predict(server.port, body, 10)] == ["2"] * 10)

    # One that is killed comes back, and no counter falls.
    time.sleep(2 * meters.EVERY)
    before, workers = counted(server.port), pids(server)
    assert len(workers) == WORKERS
    os.kill(min(workers), signal.SIGKILL)
    wait_for(lambda: len(pids(server) - {min(workers)}) == WORKERS, seconds=20)
    wait_for(lambda: counted(server.port) >= before)
    last = predict(server.port, body, 50)
    assert server.stop() == 0
    assert not pids(server)
    journal = Journal(journal_url)
    kept = {row.id for row in journal.rows()}
    journal.close()
    assert {answer["id"] for answer in answers + last} <= kept


def test_workers_end_with_the_processes_that_they_stem_from(server: Server) -> None:
    earlier = pids(server)
    assert len(earlier) == WORKERS
    forked_by = int(Path(f"/proc/{min(earlier)}/stat").read_text().rpartition(")")[2].split()[1])
    assert forked_by != server.process.pid
    os.kill(forked_by, signal.SIGKILL)
    wait_for(lambda: len(pids(server) - earlier) == WORKERS and not earlier & pids(server))
    workers = pids(server)
    server.process.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_what_no_worker_can_start_with_is_told_and_ends_all(bundles: Path) -> None:
    with serving(bundles, SERVING_WORKERS="2", SERVING_TOKENS="nonsense") as server:
        assert server.process.wait(30) == 1
        (line,) = server.log.read_text().splitlines()
        assert line.startswith("error: ")
        assert "SERVING_TOKENS" in line


def test_no_workers_is_one_clear_line(bundles: Path) -> None:
    with serving(bundles, SERVING_WORKERS="0") as server:
        assert server.process.wait(30) == 1
        (line,) = server.log.read_text().splitlines()
        assert "workers" in line


def registry(requests: int, up: int, waiting: int) -> CollectorRegistry:
    made = CollectorRegistry()
    for _ in range(requests):
        Counter("requests", "Requests.", ["route"], registry=made).labels("/").inc()
        Histogram("seconds", "Seconds.", buckets=(1,), registry=made).observe(2)
        break
    Gauge("journal_up", "Up.", registry=made).set(up)
    Gauge("journal_queue", "Lines.", registry=made).set(waiting)
    Gauge("info", "Served.", ["version"], registry=made).labels(str(up)).set(1)
    return made


def test_counts_are_added_and_outlive_their_worker(tmp_path: Path) -> None:
    def worker(number: int, *made: int) -> meters.Meters:
        one = meters.Meters(tmp_path, number)
        one.watch(registry(*made))
        return one

    def values(one: meters.Meters) -> dict[str, float]:
        lines = [x for x in one.text().decode().splitlines() if x[0] != "#" and "created" not in x]
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines)}

    first, second = worker(0, 1, 1, 5), worker(1, 1, 0, 7)
    second.leave()
    both = values(first)
    assert both == {
        'requests_total{route="/"}': 2,
        'seconds_bucket{le="1.0"}': 0,
        'seconds_bucket{le="+Inf"}': 2,
        "seconds_count": 2,
        "seconds_sum": 4,
        "journal_up": 0,
        "journal_queue": 12,
        'info{version="0"}': 1,
        'info{version="1"}': 1,
    }
    again = worker(1, 0, 1, 1)
    assert values(again)['requests_total{route="/"}'] == 2
    assert values(again)["journal_up"] == 1
    assert values(again) == values(first), "each tells the same"
    assert b"requests_created" in first.text()
    assert generate_latest(first.registry)
