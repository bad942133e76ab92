"""How clients behave, for Locust: mostly one row, sometimes a batch, now and then an extreme.

`make load` starts this with LOAD_SCENARIO, the path of a JSON file with `rows` (feature objects
to draw from), `long` (the same with very long strings), `largest` (rows in the largest batch),
`outcomes` (whether labels are sent back; a server that others use gets none, and is told to keep
nothing) and `rate` (requests per second of one user, or null for people who wait 1 to 5 seconds).
Workers on other machines get this file and the scenario from the master.
Edit the tasks and their weights to match your clients.
"""

import json
import os
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, between, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

SCENARIO: dict[str, Any] = {}
TOKEN = os.environ.get("LOAD_TOKEN")
"""For a server that asks for one (URL=): with the scope predict."""
REFUSED = (413, 422)
"""An extreme may be refused with a reason; it may not fail, and it may not hang."""


@events.init_command_line_parser.add_listener
def option(parser: LocustArgumentParser, **_: Any) -> None:
    """Makes the scenario an option, since a master sends the values of its options to workers."""
    parser.add_argument(
        "--scenario",
        env_var="LOAD_SCENARIO",
        type=lambda path: json.loads(Path(path).read_text()),
        include_in_web_ui=False,
    )


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Takes the scenario in, before the first client starts."""
    SCENARIO.update(environment.parsed_options.scenario)
    if SCENARIO["rate"]:
        Client.wait_time = constant_throughput(SCENARIO["rate"])
    if not SCENARIO["outcomes"]:
        Client.default_headers["X-Load-Test"] = "1"


def row() -> dict:
    """One row of the bundle's examples."""
    return {"features": random.choice(SCENARIO["rows"])}


class Client(FastHttpUser):
    """One client of the model's API."""

    wait_time = between(1, 5)
    network_timeout = connection_timeout = 30.0
    default_headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}

    def post(self, path: str, body: dict, name: str, allowed: tuple[int, ...] = ()) -> dict:
        """POST `body`; a status that is neither 2xx nor `allowed` counts as a failure."""
        with self.client.post(path, json=body, name=name, catch_response=True) as response:
            if response.status_code in allowed:
                response.success()
            return response.json() if response.ok and response.text else {}

    @task(90)
    def one(self) -> None:
        """One row, and for one in ten a label that comes later."""
        answer = self.post("/predictions", row(), "one row")
        if answer and SCENARIO["outcomes"] and random.random() < 0.1:
            path = f"/predictions/{answer['id']}/outcome"
            self.client.put(path, json={"outcome": answer["prediction"]}, name="outcome")

    @task(8)
    def batch(self) -> None:
        """A small batch."""
        rows = [row() for _ in range(min(32, SCENARIO["largest"]))]
        self.post("/predictions/batch", {"rows": rows}, "batch")

    @task(1)
    def largest(self) -> None:
        """The largest batch that the server takes."""
        rows = [row() for _ in range(SCENARIO["largest"])]
        self.post("/predictions/batch", {"rows": rows}, "largest batch", REFUSED)

    @task(1)
    def long(self) -> None:
        """A row whose strings are very long."""
        features = random.choice(SCENARIO["long"])
        self.post("/predictions", {"features": features}, "long strings", REFUSED)
