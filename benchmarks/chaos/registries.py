"""A registry that is away, slow, wrong or points to nothing: what is served goes on."""

import random
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

from frame import Case, fault


@fault("registry in var/ away, locked, garbage, without the version")
def local(case: Case) -> None:
    """Each time what is promoted afterwards is followed."""
    database, copy = case.folder / "var/mlflow.db", case.folder / "var/copy.db"
    seconds = 3 if case.short else 20

    def sql(*texts: str) -> None:
        with closing(sqlite3.connect(database, timeout=60)) as db, db:
            for text in texts:
                db.execute(text)

    def away() -> None:
        database.rename(copy)
        time.sleep(seconds)
        database.unlink(missing_ok=True)  # whoever looked made an empty one
        copy.rename(database)

    def locked() -> None:
        with closing(sqlite3.connect(database, timeout=60)) as db:
            db.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)

    def garbage() -> None:
        content = database.read_bytes()
        database.write_bytes(random.randbytes(100_000))
        time.sleep(seconds)
        database.write_bytes(content)  # the same file: who has it open reads on

    def deleted() -> None:
        held = case.registry.alias("test")
        sql("UPDATE registered_model_aliases SET version = 99 WHERE alias = 'test'")
        time.sleep(seconds)
        sql(f"UPDATE registered_model_aliases SET version = {held} WHERE alias = 'test'")  # noqa: S608

    with case.served() as server:
        for broken in (away, locked, garbage, deleted):
            before = server.load.version
            broken()
            case.expect(server.load.version == before, f"{broken.__name__}: it served another")
            server.follows(case.promote())
    case.none_failed(server)
    case.notes.append("each then followed by a promotion")


def silent(_: socket.socket) -> None:
    """Takes the connection, and says nothing for longer than a client waits."""
    time.sleep(60)


def answers(head: bytes, body: bytes) -> Callable[[socket.socket], None]:
    """Answers every request so."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 " + head + b"\r\nconnection: close\r\n")
        connection.sendall(b"content-length: %d\r\n\r\n" % len(body) + body)

    return answer


SERVERS = {
    "down": None,
    "silent": silent,
    "closing": lambda _: None,
    "random bytes": lambda connection: connection.sendall(random.randbytes(5000)),
    "500": answers(b"500 Oh", b"<html>no</html>"),
    "503": answers(b"503 Away\r\nretry-after: 7200", b""),
    "a web page": answers(b"200 OK\r\ncontent-type: text/html", b"<html>log in</html>"),
    "no JSON": answers(b"200 OK\r\ncontent-type: application/json", b'{"registered_model": '),
    "other JSON": answers(b"200 OK\r\ncontent-type: application/json", b'[{"version": 7}, null]'),
    "endless redirects": answers(b"302 Found\r\nlocation: /", b""),
}


@contextmanager
def stand_in(behave: Callable[[socket.socket], None] | None) -> Iterator[str]:
    """The address of a registry that behaves so; of None nobody listens there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if behave:
            listener.listen(50)

            def one(connection: socket.socket) -> None:
                with connection, suppress(OSError):
                    behave(connection)

            def accept() -> None:
                with suppress(OSError):
                    while True:
                        threading.Thread(
                            target=one, args=(listener.accept()[0],), daemon=True
                        ).start()

            threading.Thread(target=accept, daemon=True).start()
        yield "http://{}:{}".format(*listener.getsockname())


@fault("registry at an address that is down, silent or answers garbage")
def remote(case: Case) -> None:
    """A server that starts while its registry is so serves what it had."""
    case.run("follow", "--once")
    names = [*SERVERS][: 3 if case.short else None]
    for name in names:
        with stand_in(SERVERS[name]) as address:
            with case.served(MLFLOW_TRACKING_URI=address) as server:
                time.sleep(3 if case.short else 15)
                follower = server.follower()
                case.expect(follower is not None, f"{name}: the follower ended")
            case.none_failed(server)
    case.notes.append(f"{len(names)} ways")
