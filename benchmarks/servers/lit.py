"""A bundle served by LitServe, which gathers requests: lit.py PORT."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import litserve

bundles = import_module(os.environ["PACKAGE"] + ".bundle")
predict = import_module(os.environ["PACKAGE"] + ".predict").predict


class Peer(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002, LitServe's signature
        self.bundle = bundles.load(Path(os.environ["BUNDLE"]))

    def decode_request(self, request: dict[str, Any]) -> Any:
        return request["features"]

    def predict(self, rows: list[Any]) -> Any:
        return predict(self.bundle, bundles.ROWS.validate_python(rows))

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    api = Peer(max_batch_size=64, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
