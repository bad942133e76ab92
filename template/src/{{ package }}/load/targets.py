"""A bundle served on trial: by a server of our own, by an image, or by one that runs already."""

import ipaddress
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..bundle import ROWS, Bundle, put
from ..errors import UserError, reason, shown
from ..predict import predict
from ..settings import PACKAGE

OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
"""Straight to the server, as Locust goes."""
ALONE = {
    "SERVING_TOKENS": "",
    "SERVING_TOKENS_FILE": "",
    "SERVING_SHADOW": "",
    "SERVING_CANARY": "0",
}
"""A server of our own asks for no token and has no candidate, whatever the settings say."""
HARDENED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
HARDENED += ["--security-opt", "no-new-privileges"]


@contextmanager
def server(bundle: Bundle) -> Iterator[str]:
    """The address of a server of our own, with a journal of its own."""
    with _folder(bundle) as folder, (folder / "log").open("w+") as log:
        port = free_port()
        command = [sys.executable, "-m", PACKAGE, "serve", "--no-follow"]
        own = {
            "JOURNAL_URL": f"sqlite:///{folder}/journal.db",
            "SERVING_BUNDLES": str(folder),
            "SERVING_HOST": "127.0.0.1",
            **ALONE,
        }
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=os.environ | own, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _ready(url, lambda: process.poll() is None, (folder / "log").read_text)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def container(
    bundle: Bundle, image: str, engine: str = "docker", baked: bool = False
) -> Iterator[str]:
    """The address of an image that serves the bundle, with no rights and nothing to write to.

    The bundle is given to it, unless it is `baked` into the image.
    Raises UserError when it does not start, is not ready, or does not stop when it is asked to.
    """

    def client(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([engine, *arguments], check=False, capture_output=True, text=True)

    def logs() -> str:
        found = client("logs", name)
        return found.stdout + found.stderr

    port, name = free_port(), f"{PACKAGE}-{os.getpid()}-{time.monotonic_ns()}"
    with _folder(bundle) as folder:
        place = ["--publish", f"127.0.0.1:{port}:8000"]
        if not baked:
            place += ["--volume", f"{folder}:/bundles:ro", "--env", "SERVING_BUNDLES=/bundles"]
        place += ["--env", "JOURNAL_URL=sqlite:////tmp/journal.db"]
        place += [word for pair in ALONE.items() for word in ("--env", "=".join(pair))]
        try:
            started = client("run", "--detach", "--name", name, *HARDENED, *place, image)
        except FileNotFoundError:
            text = f"{engine} is not installed; say ENGINE=podman if you have that"
            raise UserError(text) from None
        try:
            if started.returncode:
                raise UserError(f"{image} does not start: {_end(started.stderr)}")
            running = ("inspect", "--format", "{{.State.Running}}", name)
            url = f"http://127.0.0.1:{port}"
            _ready(url, lambda: "true" in client(*running).stdout, logs)
            yield url
            client("stop", name)
            code = client("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip()
            if code != "0":
                raise UserError(f"{image} was asked to stop and ended with {code}: {_end(logs())}")
        finally:
            client("rm", "--force", "--volumes", name)


def _end(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:])


@contextmanager
def running(bundle: Bundle, url: str) -> Iterator[str]:
    """`url`, if it serves this very bundle; raises UserError if not."""
    url = url.rstrip("/")
    try:
        with OPEN(f"{url}/version", timeout=10) as answer:
            served = json.load(answer)
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(
            f"{shown(url)}/version does not answer: {reason(error, url)}; start the server, or "
            "check URL="
        ) from None
    if served.get("digest") != bundle.digest:
        raise UserError(
            f"{shown(url)} serves version {served.get('version')} ({served.get('digest')}), not "
            f"{bundle.version} ({bundle.digest}); choose the ENV whose version it serves"
        )
    yield url


def smoke(bundle: Bundle, url: str) -> int:
    """Compares what a server answers to the examples with the prediction; returns how many.

    Raises UserError naming the first that differs.
    """
    rows = [example["features"] for example in bundle.examples]
    body = json.dumps({"rows": [{"features": row} for row in rows]}).encode()
    asked = urllib.request.Request(
        f"{url}/predictions/batch", body, {"content-type": "application/json"}
    )
    with OPEN(asked, timeout=30) as answer:
        answers = json.load(answer)["predictions"]
    wanted = predict(bundle, ROWS.validate_python(rows))
    for i, (given, right) in enumerate(zip(answers, wanted, strict=True)):
        if not _same(right, {key: given.get(key) for key in right}):
            raise UserError(f"{shown(url)}: example {i} was answered {given}, not {right}")
    return len(rows)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(_same(one[key], other.get(key)) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-4)
    return one == other


@contextmanager
def _folder(bundle: Bundle) -> Iterator[Path]:
    """A folder that serves the bundle, and that any user may read."""
    with tempfile.TemporaryDirectory() as tmp:
        put(bundle, Path(tmp))
        yield Path(tmp)


def _ready(url: str, alive: Callable[[], bool], log: Callable[[], str]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError, HTTPException), OPEN(f"{url}/readyz", timeout=5):
            return
        if not alive():
            last = (log().strip() or "no output").splitlines()[-1]
            raise UserError(f"the server ended: {last}")
        time.sleep(0.1)
    raise UserError("the server was not ready within 60 s")


def loopback(url: str) -> bool:
    """Whether the address is of this machine."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def anywhere(host: str) -> bool:
    """Whether what is bound to `host` listens at every address of this machine."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return host == "*"


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
