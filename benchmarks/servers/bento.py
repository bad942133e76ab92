"""A bundle served by BentoML, which gathers requests: `bentoml serve bento:Peer`."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import bentoml

bundles = import_module(os.environ["PACKAGE"] + ".bundle")
predict = import_module(os.environ["PACKAGE"] + ".predict").predict


@bentoml.service(workers=1)
class Peer:
    def __init__(self) -> None:
        self.bundle = bundles.load(Path(os.environ["BUNDLE"]))

    @bentoml.api(batchable=True, max_batch_size=256, max_latency_ms=10_000)
    def predict(self, rows: list[dict]) -> list[dict]:  # type: ignore[type-arg]
        found: list[dict[str, Any]] = predict(self.bundle, bundles.ROWS.validate_python(rows))
        return found
