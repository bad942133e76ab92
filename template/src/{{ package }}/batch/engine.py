"""Runs a function on many items at once: in processes of this machine, on Dask, or on Ray.

What all items share is sent to a worker once. The items come from here and the results return
here, so no disk is shared; twice as many items are under way as there are processors, so memory is
bounded. The item of a worker that was killed is done again. joblib's backends would be less code,
but with Ray they give no result before all are there, and a killed worker ends the call.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

from ..console import say
from ..errors import UserError, reason
from ..settings import Engine

Key = TypeVar("Key")
Item = TypeVar("Item")
Shared = TypeVar("Shared")
Result = TypeVar("Result")
TRIES = 4
"""How often an item is begun whose workers are killed."""
IDLE = 300
"""Seconds after which a process ends that gets no more work: so none outlives a killed command."""
WAIT = 20
"""Seconds in which a cluster must answer."""
_kept: dict[str, Any] = {}
"""What is shared, in a process of this machine."""


class _Workers(NamedTuple):
    """A started engine."""

    capacity: Callable[[], int]
    """How many items may be under way; a cluster may grow."""
    submit: Callable[[Any, Any], "Future[Any]"]
    """Takes the function and an item."""
    broken: tuple[type[BaseException], ...] = ()
    """What says that a worker was killed, and that its item must be submitted again."""
    gone: tuple[type[BaseException], ...] = ()
    """What says that the engine cannot go on."""


def each(
    settings: Engine,
    work: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Iterable[tuple[Key, Item]],
    seconds: float | None = None,
) -> Generator[tuple[Key, Result]]:
    """The key of each item with `work(shared, item)`, in the order in which they are done.

    `work` is a function of a module; all must be picklable. The engine runs until the iterator
    ends or is closed (contextlib.closing), and no longer than some `seconds`. Raises the UserError
    that `work` raises, or one that says why the engine cannot go on.
    """
    if settings.name == "local" and settings.address:
        raise UserError(f"engine.address = {settings.address}: set engine.name to dask or ray, too")
    items = iter(items)
    first = list(islice(items, 2))
    alone = settings.name == "local" and (len(first) < 2 or _processors(settings) == 1)
    todo = ((key, item, 1) for key, item in chain(first, items))
    end = None if seconds is None else time.monotonic() + seconds
    under_way: dict[Future[Any], tuple[Key, Item, int]] = {}
    with (_here if alone else _STARTED[settings.name])(settings, shared) as workers:
        try:
            while end is None or time.monotonic() < end:
                room = max(0, workers.capacity() - len(under_way))
                for key, item, tries in islice(todo, room):
                    under_way[workers.submit(work, item)] = key, item, tries
                if not under_way:
                    return
                left = None if end is None else max(0.0, end - time.monotonic())
                for future in wait(under_way, left, FIRST_COMPLETED).done:
                    key, item, tries = under_way.pop(future)
                    try:
                        result = future.result()
                    except workers.broken as error:
                        if tries == TRIES:
                            raise UserError(
                                f"engine {settings.name}: the processes that had part {key} were "
                                f"killed, {TRIES} times; is there too little memory? Set "
                                "engine.workers lower"
                            ) from error
                        under_way[workers.submit(work, item)] = key, item, tries + 1
                        continue
                    if isinstance(result, UserError):
                        raise result
                    yield key, result
        except workers.gone as error:
            raise UserError(
                f"engine {settings.name}: {_why(error)}; what is "
                "done is kept: see that its workers run, with memory enough and the same "
                "packages as here, then run it again"
            ) from error


def _why(error: BaseException) -> str:
    """What an engine says, or rather what it says that it is from."""
    if isinstance(error, CancelledError):
        return "its scheduler is gone"
    return reason(getattr(error, "cause", None) or error.__cause__ or error)


def _done(work: Callable[[Any, Any], Any], shared: Any, item: Any) -> Any:
    """The result, or the UserError, which is an answer, too: each engine wraps what is raised."""
    try:
        return work(shared, item)
    except UserError as error:
        return error


def _done_there(work: Callable[[Any, Any], Any], shared: Any, item: Any) -> Any:
    """The same in a worker, which has one processor."""
    os.environ["LOKY_MAX_CPU_COUNT"] = "1"  # what n_jobs=-1 of an estimator means
    return _done(work, shared, item)


def _done_here(work: Callable[[Any, Any], Any], item: Any) -> Any:
    return _done_there(work, _kept["shared"], item)


def _keep(shared: Any) -> None:
    _kept["shared"] = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it


def _processors(settings: Engine) -> int:
    from joblib import cpu_count

    return settings.workers or cpu_count()


@contextmanager
def _here(_: Engine, shared: Any) -> Iterator[_Workers]:
    """One item after the other, in this process."""

    def submit(work: Any, item: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(_done(work, shared, item))
        return future

    yield _Workers(lambda: 1, submit)


@contextmanager
def _local(settings: Engine, shared: Any) -> Iterator[_Workers]:
    from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

    size = _processors(settings)
    pools: list[Any] = []

    def submit(work: Any, item: Any) -> "Future[Any]":
        try:
            return pools[-1].submit(_done_here, work, item)
        except (IndexError, BrokenProcessPool):  # a pool of which a process was killed is no more
            environment = {"OMP_NUM_THREADS": "1"}
            pool = ProcessPoolExecutor(
                size, timeout=IDLE, initializer=_keep, initargs=(shared,), env=environment
            )
            pools.append(pool)
            return pool.submit(_done_here, work, item)

    try:
        yield _Workers(lambda: 2 * size, submit, broken=(BrokenProcessPool,))
    finally:
        for pool in pools:
            pool.shutdown(kill_workers=True)


@contextmanager
def _dask(settings: Engine, shared: Any) -> Iterator[_Workers]:
    with _needed(settings):
        from distributed import Client, KilledWorker, LocalCluster
        from distributed.comm import CommClosedError
    for name in ("distributed", "tornado", "asyncio"):  # what matters is raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _reached(settings):
        cluster: Any = settings.address or LocalCluster(
            n_workers=_processors(settings),
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
        client = Client(cluster, timeout=WAIT, set_as_default=False)
    try:
        say(f"Dask's dashboard: {client.dashboard_link}")
        # The result of a task, unlike data that is scattered, is made again where it is lost.
        there = client.submit(_same, shared, pure=False)
        executor = client.get_executor(pure=False)
        yield _Workers(
            lambda: 2 * max(1, sum(client.nthreads().values())),
            lambda work, item: executor.submit(_done_there, work, there, item),
            gone=(KilledWorker, CommClosedError, CancelledError, OSError, RuntimeError),
        )
    finally:
        client.close()
        if not settings.address:
            cluster.close()


def _same(shared: Any) -> Any:
    return shared


@contextmanager
def _ray(settings: Engine, shared: Any) -> Iterator[_Workers]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report home
    with _needed(settings):
        import ray
        from ray.exceptions import RayError
    with _reached(settings):
        here: dict[str, Any] = {} if settings.address else {"num_cpus": _processors(settings)}
        context = ray.init(
            settings.address or "local", logging_level=logging.ERROR, log_to_driver=False, **here
        )
    try:
        say(f"Ray's dashboard: http://{context.dashboard_url}")
        there = ray.put(shared)
        done = ray.remote(max_retries=TRIES - 1)(_done_there)
        yield _Workers(
            lambda: 2 * max(1, int(ray.cluster_resources().get("CPU", 0))),
            lambda work, item: done.remote(work, there, item).future(),
            gone=(RayError, CancelledError, ConnectionError),
        )
    finally:
        ray.shutdown()


_STARTED: dict[str, Callable[[Engine, Any], AbstractContextManager[_Workers]]] = {
    "local": _local,
    "dask": _dask,
    "ray": _ray,
}


@contextmanager
def _needed(settings: Engine) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"engine.name = {settings.name}: {reason(error)}; write ENGINES = {settings.name} into "
            "local.mk, then run `make lock setup`"
        ) from None


@contextmanager
def _reached(settings: Engine) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        where = settings.address or "on this machine"
        raise UserError(
            f"engine.address: {settings.name} {where} does not answer: {reason(error)}; does it "
            "run, with the same versions as here?"
        ) from None
