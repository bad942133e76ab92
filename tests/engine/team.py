"""A team's MLflow: a server with logins, on PostgreSQL and a store that speaks S3; as processes.

TEST_MLFLOW is a Python that has the server, what it needs for both, and moto; the PostgreSQL is
that of TEST_JOURNAL_URL.
"""

import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import requests
import sqlalchemy as sa

from ..helpers import wait_for
from .servers import SOURCE, free_port

PYTHON, POSTGRES = os.environ.get("TEST_MLFLOW", ""), os.environ.get("TEST_JOURNAL_URL", "")
SIGNED = "AWS4-HMAC-SHA256 Credential=a/20300101/us-east-1/s3/aws4_request, Signature=0"
"""Somebody's request; this store does not compare the signature."""
ADMIN, PASSWORD = "admin", "a-password-of-a-test"


class Team:
    """The processes, and what an administrator does."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.database = folder, database
        self.port, self.store_port = free_port(), free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        logins = (SOURCE.parent / "deploy" / "mlflow" / "logins.ini").read_text()
        where = f"database_uri = {database.replace('%', '%%')}"
        logins, changed = re.subn(r"(?m)^database_uri = .*$", lambda _: where, logins)
        assert changed == 1
        (folder / "logins.ini").write_text(logins)
        self.server: subprocess.Popen[bytes] | None = None
        self.store: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, which takes its time."""
        self.server = self._started(
            *("mlflow", "server", "--app-name", "basic-auth", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", self.database),
            *("--artifacts-destination", "s3://bucket/artifacts"),
            MLFLOW_AUTH_CONFIG_PATH=str(self.folder / "logins.ini"),
            MLFLOW_AUTH_ADMIN_USERNAME=ADMIN,
            MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
            MLFLOW_FLASK_SERVER_SECRET_KEY=uuid.uuid4().hex,
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
            MLFLOW_S3_ENDPOINT_URL=f"http://127.0.0.1:{self.store_port}",
        )

    def ready(self) -> None:
        """Waits until the server answers."""
        wait_for(lambda: self._answers(self.server, f"{self.address}/health"), 120)

    def start_store(self) -> None:
        """Starts the store, which is empty, and waits until it answers."""
        self.store = self._started("moto.server", "-H", "127.0.0.1", "-p", str(self.store_port))
        url = f"http://127.0.0.1:{self.store_port}"
        wait_for(lambda: self._answers(self.store, f"{url}/moto-api/"), 60)
        requests.put(f"{url}/bucket", timeout=10).raise_for_status()

    def kill(self) -> None:
        """Ends the server at once, whatever it does."""
        _ended(self.server)

    @contextmanager
    def store_away(self, how: str) -> Iterator[None]:
        """The store is `gone`, with all it kept, or `silent`: it takes requests, answers none."""
        assert self.store
        if how == "gone":
            _ended(self.store)
        else:
            os.killpg(self.store.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if how == "gone":
                self.start_store()
            else:
                os.killpg(self.store.pid, signal.SIGCONT)

    def user(self, name: str) -> None:
        """Makes a user with the same password, who may read all and make new things."""
        self._ask("2.0/mlflow/users/create", username=name, password=PASSWORD)

    def grant(self, name: str, kind: str, id: str, permission: str) -> None:
        """Lets a user do something with one thing."""
        self._ask(
            "3.0/mlflow/users/permissions/grant",
            username=name, resource_type=kind, resource_id=id, permission=permission,
        )  # fmt: skip

    def experiment(self, name: str) -> str:
        """An experiment's id."""
        url = f"{self.address}/api/2.0/mlflow/experiments/get-by-name"
        login = (ADMIN, PASSWORD)
        found = requests.get(url, {"experiment_name": name}, auth=login, timeout=30).json()
        return str(found["experiment"]["experiment_id"])

    def login(self, name: str = ADMIN, password: str = PASSWORD) -> dict[str, str]:
        """The variables of a client: all that it needs."""
        return {
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_TRACKING_USERNAME": name,
            "MLFLOW_TRACKING_PASSWORD": password,
        }

    @contextmanager
    def damaged(self, folder: str, name: str) -> Iterator[None]:
        """An artifact lacks its end: the one in a folder whose name begins so."""
        bucket, store = f"http://127.0.0.1:{self.store_port}/bucket", requests.Session()
        store.headers["Authorization"] = SIGNED
        listed = store.get(bucket, params={"prefix": f"artifacts/{folder}/"}, timeout=30).content
        keys = [e.text or "" for e in ElementTree.fromstring(listed).findall(".//{*}Key")]
        (key,) = [key for key in keys if key.rpartition("/")[2].startswith(name)]
        whole = store.get(f"{bucket}/{key}", timeout=30)
        whole.raise_for_status()
        store.put(f"{bucket}/{key}", whole.content[:-1], timeout=30).raise_for_status()
        try:
            yield
        finally:
            store.put(f"{bucket}/{key}", whole.content, timeout=30).raise_for_status()

    def _ask(self, path: str, **body: str) -> Any:
        url, login = f"{self.address}/api/{path}", (ADMIN, PASSWORD)
        answer = requests.post(url, json=body, auth=login, timeout=30)
        assert answer.ok, answer.text
        return answer.json() if answer.text else None

    def _started(self, *arguments: str, **env: str) -> "subprocess.Popen[bytes]":
        own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        own |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        own |= {"AWS_DEFAULT_REGION": "us-east-1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        own.pop("PYTHONPATH", None)
        with (self.folder / f"{arguments[0]}.log").open("a") as log:
            return subprocess.Popen(
                [PYTHON, "-m", *arguments], cwd=self.folder, env={**own, **env},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _answers(self, process: "subprocess.Popen[bytes] | None", url: str) -> bool:
        logs = sorted(self.folder.glob("*.log"))
        assert process, "it was not started"
        assert process.poll() is None, "\n".join(log.read_text()[-3000:] for log in logs)
        try:
            return requests.get(url, timeout=5).ok
        except requests.RequestException:
            return False


def _ended(process: "subprocess.Popen[bytes] | None") -> None:
    """Kills a process with its workers."""
    if process and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def team(folder: Path) -> Iterator[Team]:
    """The team's MLflow, running; all ends with it. Skips where the tools are missing."""
    if not (PYTHON and POSTGRES):
        pytest.skip(
            "TEST_MLFLOW names no Python with MLflow's server, or TEST_JOURNAL_URL no PostgreSQL"
        )
    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(POSTGRES, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = sa.make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    made = Team(folder, url)
    try:
        made.start()
        made.start_store()
        made.ready()
        yield made
    finally:
        made.kill()
        _ended(made.store)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()
