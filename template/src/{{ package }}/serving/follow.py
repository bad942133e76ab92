"""Fetches what an environment holds, as it changes, into the folder that the server reads."""

import logging
import os
import pickle
import shutil
import signal
import sys
import threading
import time

from ..bundle import POINTER, load
from ..errors import BundleError, UserError, passing, reason
from ..files import write
from ..registry import signature
from ..registry.base import Registry
from ..settings import CANDIDATE, Settings, how_to_fill
from . import logs
from .live import LEASE, REFUSED

logger = logging.getLogger(__name__)
KEEP = 2
"""Versions kept beside the current one, so that a rollback needs no download."""
SLOWEST = 300.0
"""Seconds between two tries while the registry is down, at most."""
STALE = 3600.0
"""Seconds after which a half-done download is some killed process's."""


class Follower:
    """Keeps `serving.bundles`/ENV in step with the registry; `current` there names the version."""

    def __init__(self, env: str, settings: Settings) -> None:
        self.env, self.settings = env, settings
        self.folder = settings.serving.bundles / env
        self._verified: str | None = None
        self._refused: str | None = None
        self._registry: Registry | None = None

    @property
    def registry(self) -> Registry:
        """The settings' registry."""
        if self._registry is None:
            from ..registry.store import connect  # slow to import

            self._registry = connect(self.settings)
        return self._registry

    def look(self) -> str | None:
        """Fetches and verifies what the environment holds; the version, None if there is none.

        Raises BundleError once for a version that is refused; RegistryUnavailable, Unreadable
        and OSError when it may be tried again, with what was fetched left as it is.
        """
        registry = self.registry
        version = registry.alias(self.env)
        if version is None or version == self._refused:
            return version
        if version == self._verified and (self.folder / version).is_dir():
            return version
        had = self._made(version)
        try:
            load(registry.pull(version, self.folder, self.env))
        except BundleError as error:
            self._verified = None
            shutil.rmtree(self.folder / version, ignore_errors=True)
            write(self.folder / REFUSED, str(error))
            self._refused = version  # at the end: a full disk must not be what is remembered
            raise
        (self.folder / REFUSED).unlink(missing_ok=True)
        if had != self._made(version) or not self._points_to(version):
            write(self.folder / POINTER, version)
        self._refused, self._verified = None, version
        logger.info("%s holds version %s", self.env, version)
        self._prune(version)
        return version

    def _made(self, version: str) -> int | None:
        """When the copy here was made; another one is loaded anew."""
        copy = self.folder / version
        return copy.stat().st_ctime_ns if copy.is_dir() else None

    def _points_to(self, version: str) -> bool:
        pointer = self.folder / POINTER
        return pointer.exists() and pointer.read_text() == version

    def _prune(self, current: str) -> None:
        found = [p for p in self.folder.iterdir() if p.is_dir() and p.name != current]
        drafts = [p for p in found if p.name.startswith(".")]
        versions = sorted(set(found) - set(drafts), key=lambda p: p.stat().st_mtime, reverse=True)
        stale = [p for p in drafts if time.time() - p.stat().st_mtime > STALE]
        for path in (*versions[KEEP:], *stale):
            shutil.rmtree(path, ignore_errors=True)


class CandidateFollower(Follower):
    """The same for what runs beside production; renews the lease by which that may answer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(CANDIDATE, settings)
        self._said = ""

    def look(self) -> str | None:
        """As that of any environment."""
        version, said = super().look(), ""
        if version is None:
            said = f"{CANDIDATE} holds no version, so nothing runs beside production"
        elif self.settings.serving.canary:
            leased = may_answer(version, self.registry)
            write(self.folder / LEASE, version if leased else "")
            if not leased:
                said = f"version {version} is no canary: production has had it, or a newer one"
        if said and said != self._said:
            logger.warning(said)
        self._said = said
        return version


def may_answer(version: str, registry: Registry) -> bool:
    """Whether a candidate is newer than what production holds, and was never there.

    So one that was promoted, or taken back, is no canary.
    """
    holder = registry.alias("production")
    if holder is None or int(version) <= int(holder):
        return False
    moves = registry.moves("production")  # read last: a move made meanwhile counts
    return all(version not in (move.to, move.back_from) for move in moves)


def follow(
    env: str, settings: Settings, once: bool = False, stop: threading.Event | None = None
) -> None:
    """Looks every `serving.poll` seconds until `stop`; the registry may be down for any time.

    What runs beside production is followed by a thread of its own, so that nothing that is wrong
    with it keeps production waiting. With `once` it looks once, at `env` alone, and raises what
    there is to say as a UserError.
    """
    signature.trusted()  # raises for a wrong key, which waiting does not mend
    follower = Follower(env, settings)
    if once:
        if follower.look() is None:
            raise UserError(f"{env} holds no version; run `{how_to_fill(env)}` first")
        return
    stop = stop or threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, lambda *_: stop.set())
    if env == "production" and settings.serving.candidate:
        beside = CandidateFollower(settings)
        threading.Thread(target=_keep, args=(beside, stop), name="candidate", daemon=True).start()
    _keep(follower, stop)


def _keep(follower: Follower, stop: threading.Event) -> None:
    poll = follower.settings.serving.poll
    trouble, delay = "", poll
    while not stop.is_set():
        try:
            follower.look()
        except BundleError as error:
            logger.error("%s; what is served goes on", error)
        except Exception as error:  # whatever it is, what is served goes on, and so does this
            kind = type(error).__name__
            if kind != trouble:
                logger.error(
                    "%s; what is served goes on, and it will be tried again",
                    reason(error),
                    exc_info=not (isinstance(error, UserError) or passing(error)),
                )
            trouble, delay = kind, min(delay * 2, SLOWEST)
        else:
            if trouble:
                logger.warning("the registry answers again, and what it holds was read")
            trouble, delay = "", poll
        stop.wait(delay)


def main() -> None:
    """As `serve` starts it: `-m <package>.serving.follow ENV`, until standard input is closed.

    What comes there first are the settings that the server runs with.
    """
    stop = threading.Event()

    def parent() -> None:
        # The other end of the pipe is the server's alone: whatever ends it, even a kill, ends us.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        stop.set()
        time.sleep(10)
        os._exit(0)

    settings: Settings = pickle.load(sys.stdin.buffer)
    logs.configure(settings.serving.log_level)
    threading.Thread(target=parent, daemon=True).start()
    follow(sys.argv[1], settings, stop=stop)


if __name__ == "__main__":
    main()
