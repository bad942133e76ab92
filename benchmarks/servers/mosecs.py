"""A bundle served by mosec, which gathers requests: mosecs.py --port PORT."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import mosec

bundles = import_module(os.environ["PACKAGE"] + ".bundle")
predict = import_module(os.environ["PACKAGE"] + ".predict").predict


class Peer(mosec.Worker):
    def __init__(self) -> None:
        self.bundle = bundles.load(Path(os.environ["BUNDLE"]))

    def forward(self, data: list[Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = predict(self.bundle, bundles.ROWS.validate_python(data))
        return found


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Peer, num=1, max_batch_size=64, max_wait_time=2)
    server.run()
