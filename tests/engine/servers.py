"""Servers as processes of their own, and a client, for the tests of serving."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import flight_delays

from ..helpers import own_settings, wait_for

SOURCE = Path(flight_delays.__file__).parents[1]


@contextmanager
def no_handles() -> Iterator[None]:
    """No file can be opened within."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 20, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def free_port() -> int:
    """A port on the loopback that nobody listens at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Client:
    """Requests over one connection that stays open; not for several threads at once."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the JSON of an answer; raises OSError when nobody answers."""
        text = body if body is None or isinstance(body, bytes) else json.dumps(body)
        try:
            self.connection.request(method, path, text, {"content-type": "application/json"})
            answer = self.connection.getresponse()
            content = answer.read()
        except http.client.HTTPException as error:
            self.connection.close()
            raise OSError(str(error)) from error
        except OSError:
            self.connection.close()
            raise
        return answer.status, json.loads(content) if content else None


class Server:
    """`python -m <package> ARGUMENTS` in a folder, answering at `port`; leave it with `with`."""

    def __init__(self, *arguments: str, port: int, folder: Path, **env: str) -> None:
        self.port, self.log = port, folder / f"server-{port}.log"
        own = own_settings()
        inherited = {name: value for name, value in os.environ.items() if name not in own}
        path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flight_delays", *arguments],
                cwd=folder,
                env={**inherited, "PYTHONPATH": path, **env},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.client = Client(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.client.connection.close()

    def status(self, path: str) -> int:
        """The status of a GET; 0 when nobody answers."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client("GET", path)[0]
        except OSError:
            return 0

    def ready(self) -> Self:
        """Waits until it serves a model."""
        wait_for(lambda: self.status("/readyz") == 200)
        return self

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Sends a signal; the exit code."""
        self.process.send_signal(how)
        return self.process.wait(30)


def serving(bundles: Path, port: int = 0, **env: str) -> Server:
    """A server of the folder of bundles of `test`, beside which it runs; nothing fetches them."""
    port, folder = port or free_port(), bundles.parent
    env |= {"SERVING_BUNDLES": str(folder)}
    return Server("serve", "--no-follow", "--port", str(port), port=port, folder=folder, **env)
