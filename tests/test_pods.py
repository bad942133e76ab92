"""Production's own manifests as pods: rolled to another version and back, across a contract.

`podman play kube` starts pods and knows no rollout, so what a Service does is the clients' here.
"""

import json
import os
import subprocess
import threading
import time
import urllib.error
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from harness import commit, edit
from image_registry import image_registry
from running_project import Project, missing, needs, on_a_slice, project

NAME = f"ciclo-pods-{os.getpid()}"
DISTANCE = '    distance: float = Field(examples=[229], description="miles")'
MAY_BE_MISSING = DISTANCE.replace("float =", "float | None =").replace("examples", "None, examples")


def podman(*arguments: str) -> str:
    """What it says; raises if it fails."""
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"podman {' '.join(arguments)}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


@pytest.fixture
def database() -> Iterator[str]:
    """An empty database, which libpq's own variables say how to reach."""
    if not os.environ.get("TEST_JOURNAL_URL"):
        missing("TEST_JOURNAL_URL names no PostgreSQL (pg_virtualenv gives one)")
    name = f"pods_{uuid.uuid4().hex}"
    subprocess.run(["createdb", name], check=True)
    yield name
    subprocess.run(["dropdb", "--force", name], check=True)


@pytest.fixture
def made(disk, monkeypatch) -> Iterator[Project]:
    """A project for Kubernetes whose images are pushed to a registry on loopback, by podman."""
    needs("uv")
    made = project(disk / "it", env_manager="uv", ci="none", deployment="kubernetes")
    on_a_slice(made)
    with image_registry(disk / "images") as registry:
        insecure = disk / "registries.conf"
        insecure.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(insecure))
        made.environment |= {"CONTAINERS_REGISTRIES_CONF": str(insecure), "ENGINE": "podman"}
        made.environment |= {"REGISTRY": f"{registry}/team", "IMAGE": NAME, "BY": "ada"}
        yield made
        for pod in podman("pod", "ls", "--quiet", "--filter", f"name={NAME}").split():
            podman("pod", "rm", "--force", pod)
        for name in (f"*{NAME}*", f"{registry}/*/*"):
            forget(name)


def forget(images: str) -> None:
    """Removes images here; what was pushed is in the registry."""
    for image in podman("image", "ls", "--quiet", "--filter", f"reference={images}").split():
        podman("image", "rm", "--force", image)


class Release:
    """The pods that production's manifests ask for now, on this machine's own network."""

    def __init__(self, made: Project, database: str) -> None:
        made.run("make deploy ENV=production RENDER=build/manifests")
        objects = [
            yaml.safe_load(path.read_text())
            for path in sorted((made.folder / "build" / "manifests").glob("*.yaml"))
        ]
        self.server = Project(made.folder)
        self.version = json.loads((made.folder / "reports" / "image.json").read_text())["version"]
        login = "{PGUSER}:{PGPASSWORD}@{PGHOST}:{PGPORT}".format(**os.environ)
        self.beside = [one for one in objects if one["kind"] == "ConfigMap"]
        self.specs = {
            one["kind"]: one["spec"]["template"]["spec"]
            for one in objects
            if one["kind"] in ("Deployment", "Job")
        }
        own = {"SERVING_HOST": "127.0.0.1", "SERVING_PORT": str(self.server.port)}
        own["JOURNAL_URL"] = f"postgresql+psycopg://{login}/{database}"  # in place of the secret
        for spec in self.specs.values():
            spec["hostNetwork"] = True
            (container,) = spec["containers"]
            container["env"] = [{"name": name, "value": value} for name, value in own.items()]
            container.pop("ports", None)  # on the host's network podman takes no names of ports
            for probe in (value for name, value in container.items() if name.endswith("Probe")):
                probe["httpGet"]["port"] = self.server.port

    def play(self, kind: str) -> str:
        """Starts the pod of a Deployment or a Job; returns its container's name."""
        name = f"{NAME}-v{self.version}-{kind.lower()}"
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
        path = self.server.folder / "build" / f"{name}.yaml"
        path.write_text(yaml.safe_dump_all([*self.beside, pod | {"spec": self.specs[kind]}]))
        podman("play", "kube", "--replace", str(path))
        return f"{name}-{self.specs[kind]['containers'][0]['name']}"

    def migrate(self) -> None:
        job = self.play("Job")
        assert podman("wait", job) == "0", podman("logs", job)

    def start(self) -> None:
        """Returns when its pod is ready."""
        self.container = self.play("Deployment")
        end = time.monotonic() + 60
        while True:
            try:
                assert self.server.ask("GET", "/readyz")["version"] == self.version
                return
            except OSError:
                assert time.monotonic() < end, podman("logs", self.container)
                time.sleep(0.2)

    def stop(self) -> None:
        """Returns when it has answered what it took, and has ended."""
        podman("stop", "--time", "45", self.container)


class Clients:
    """Four that ask one row again and again, of the release that `at` names."""

    def __init__(self, at: Release, row: dict[str, Any]) -> None:
        self.at, self.row, self.over = at, row, threading.Event()
        self.answered, self.failed = Counter[str](), list[str]()
        self.threads = [threading.Thread(target=self.ask) for _ in range(4)]

    def __enter__(self) -> "Clients":
        for one in self.threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for one in self.threads:
            one.join()

    def ask(self) -> None:
        while not self.over.is_set():
            try:
                version = self.at.server.ask("POST", "/predictions", self.row)["version"]
            except OSError as error:
                self.failed.append(repr(error))
            else:
                self.answered[version] += 1

    def turn(self, to: Release) -> None:
        """Asks another release; stops the last when it has answered all that it was asked."""
        last, self.at = self.at, to
        time.sleep(2)
        last.stop()


def released(made: Project, database: str) -> Release:
    """Brings a new version to production, and its image to the image registry and nowhere else."""
    for command in (
        "train", "promote ENV=staging", "load ENV=staging", "promote ENV=production",
        "image ENV=production", "push",
    ):  # fmt: skip
        made.run(f"make {command}", timeout=1800)
    forget(f"{made.environment['REGISTRY'].partition('/')[0]}/*/*")
    return Release(made, database)


def status(release: Release, row: dict[str, Any]) -> int:
    """Of the answer to a row."""
    try:
        release.server.ask("POST", "/predictions", row)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


@pytest.mark.full
@pytest.mark.heavy(6)
def test_pods_roll_to_another_version_and_back_across_a_contract(made, database, record_property):
    first = released(made, database)
    first.migrate()
    row = json.loads((made.folder / "reports" / "example.json").read_text())
    without = {"features": {**row["features"]}}
    del without["features"]["distance"]
    features = made.folder / "src" / "flight_delays" / "project" / "features.py"
    edit(features, DISTANCE, MAY_BE_MISSING)
    commit(made.folder)
    second = released(made, database)
    first.start()
    with Clients(first, row) as clients:
        time.sleep(2)
        assert status(first, without) == 422
        second.start()
        assert status(second, without) == 200
        clients.turn(second)
        made.run("make rollback ENV=production")
        again = Release(made, database)
        assert (
            again.specs["Deployment"]["containers"][0]["image"]
            == (first.specs["Deployment"]["containers"][0]["image"])
        )
        again.migrate()
        again.start()
        assert status(again, without) == 422
        clients.turn(again)
    again.stop()
    assert not clients.failed
    assert set(clients.answered) == {first.version, second.version}
    query = "SELECT version, count(*) FROM predictions GROUP BY version"
    said = subprocess.check_output(["psql", "-AtF,", "-c", query, database], text=True)
    clients.answered[second.version] += 1  # the row without a distance
    assert dict(line.split(",") for line in said.split()) == {
        version: str(n) for version, n in clients.answered.items()
    }
    record_property("said", f"pods answered {dict(clients.answered)}, and failed none")
