"""What fetches bundles: pointer, refusals, a registry that is down; and `serve`'s two processes."""

import asyncio
import errno
import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flight_delays import bundle as bundles
from flight_delays import errors, predictor
from flight_delays.registry import store as registries
from flight_delays.serving import follow as following
from flight_delays.serving import live as serving_live
from flight_delays.serving import metrics
from flight_delays.serving import run as running
from flight_delays.serving.journal.store import Journal
from flight_delays.settings import load as load_settings

from ..helpers import own_settings, wait_for
from .servers import Server, free_port, no_handles


class Registry:
    """A registry of folders, in the place of the real one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.holds: str | None = None
        self.down = False
        self.pulled: list[str] = []

    def __call__(self, _: Any) -> "Registry":
        return self

    def alias(self, environment: str) -> str | None:
        assert environment == "staging"
        if self.down:
            raise errors.RegistryUnavailable("the registry does not answer")
        return self.holds

    def pull(self, version: str, to: Path, environment: str) -> Path:
        assert environment == "staging"
        digest = bundles.sha256(self.folder / version / "manifest.json")[:12]
        if not bundles.intact(to / version, digest):
            self.pulled.append(version)
            shutil.rmtree(to / version, ignore_errors=True)
            shutil.copytree(self.folder / version, to / version)
        return to / version


@pytest.fixture
def registry(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Versions 1 to 6, all good but 3, and nothing promoted."""
    monkeypatch.chdir(tmp_path)
    for name in own_settings():
        monkeypatch.delenv(name)
    folder = tmp_path / "registry"
    for version in range(1, 7):
        shutil.copytree(bundle_dir, folder / str(version))
    (folder / "3" / "manifest.json").write_text("{}")
    made = Registry(folder)
    monkeypatch.setattr(registries, "connect", made)
    return made


@pytest.fixture
def follower(registry: Registry) -> Any:
    return following.Follower("staging", load_settings())


def current(follower: Any) -> str:
    return (follower.folder / "current").read_text()


def test_the_pointer_follows_the_alias(follower: Any, registry: Registry) -> None:
    assert follower.look() is None
    assert not (follower.folder / "current").exists()
    for version in ("1", "2", "1"):
        registry.holds = version
        for _ in range(2):
            assert follower.look() == version
            assert current(follower) == version
    assert registry.pulled == ["1", "2"], "a rollback needs no download"


def test_a_refused_bundle_is_told_once_and_changes_nothing(
    follower: Any, registry: Registry
) -> None:
    registry.holds = "1"
    follower.look()
    registry.holds = "3"
    with pytest.raises(errors.BundleError):
        follower.look()
    assert follower.look() == "3"
    assert current(follower) == "1"
    assert "refused" in (follower.folder / "refused").read_text(), "the server counts it"
    registry.holds = "4"
    follower.look()
    assert current(follower) == "4"
    assert not (follower.folder / "refused").exists()


@pytest.mark.format
def test_what_cannot_be_read_now_is_kept_and_read_later(
    follower: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.holds = "1"
    follower.look()
    registry.holds = "2"
    with monkeypatch.context() as patch:
        patch.setattr(predictor, "load", raising(MemoryError()))
        for _ in range(2):
            with pytest.raises(errors.Unreadable):
                follower.look()
    with no_handles(), pytest.raises(OSError, match="Too many open files"):
        follower.look()
    assert current(follower) == "1"
    assert not (follower.folder / "refused").exists()
    assert follower.look() == "2"
    assert current(follower) == "2"
    assert registry.pulled == ["1", "2"], "fetched once"


@pytest.mark.parametrize("version", ["2", "3"])
def test_what_was_not_written_down_is_not_taken_for_done(
    follower: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The disk is full when the pointer, or the refusal, is to be written."""
    registry.holds = version
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        patch.setattr(following, "write", raising(full))
        with pytest.raises(OSError, match="No space"):
            follower.look()
    if version == "3":
        with pytest.raises(errors.BundleError):
            follower.look()
        assert (follower.folder / "refused").exists()
    else:
        follower.look()
        assert current(follower) == "2"


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail


# What is served, as the server reads it


def watched(bundles: Path, until: Callable[[Any], bool]) -> Any:
    """What is served once `until` is true of it."""
    live = serving_live.Live(bundles, metrics.Metrics(None))

    async def run() -> None:
        watch = asyncio.create_task(live.watch())
        for _ in range(1000):
            if until(live):
                break
            await asyncio.sleep(0.01)
        watch.cancel()

    asyncio.run(run())
    assert until(live), "it did not come true in time"
    return live


class Failing:
    """In the place of what loads a model: fails so often, then loads it."""

    def __init__(self, error: Exception, times: int, load: Callable[[Path], Any]) -> None:
        self.error, self.times, self.load = error, times, load
        self.asked = 0

    def __call__(self, path: Path) -> Any:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        return self.load(path)


@pytest.mark.format
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files", "model"),
        RuntimeError("bad_alloc"),
    ],
    ids=repr,
)
def test_the_server_reads_again_what_it_could_not(
    bundles: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    monkeypatch.setattr(serving_live, "LOOK", 0.01)
    failing = Failing(error, 3, predictor.load)
    monkeypatch.setattr(predictor, "load", failing)
    live = watched(bundles, lambda live: live.served is not None)
    assert (live.served.bundle.version, failing.asked) == ("1", 4)
    (said,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "could not be read" in said.getMessage()
    assert not said.exc_info, "one line"


def test_the_server_says_why_it_is_not_ready_and_keeps_what_it_serves(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_live, "LOOK", 0.01)
    failing = Failing(MemoryError(), 1_000_000, predictor.load)
    monkeypatch.setattr(predictor, "load", failing)
    live = watched(bundles, lambda _: failing.asked > 2)
    assert "could not be read: MemoryError" in live.reason
    wrong = Failing(ValueError("wrong"), 1_000_000, predictor.load)
    monkeypatch.setattr(predictor, "load", wrong)
    live = watched(bundles, lambda live: "refused" in live.reason)
    assert wrong.asked == 1, "what is wrong is not read again"


@pytest.mark.format
def test_the_server_outlives_a_want_of_handles(
    bundles: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving_live, "LOOK", 0.01)
    live = serving_live.Live(bundles, metrics.Metrics(None))

    async def run() -> None:
        with no_handles():
            watch = asyncio.create_task(live.watch())
            await asyncio.sleep(0.2)
            assert live.served is None
        while live.served is None:
            await asyncio.sleep(0.01)
        watch.cancel()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1


def test_a_copy_damaged_here_is_fetched_again(follower: Any, registry: Registry) -> None:
    shutil.copytree(registry.folder / "3", follower.folder / "2")
    pointer = follower.folder / "current"
    pointer.write_text("2")
    os.utime(pointer, (0, 0))
    registry.holds = "2"
    assert follower.look() == "2"
    assert registry.pulled == ["2"]
    assert pointer.stat().st_mtime > 0, "the server looks again"


def test_a_copy_that_went_missing_is_fetched_again(follower: Any, registry: Registry) -> None:
    registry.holds = "1"
    follower.look()
    shutil.rmtree(follower.folder / "1")
    follower.look()
    assert (follower.folder / "1" / "manifest.json").exists()


def test_old_versions_and_stale_downloads_are_removed(follower: Any, registry: Registry) -> None:
    for name, age in ((".9.1.tmp", 10_000), (".9.2.tmp", 0)):
        (follower.folder / name).mkdir(parents=True)
        then = (follower.folder / name).stat().st_mtime - age
        os.utime(follower.folder / name, (then, then))
    for n, version in enumerate(("1", "2", "4", "5", "6")):
        registry.holds = version
        follower.look()
        os.utime(follower.folder / version, (n, n))
    kept = {p.name for p in follower.folder.iterdir()}
    assert kept == {"current", ".9.2.tmp", "6", "5", "4"}


def test_a_registry_that_is_down_is_told_once_and_asked_less_often(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(serving={"poll": 0.001})
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            registry.down = len(waits) < 5
            registry.holds = "1"
            if len(waits) > 6:
                self.set()
            return self.is_set()

    registry.down = True
    with caplog.at_level(logging.INFO):
        thread = threading.Thread(
            target=following.follow, args=("staging", settings), kwargs={"stop": Stop()}
        )
        thread.start()
        thread.join(30)
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(told) == 2, told
    assert "does not answer" in told[0]
    assert "answers again" in told[1]
    assert waits[:5] == sorted(waits[:5])
    assert waits[4] > waits[0]
    assert waits[-1] == 0.001
    assert (settings.serving.bundles / "staging" / "current").read_text() == "1"


def test_once_says_when_there_is_nothing(registry: Registry) -> None:
    settings = load_settings()
    with pytest.raises(errors.UserError, match="holds no version"):
        following.follow("staging", settings, once=True)
    registry.down = True
    with pytest.raises(errors.RegistryUnavailable):
        following.follow("staging", settings, once=True)


# `serve`, with the real registry


@pytest.fixture
def served(home: Path) -> Callable[..., Server]:
    """Starts `serve` in a project's folder."""

    def start(folder: Path, env: str = "test", **variables: str) -> Server:
        port = free_port()
        arguments = ("serve", "--env", env, "--port", str(port))
        return Server(*arguments, port=port, folder=folder, SERVING_POLL="0.2", **variables)

    return start


def children(pid: int) -> list[int]:
    """The processes that `pid` started."""
    import subprocess

    told = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = [map(int, line.split()) for line in told.stdout.splitlines()]
    return [child for child, parent in pairs if parent == pid]


def alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody waited for does not count."""
    import subprocess

    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(told.stdout.strip()) and not told.stdout.strip().startswith("Z")


def ended(server: Server, child: int, how: signal.Signals) -> None:
    assert server.stop(how) == (-how if how == signal.SIGKILL else 0)
    wait_for(lambda: not alive(child), seconds=15)
    assert "Traceback" not in server.log.read_text()


def test_from_no_model_to_ready_without_a_restart(
    served: Callable[..., Server], trained: Path
) -> None:
    settings = load_settings()
    registry = registries.connect(settings)
    # The flag overrules the variable, and what fetches must not stumble over it.
    with served(trained, "staging", SERVING_PORT="none") as server:
        wait_for(lambda: server.status("/healthz") == 200)
        status, answer = server.client("GET", "/readyz")
        assert (status, "no model yet" in answer["detail"]) == (503, True)
        registry.set_alias("staging", "1")
        server.ready()
        assert server.client("GET", "/version")[1]["version"] == "1"
        (example, *_) = json.loads(Path("var/versions/1/examples.json").read_text())
        body = {"features": example["features"]}
        assert server.client("POST", "/predictions", body)[0] == 200
        ended(server, children(server.process.pid)[0], signal.SIGTERM)
    journal = Journal(settings.journal.url)
    assert [row.environment for row in journal.rows()] == ["staging"]
    journal.close()


def test_a_follower_that_dies_is_started_again(
    served: Callable[..., Server], trained: Path
) -> None:
    with served(trained) as server:
        server.ready()
        (child,) = children(server.process.pid)
        os.kill(child, signal.SIGKILL)
        pid = server.process.pid
        (other,) = wait_for(lambda: [c for c in children(pid) if c != child and alive(c)])
        server.ready()
        ended(server, other, signal.SIGINT)


def test_a_stop_does_not_wait_for_a_follower_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waiting.py").write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "with open('started', 'w') as file:\n"
        "    file.write(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "FOLLOW", "waiting")
    with running._follower("test", load_settings()):
        started = Path("started")
        child = int(wait_for(lambda: started.exists() and started.read_text()))
        start = time.monotonic()
    assert time.monotonic() - start < 2
    assert not alive(child)


def test_a_killed_server_leaves_no_orphan(served: Callable[..., Server], trained: Path) -> None:
    with served(trained) as server:
        server.ready()
        ended(server, children(server.process.pid)[0], signal.SIGKILL)
