"""The journal: order, windows, outcomes early, late and twice, erasure, a database that fails."""

import json
import logging
import signal
import sqlite3
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa

from flight_delays import errors
from flight_delays.bundle import load as load_bundle
from flight_delays.cli import doctor
from flight_delays.monitoring import monitor, verdict
from flight_delays.serving.journal import queue as writers
from flight_delays.serving.journal import store as journals
from flight_delays.serving.journal import tables
from flight_delays.settings import load as load_settings

from ..helpers import wait_for, write_records
from .servers import Client, serving

Journal, Record = journals.Journal, journals.Record
START = datetime(2020, 1, 1)
HOUR = timedelta(hours=1)


def record(n: int, at: datetime = START, **other: Any) -> Any:
    """A prediction with what is hard to keep: a NUL, a quote, no ASCII, a small difference."""
    features = {"a": 0.1 + n, "b": None, "c": "é\0'\"\\%s🛫"}
    made = Record(f"id{n}", f"key{n}", at, "1", "digest", features, {"prediction": "x"})
    return made._replace(**other)


def put_outcome(journal: Any, id: str, outcome: Any, at: datetime | None = None) -> None:
    journal.insert_outcomes([tables.outcome_line(id, outcome, at)])


def test_what_is_written_is_read(journal: Any) -> None:
    records = [record(n, outcome=[None, 0, False, "x", 1.5][n % 5]) for n in range(10)]
    write_records(journal, records)
    kept = journal.rows()
    now = datetime.now(UTC).replace(tzinfo=None)
    assert all(now - HOUR < row.written <= now for row in kept)
    assert [row._replace(labelled_at=None, written=None) for row in kept] == records
    assert [row.labelled_at is None for row in kept] == [row.outcome is None for row in records]
    assert journal.get("id3") == kept[3]
    assert journal.get("nobody") is None


def test_writing_again_changes_nothing(journal: Any) -> None:
    write_records(journal, [record(0), record(1)])
    write_records(journal, [record(0, version="2"), record(2)])
    assert [r.version for r in journal.rows()] == ["1", "1", "1"]


def test_the_newest_by_event_time_oldest_first(journal: Any) -> None:
    hours = [3, 1, 2, 1, 0]
    write_records(journal, [record(n, START + HOUR * hour) for n, hour in enumerate(hours)])
    assert [r.id for r in journal.rows()] == ["id4", "id1", "id3", "id2", "id0"]
    assert [r.id for r in journal.rows(limit=3)] == ["id3", "id2", "id0"]
    since = journal.rows(since=START + HOUR)
    assert [r.id for r in since] == ["id1", "id3", "id2", "id0"]


def test_windows_by_version_and_label(journal: Any) -> None:
    write_records(journal, [record(n, version=str(n % 2), outcome=n or None) for n in range(4)])
    assert [r.id for r in journal.rows(version="1")] == ["id1", "id3"]
    assert [r.id for r in journal.rows(labelled=True)] == ["id1", "id2", "id3"]
    assert [r.id for r in journal.rows(labelled=False)] == ["id0"]
    assert [r.id for r in journal.rows(version="0", labelled=True, limit=1)] == ["id2"]


def test_an_outcome_may_come_first_and_twice(journal: Any) -> None:
    put_outcome(journal, "id0", "early")
    put_outcome(journal, "key1", 1, START)
    assert journal.rows() == []
    write_records(journal, [record(0), record(1), record(2, START + HOUR, key="key1")])
    assert [r.outcome for r in journal.rows()] == ["early", 1, None]
    put_outcome(journal, "id0", "late")
    put_outcome(journal, "key1", 2, START)
    assert [r.outcome for r in journal.rows()] == ["late", 2, None]


def test_erasure_takes_the_outcomes_along(journal: Any) -> None:
    write_records(journal, [record(0), record(1), record(2, key="key1")])
    put_outcome(journal, "id0", 1)
    put_outcome(journal, "key1", 1, START)
    assert journal.erase("id0")
    assert not journal.erase("id0")
    assert journal.erase_key("key1") == 2
    write_records(journal, [record(0), record(1)])
    assert [r.outcome for r in journal.rows()] == [None, None]


def test_retention_counts_from_the_writing(journal: Any) -> None:
    write_records(journal, [record(0, datetime(1990, 1, 1), outcome=1)])
    assert journal.prune(datetime(2000, 1, 1)) == 0, "an old event may be written today"
    assert journal.prune(datetime(3000, 1, 1)) == 1
    write_records(journal, [record(0)])
    assert journal.rows()[0].outcome is None


def test_an_older_schema_is_upgraded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Journal(url)
    write_records(first, [record(0)])
    first.close()
    steps = [*tables.MIGRATIONS, "ALTER TABLE predictions ADD COLUMN extra INTEGER"]
    monkeypatch.setattr(tables, "MIGRATIONS", steps)
    for _ in range(2):
        later = Journal(url)
        (kept,) = later.rows()
        assert kept == record(0, written=kept.written)
        later.close()


def test_rows_from_before_there_were_environments_are_productions(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tables, "MIGRATIONS", tables.MIGRATIONS[:4])
        first = Journal(url)
        with first.engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO predictions (id, at, version, contract, features, prediction, written)"
                " VALUES ('old', '2020-01-01', '1', 'digest', '{}', '{}', '2020-01-01')"
            )
        first.close()
    later = Journal(url)
    write_records(
        later, [record(n, environment=env) for n, env in enumerate(("test", "production", ""))]
    )
    assert [r.environment for r in later.rows()] == ["", "test", "production", ""]
    assert [r.id for r in later.rows(environment="production")] == ["old", "id1", "id2"]
    assert [r.id for r in later.rows(environment="test")] == ["id0"]
    assert later.rows(environment="staging") == []
    old, kept = later.get("old"), later.get("id1")
    assert old is not None
    assert kept is not None
    assert old.written == START
    assert kept == record(1, environment="production", written=kept.written)
    later.close()


def test_the_monitor_of_production_does_not_read_what_test_served(
    journal: Any, bundle_dir: Path
) -> None:
    write_records(journal, [record(n, environment="test", outcome=1) for n in range(3)])
    settings = load_settings().monitor
    seen = verdict.Verdict("unknown", "", "production", "1")
    bundle, now = load_bundle(bundle_dir), datetime.now(UTC).replace(tzinfo=None)
    monitor.watch(seen, bundle, journal, settings, now)
    assert (seen.verdict, seen.rows, seen.labelled, seen.until) == ("unknown", 0, 0, None)
    assert seen.reason.startswith("version 1 has 0 labelled rows; ")
    assert "labels come" not in seen.reason


def test_rows_are_counted_as_they_are_read(journal: Any) -> None:
    """Half of them at the same instant, as a batch is."""
    write_records(
        journal,
        [
            record(
                n,
                START + HOUR * max(0, n - 10),
                version=str(n % 2),
                outcome=n if n % 3 else None,
                environment=["test", "production"][n % 4 > 1],
            )
            for n in range(20)
        ],
    )
    spans = None, START + HOUR
    environments = None, "test", "production", "staging"
    for version, labelled, span, environment in product(
        (None, "1"), (None, True, False), spans, environments
    ):
        asked = version, labelled
        within = {"since": span, "environment": environment}
        rows = journal.rows(*asked, **within)
        assert journal.count(*asked, **within) == len(rows)
        assert journal.rows(*asked, **within, limit=7) == rows[-7:], "ties as they came"


def test_doctor_counts_the_labelled_rows_and_reads_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    journal = Journal(url)
    write_records(journal, [record(n, outcome=n or None) for n in range(3)])
    journal.close()
    monkeypatch.setattr(Journal, "rows", None)
    said = doctor._journal(load_settings(journal={"url": url}))
    assert said == f"{url}, 2 labelled rows"


def test_when_an_outcome_came_changes_only_with_it(journal: Any) -> None:
    def told() -> list[datetime]:
        return [r.labelled_at for r in journal.rows()]

    def put(outcome: Any) -> None:
        put_outcome(journal, "id0", outcome)  # by id, before its prediction
        put_outcome(journal, "key1", outcome, START)  # by key

    put(1)
    early = datetime.now(UTC).replace(tzinfo=None)
    write_records(journal, [record(0), record(1)])
    first = told()
    assert all(early - HOUR < at <= early for at in first)
    put(1)
    assert told() == first, "a client that repeats itself tells nothing new"
    put(2)
    assert [r.outcome for r in journal.rows()] == [2, 2]
    assert all(at > before for at, before in zip(told(), first, strict=True))


def test_a_long_reader_holds_up_no_writer(journal: Any) -> None:
    write_records(journal, [record(n) for n in range(3000)])
    with journal.engine.connect().execution_options(yield_per=10) as connection:
        rows = iter(connection.exec_driver_sql("SELECT id FROM predictions"))
        next(rows)
        start = monotonic()
        write_records(journal, [record(n, outcome=n) for n in range(3000, 3010)])
        journal.erase("id3001")
        assert monotonic() - start < 5
        assert sum(1 for _ in rows) == 2999, "what it began to read"
    assert journal.count() == 3009


def test_many_open_and_write_at_once(url: str) -> None:
    def write(n: int) -> None:
        mine = Journal(url)
        for i in range(5):
            write_records(mine, [record(n * 100 + i)])
        mine.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = Journal(url)
    assert len(reader.rows()) == 20
    reader.close()


def test_a_file_that_another_is_writing_to_is_waited_for(tmp_path: Path) -> None:
    """To change the mode of a new file fails at once, whatever the timeout."""
    path = tmp_path / "journal.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.2, other.execute, ["COMMIT"])
    done.start()
    mine = Journal(f"sqlite:///{path}")
    write_records(mine, [record(1)])
    assert len(mine.rows()) == 1
    mine.close()
    done.join()
    other.close()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite+nonsense:///x"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(errors.UserError, match=r"journal\.url"):
        journals.journal_at(url)


def test_a_database_that_is_down_is_told() -> None:
    address = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    with (
        pytest.raises(errors.UserError, match="JOURNAL_URL"),
        journals.opened(address),
    ):
        pass


CLOSED = sa.exc.OperationalError("insert", {}, Exception("server closed the connection"))


class Down(Journal):  # type: ignore[valid-type, misc]
    """A journal whose database can be switched off."""

    down = False
    error: Exception = CLOSED
    tries = 0

    def _insert(self, *lines: Any) -> None:
        self.tries += 1
        if self.down:
            raise self.error
        super()._insert(*lines)


def written(n: int) -> bytes:
    return tables.line(f"id{n}", None, START, "1", "digest", {}, {})


def test_down_and_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "SLOWEST", 0.02)
    journal = Down(f"sqlite:///{tmp_path}/journal.db")
    journal.down = True
    writer = writers.Writer(journal, interval=0.01, max_lines=5)
    writer.start()
    writer.add_outcome(tables.outcome_line("id0", 1))
    came = datetime.now(UTC).replace(tzinfo=None)
    kept = [writer.add(written(n)) for n in range(8)]
    wait_for(lambda: not writer.up)
    threading.Event().wait(0.1)  # several more tries
    assert kept == [True] * 5 + [False] * 3
    assert writer.dropped == 3
    assert writer.holds("id0")
    assert not writer.holds("id7")
    assert len(tell(caplog, logging.ERROR)) == 2, "down, and full: once each"
    journal.down = False
    wait_for(lambda: writer.waiting == 0)
    assert [r.id for r in journal.rows()] == [f"id{n}" for n in range(5)]
    assert journal.get("id0").labelled_at <= came, "not when it could be written"
    wait_for(lambda: writer.up)
    assert any("written again" in text for text in tell(caplog, logging.WARNING))
    assert writer.add(written(9))
    writer.stop()
    assert journal.get("id9"), "a stop writes what is queued"


class Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("log_fails", [False, True])
@pytest.mark.parametrize(
    "error", [MemoryError(), Mute(), sa.exc.OperationalError("", {}, Exception())], ids=repr
)
def test_no_error_ends_the_thread_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, log_fails: bool
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(writers, "SLOWEST", 0.02)
    if log_fails:
        monkeypatch.setattr(writers.logger, "error", fail)
    journal = Down(f"sqlite:///{tmp_path}/journal.db")
    journal.down, journal.error = True, error
    writer = writers.Writer(journal, interval=0.01, max_lines=5)
    writer.start()
    writer.add(written(0))
    wait_for(lambda: not writer.up)
    journal.down = False
    wait_for(lambda: writer.waiting == 0, seconds=5)
    wait_for(lambda: writer.up)
    writer.stop()
    assert Journal(f"sqlite:///{tmp_path}/journal.db").get("id0")


def test_the_queue_is_bounded_by_bytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(f"sqlite:///{tmp_path}/journal.db")
    size = len(written(0))
    writer = writers.Writer(journal, interval=60, max_lines=100, max_bytes=size * 3.5)
    assert [writer.add(written(n)) for n in range(5)] == [True] * 3 + [False] * 2
    assert (writer.waiting, writer.dropped) == (3, 2)
    assert len(tell(caplog, logging.ERROR)) == 1
    writer.flush()
    assert writer.add(written(5)), "there is room again"
    writer.flush()
    assert (writer.bytes, journal.count()) == (0, 4)
    journal.close()


def test_no_byte_is_counted_wrong_when_all_add_at_once(tmp_path: Path) -> None:
    journal = Journal(f"sqlite:///{tmp_path}/journal.db")
    writer = writers.Writer(journal, interval=0.001, max_lines=100_000)
    writer.start()

    def add(start: int) -> None:
        for n in range(start, start + 2000):
            writer.add(written(n))

    threads = [threading.Thread(target=add, args=(n * 10_000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.stop()
    assert (writer.waiting, writer.bytes, writer.written) == (0, 0, 8000)


def test_a_batch_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(f"sqlite:///{tmp_path}/journal.db")
    writer = writers.Writer(journal, interval=60, max_lines=100)
    monkeypatch.setattr(writers, "BATCH_BYTES", 2 * len(written(0)))
    batches: list[int] = []
    insert = journal.insert_predictions

    def count(lines: Any) -> None:
        batches.append(len(lines))
        insert(lines)

    monkeypatch.setattr(journal, "insert_predictions", count)
    for n in range(5):
        writer.add(written(n))
    writer.add(written(5).replace(b'"{}"', b'"{' + b" " * 1000 + b'}"'))
    writer.flush()
    assert (batches, journal.count()) == ([2, 2, 1, 1], 6)
    journal.close()


def test_retention_that_failed_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def prune(before: datetime) -> int:
        tries.append(before)
        if len(tries) < 3:
            raise OSError("read-only file system")
        return 0

    monkeypatch.setattr(writers, "SLOWEST", 0.02)
    journal = Journal(f"sqlite:///{tmp_path}/journal.db")
    monkeypatch.setattr(journal, "prune", prune)
    writer = writers.Writer(journal, interval=0.01, max_lines=5, retention=timedelta(days=1))
    writer.start()
    wait_for(lambda: len(tries) == 3 and writer.up)
    writer.stop()
    assert len([text for text in tell(caplog, logging.WARNING) if "written again" in text]) == 1


def test_a_line_that_is_refused_does_not_hold_up_the_others(tmp_path: Path) -> None:
    journal = Journal(f"sqlite:///{tmp_path}/journal.db")
    writer = writers.Writer(journal, interval=60, max_lines=100)
    for n in range(10):
        writer.add(written(n) if n != 6 else b'{"id":"id6"}')
    writer.flush()
    assert len(journal.rows()) == 9
    assert (writer.waiting, writer.dropped) == (0, 1)
    journal.close()


def test_a_stop_with_the_database_down_says_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Down(f"sqlite:///{tmp_path}/journal.db")
    journal.down = True
    writer = writers.Writer(journal, interval=60, max_lines=100)
    writer.start()
    writer.add(written(0))
    writer.stop()
    assert "1 lines were not written" in tell(caplog, logging.ERROR)[-1]
    assert journal.tries == 1, "a database that is down may take long to say so"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_server_that_ends_under_load_has_acknowledged(
    bundles: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """A clean stop loses nothing; a kill only what came within flush_seconds and a write."""
    url, flush, write = f"sqlite:///{tmp_path}/journal.db", 0.3, 1.0
    body = {"features": json.loads((bundles / "1" / "examples.json").read_text())[0]["features"]}
    acknowledged: list[tuple[float, str]] = []
    server = serving(bundles, JOURNAL_URL=url, JOURNAL_FLUSH_SECONDS=str(flush))

    def ask() -> None:
        client = Client(server.port)
        with suppress(OSError):
            while True:
                status, answer = client("POST", "/predictions", body)
                assert status == 200
                acknowledged.append((monotonic(), answer["id"]))

    with server:
        server.ready()
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        threading.Event().wait(2.5)
        at = monotonic()
        assert server.stop(how) == (0 if how == signal.SIGTERM else -how)
        for thread in threads:
            thread.join()
    journal = Journal(url)
    kept = {row.id for row in journal.rows()}
    journal.close()
    last = at - flush - write if how == signal.SIGKILL else monotonic()
    due = {id for told, id in acknowledged if told < last}
    assert len(due) > 100
    assert not due - kept


def tell(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level]
