"""A journal that cannot be written for a while, and a server without file handles."""

import os
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from frame import Case, Server, fault, wait_for


def outage(case: Case, server: Server, begin: Callable[[], object], end: Callable[[], object],
           seconds: float) -> None:  # fmt: skip
    """A journal that is away for some seconds: it is told, nothing is lost, and it recovers."""
    time.sleep(1)
    begin()
    try:
        wait_for(lambda: server.metric("journal_up") == 0, "journal_up says 0", 60)
        time.sleep(seconds)
    finally:
        end()
    wait_for(lambda: server.metric("journal_up") == 1, "the journal is written again")
    wait_for(lambda: server.metric("journal_queue") < 500, "the queue is written")
    case.expect(server.metric("journal_dropped") == 0, "lines were dropped")
    case.notes.append(f"away {seconds} s")


@fault("PostgreSQL away and back")
def postgresql(case: Case) -> None:
    """It is killed, and comes back: every row is there."""
    if not (pg_ctl := find_pg_ctl()):
        case.notes.append("skipped: no pg_ctl is installed")
        return
    with cluster(case, pg_ctl) as (run, url):
        with case.served(JOURNAL_URL=url) as server:
            begin, end = lambda: run("stop", "-m", "immediate"), lambda: run("start")
            outage(case, server, begin, end, 5 if case.short else 30)
        case.none_failed(server)


@fault("PostgreSQL refuses writes")
def refusing(case: Case) -> None:
    """It answers and takes none, as one does that became a replica: every row is there later."""
    if not (pg_ctl := find_pg_ctl()):
        case.notes.append("skipped: no pg_ctl is installed")
        return
    with cluster(case, pg_ctl) as (run, url):

        def refuse(answer: str) -> None:
            with (case.folder.parent / "cluster/data/postgresql.conf").open("a") as conf:
                conf.write(f"default_transaction_read_only = {answer}\n")
            run("reload")

        with case.served(JOURNAL_URL=url) as server:
            begin, end = lambda: refuse("on"), lambda: refuse("off")
            outage(case, server, begin, end, 5 if case.short else 30)
        case.none_failed(server)


def find_pg_ctl() -> Path | None:
    """PostgreSQL's own tool; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    which = shutil.which("pg_ctl")
    return Path(which) if which else found[-1] if found else None


@contextmanager
def cluster(case: Case, pg_ctl: Path) -> Iterator[tuple[Callable[..., None], str]]:
    """A PostgreSQL of the case's own, which runs; what calls pg_ctl on it, and its URL."""
    port = case.module("load.targets").free_port()
    home = case.folder.parent / "cluster"
    home.mkdir()
    user = "postgres" if os.geteuid() == 0 else None  # it does not run as root
    if user:
        shutil.chown(home, user)
        case.folder.parent.chmod(0o755)

    def run(*words: str) -> None:
        command = [str(pg_ctl), "-D", f"{home}/data", "-w", "-l", f"{home}/log", *words]
        subprocess.run(command, check=True, cwd=home, stdout=subprocess.DEVNULL, user=user)

    run("initdb", "-o", "-U journal -A trust -E UTF8 --locale=C.UTF-8")
    with (home / "data" / "postgresql.conf").open("a") as conf:
        conf.write(f"port = {port}\nlisten_addresses = '127.0.0.1'\n"
                   f"unix_socket_directories = '{home}'\n")  # fmt: skip
    run("start")
    try:
        yield run, f"postgresql+psycopg://journal@127.0.0.1:{port}/postgres"
    finally:
        run("stop", "-m", "immediate")


@fault("the journal's disk full")
def full(case: Case) -> None:
    """No file can grow, the log neither; SQLite goes on where it stopped."""
    with case.served() as server:
        pid = server.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        outage(
            case, server,
            lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, limits[1])),
            lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, limits),
            5 if case.short else 30,
        )  # fmt: skip
    case.none_failed(server)


@fault("the journal held by another process")
def held(case: Case) -> None:
    """And a queue too small for that long: what is dropped is counted, and nothing else is lost."""
    with case.served(JOURNAL_QUEUE="500") as server:
        wait_for(lambda: server.metric("journal_written") > 0, "the journal is written")
        with closing(sqlite3.connect(case.folder / "var/journal.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            wait_for(lambda: server.metric("journal_dropped") > 0, "lines are dropped")
            wait_for(lambda: server.metric("journal_up") == 0, "journal_up says 0", 60)
            other.rollback()
        wait_for(lambda: server.metric("journal_up") == 1, "the journal is written again")
        wait_for(lambda: server.metric("journal_queue") < 200, "the queue is written")
        server.load.stop()
        dropped = server.metric("journal_dropped")
    case.expect(not server.load.failed, f"a request failed: {server.load.failed[:1]}")
    case.expect(len(case.lost) == dropped, f"{len(case.lost)} rows lost, {dropped:.0f} counted")
    case.notes.append(f"{dropped:,.0f} rows dropped and counted")


@fault("the journal's file read-only")
def read_only(case: Case) -> None:
    """A server that starts so answers, and tells; what it cannot keep is counted."""
    with case.served() as server:  # which makes the file
        wait_for(lambda: server.metric("journal_written") > 0, "the journal is written")
    case.none_failed(server)
    url = case.journal_url.replace("///", "///file:") + "?mode=ro&uri=true"
    with case.served(JOURNAL_URL=url, JOURNAL_QUEUE="500") as server:
        wait_for(lambda: server.metric("journal_up") == 0, "journal_up says 0", 60)
        wait_for(lambda: server.metric("journal_dropped") > 0, "lines are dropped")
        server.load.stop()
        waiting, dropped = server.metric("journal_queue"), server.metric("journal_dropped")
    told = f"{waiting:.0f} lines were not written"
    case.expect(told in server.log.read_text(), f"the log does not say that {told}")
    case.expect(not server.load.failed, f"a request failed: {server.load.failed[:1]}")
    lost = waiting + dropped
    case.expect(len(case.lost) == lost, f"{len(case.lost)} rows lost, {lost:.0f} counted")
    case.notes.append(f"{dropped:,.0f} rows dropped and counted, {waiting:,.0f} waited at the end")


@fault("no file handles")
def handles(case: Case) -> None:
    """Open connections are served on; what is promoted meanwhile is read once there are some."""
    with case.served() as server:
        pid = server.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        opened = len([*Path(f"/proc/{pid}/fd").iterdir()])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened // 2, limits[1]))
        to = case.promote()
        time.sleep(5 if case.short else 30)
        case.expect(server.load.version != to, "a bundle was read without file handles")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        server.follows(to)
        wait_for(lambda: server.metric("bundle_refused") == 0, "bundle_refused says 0")
    case.none_failed(server)
