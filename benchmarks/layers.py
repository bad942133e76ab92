"""Where a prediction's time goes: the same request, with ever more of the server around it.

    python benchmarks/layers.py PROJECT --bundles FOLDER [--json FILE]

Arguments as of serving.py; JOURNAL_URL says where the journal is. The application is called without
a socket, one request after the other, so that neither a client nor the network is in it. Times are
processor time of the thread that answers, in turns.
"""

import asyncio
import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from time import thread_time
from typing import Any

from servers.bare import bare
from serving import Bench, arguments

ROUNDS, REQUESTS = 15, 300
Answer = Callable[[bytes], Awaitable[None]]


async def measured(bench: Bench) -> dict[str, list[float]]:
    """Seconds of a request in each round, by what is around it."""
    bodies = [request.body.encode() for request in bench.requests()]
    app, schemas, store, settings = (
        import_module(f"{bench.package}.{name}")
        for name in ("serving.app", "serving.schemas", "serving.journal.store", "settings")
    )
    given = settings.load()
    whole = app.create_app(bench.bundles, store.journal_at(given.journal.url), given)
    quiet = app.create_app(bench.bundles, None, given)
    async with whole.router.lifespan_context(whole), quiet.router.lifespan_context(quiet):
        services = [app.state.service for app in (whole, quiet)]
        while not all(service.live.served for service in services):
            await asyncio.sleep(0.1)
        bundle = services[1].served.bundle
        layers: dict[str, Answer] = {
            "a bare FastAPI route, validation and answer": asked(bare(schemas)),
            "and what is around the model": without_model(bundle, bench.rows[0], asked(quiet)),
            "and the model": asked(quiet),
            "and the journal": asked(whole),
        }
        found: dict[str, list[float]] = {name: [] for name in layers}
        for _ in range(ROUNDS):
            for name, answer in layers.items():
                start = thread_time()
                for i in range(REQUESTS):
                    await asyncio.create_task(answer(bodies[i % len(bodies)]))  # type: ignore[arg-type]
                found[name].append((thread_time() - start) / REQUESTS)
    return found


def without_model(bundle: Any, row: Any, answer: Answer) -> Answer:
    """Answers with a model that takes no time."""
    own, types = bundle.scores_of, import_module(type(bundle).__module__)
    columns = types.contract.columns(types.ROWS.validate_python([row]))
    scores = own(bundle.derived(columns))

    async def patched(body: bytes) -> None:
        object.__setattr__(bundle, "scores_of", lambda _: scores)
        try:
            await answer(body)
        finally:
            object.__setattr__(bundle, "scores_of", own)

    return patched


def asked(app: Any) -> Answer:
    """Asks an application, and sees that it answers."""

    async def answer(body: bytes) -> None:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": "/predictions", "raw_path": b"/predictions",
            "query_string": b"", "root_path": "", "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
        }  # fmt: skip
        await app(scope, receive, send)
        assert sent[0]["status"] == 200, sent

    return answer


def main() -> None:
    """Measures and prints."""
    given = arguments(__doc__).parse_args()
    bench = Bench(given.project, given.bundles)
    sys.path.insert(0, str(bench.project / "src"))
    seconds = asyncio.run(measured(bench))
    first, *_ = seconds.values()
    found = {
        name: statistics.median(a / b for a, b in zip(each, first, strict=True))
        for name, each in seconds.items()
    }
    before = 0.0
    for name, ratio in found.items():
        print(f"{name:45} {ratio:5.2f} (+{ratio - before:.2f})")
        before = ratio
    print(f"as ratios; the first took {statistics.median(first) * 1e6:.0f} us")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
