"""The two processes of `serve`: this one answers, the other fetches what was promoted."""

import ipaddress
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import uvicorn

from ..bundle import POINTER
from ..errors import UserError
from ..registry import signature
from ..settings import CANDIDATE, PACKAGE, Settings
from . import logs
from .access.limits import Limited
from .workers import processes
from .workers.meters import Meters

logger = logging.getLogger(__name__)
FOLLOW = f"{PACKAGE}.serving.follow"


def listen(host: str, port: int) -> socket.socket:
    """The socket to answer at; taken first of all, so that a busy port costs no waiting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(
            f"cannot listen at {host}:{port}: {getattr(error, 'strerror', None) or error}; "
            f"stop what uses it, or choose another: make serve PORT={port + 1}"
        ) from None
    return listener


def run(
    bundles: Path,
    settings: Settings,
    listener: socket.socket,
    environment: str = "",
    meters: Meters | None = None,
) -> None:
    """Answers until SIGTERM or SIGINT, then finishes what is under way and the journal.

    `meters` are given where this is one of several workers.
    """
    from .app import create_app  # heavy, and of no use to the parent of workers
    from .journal.store import journal_at

    logs.configure(settings.serving.log_level)
    journal = journal_at(settings.journal.url) if settings.journal.url else None
    app = create_app(bundles, journal, settings, environment, meters)
    host, port = listener.getsockname()[:2]
    first = meters is None or meters.number == 0  # of several workers one says it for all
    if first and not app.state.access and not ipaddress.ip_address(host).is_loopback:
        logger.warning(
            "no token is set: whoever reaches %s:%s may read and erase predictions and set "
            "outcomes; set SERVING_TOKENS or serving.tokens_file",
            host,
            port,
        )
    config = uvicorn.Config(
        app,
        http=Limited,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.serving.keep_alive_seconds,
        timeout_graceful_shutdown=settings.serving.stop_seconds,
    )
    # uvicorn raises the signal again once it is done: it must end here, not kill us half way out
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def serve(env: str, settings: Settings, follow: bool = True) -> None:
    """Serves what `env` holds, now and after each promotion, until SIGTERM or Ctrl-C.

    Without `follow` somebody else fetches the bundles, as in compose; or the folder of bundles
    names one itself, as in the image of a version, and that one is served in every environment.
    """
    signature.trusted()  # raises for a wrong key, before anything is served
    bundles = settings.serving.bundles
    one = not follow and (bundles / POINTER).exists()
    if settings.serving.candidate:
        _refuse_candidate(env, settings, one)
    listener = listen(settings.serving.host, settings.serving.port)
    if not one:
        bundles /= env
    with _follower(env, settings) if follow else nullcontext():
        if settings.serving.workers == 1:
            run(bundles, settings, listener, env)
        else:
            logs.configure(settings.serving.log_level)
            work = run, bundles, settings, listener, env
            processes.keep(settings.serving.workers, settings.serving.stop_seconds, *work)


def _refuse_candidate(env: str, settings: Settings, one: bool) -> None:
    """Raises UserError where no candidate can run beside what is served, `one` version or more."""
    shadow, why = settings.serving.shadow, ""
    given, unset = ("shadow", "SERVING_SHADOW=") if shadow else ("canary", "SERVING_CANARY=0")
    if env != "production":
        why = f"{CANDIDATE} holds the candidate for production, and {env} is served here"
    elif one:
        why = f"the folder {settings.serving.bundles} names one version, and holds no {CANDIDATE}"
    elif shadow and not settings.journal.url:
        why = "what a shadow says is kept in the journal, and there is none (journal.url is empty)"
    if why:
        raise UserError(f"serving.{given}: {why}; unset it here: {unset}")


@contextmanager
def _follower(env: str, settings: Settings) -> Iterator[None]:
    """Keeps `follow` running; it ends with us, since it reads a pipe that only we hold open.

    The settings in force go through that pipe: what was read once is not read wrong later. A stop
    kills it, which may be waiting for a registry: a bundle half fetched is a draft that nothing
    reads, and the next one fetches it again.
    """
    stopping = threading.Event()

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", FOLLOW, env]
        made = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        assert made.stdin
        with suppress(OSError):  # it ended before it read them
            made.stdin.write(pickle.dumps(settings))
            made.stdin.flush()
        return made

    child = [start()]

    def restart() -> None:
        while not stopping.is_set():
            code = child[0].wait()
            if not stopping.wait(5) and not stopping.is_set():
                logger.error("follow ended with %s and is started again", code)
                child[0] = start()

    threading.Thread(target=restart, name="follow", daemon=True).start()
    try:
        yield
    finally:
        stopping.set()
        child[0].kill()
        child[0].wait()
