"""A bundle served by Ray Serve, which gathers requests, in one replica: rays.py PORT."""

import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

bundles = import_module(os.environ["PACKAGE"] + ".bundle")
predict = import_module(os.environ["PACKAGE"] + ".predict").predict


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Peer:
    def __init__(self) -> None:
        self.bundle = bundles.load(Path(os.environ["BUNDLE"]))

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def answers(self, rows: list[Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = predict(self.bundle, bundles.ROWS.validate_python(rows))
        return found

    async def __call__(self, request: Request) -> dict[str, Any]:
        found: dict[str, Any] = await self.answers(await request.json())
        return found


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False)
    options = {"host": "127.0.0.1", "port": int(sys.argv[1])}
    serve.start(http_options=options, logging_config={"enable_access_log": False})
    peer = Peer.bind()  # type: ignore[attr-defined]
    serve.run(peer, name="peer", route_prefix="/predict")
    while True:
        time.sleep(60)
