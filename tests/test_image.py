"""Law 8: each Dockerfile is linted, built and run; its container answers, and has no rights.

The base images must be there, or be pulled; POSTGRES_IMAGE may name another for compose.
Without an engine the tests are left out, but in CI (CI=true) that is a failure.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, copy, edit
from running_project import (
    Project,
    foreseen,
    free_port,
    missing,
    needs,
    on_a_slice,
    on_disk,
    project,
    quiet,
)
from variants import AXES, OBJECT_STORE

BIN = Path(sys.executable).parent
ENGINE = os.environ.get("ENGINE", "docker")
COMPOSE = ROOT / "template" / "compose.yaml.jinja"
POSTGRES = re.compile(r"image: \$\{POSTGRES_IMAGE:-(.*)\}")
CANNOT = """
import importlib.util, os, shutil
tools = [t for t in ("cc", "gcc", "g++", "clang", "make", "ld") if shutil.which(t)]
heavy = [m for m in {heavy} if importlib.util.find_spec(m)]
wrote = []
for folder in ("/app", "/packages", "/app/src", "/etc"):
    try:
        open(folder + "/x", "w"); wrote.append(folder)
    except OSError:
        pass
print(os.getuid(), tools, heavy, wrote, os.environ["OMP_NUM_THREADS"])
"""


def docker(*arguments: str, **how: Any) -> str:
    """What the engine says; raises if it fails."""
    done = subprocess.run([ENGINE, *arguments], capture_output=True, text=True, **how)
    assert done.returncode == 0, f"{ENGINE} {' '.join(arguments)}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def engine() -> None:
    if not shutil.which(ENGINE) or subprocess.run([ENGINE, "info"], capture_output=True).returncode:
        missing(f"{ENGINE} does not answer: images cannot be tried")


def test_dockerfiles_are_clean(renders):
    seen = set()
    for made in renders.values():
        text = (made / "Dockerfile").read_text()
        assert (made / "deploy" / "pip-install").stat().st_mode & 0o100
        if text not in seen:
            seen.add(text)
            assert "<<" not in text  # heredocs: the linter cannot read them
            done = subprocess.run(
                [BIN / "hadolint", made / "Dockerfile"], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout


IMAGES = {
    "slim": {"env_manager": "uv", "serving_format": "onnx", "problem": "classification"},
    "distroless": {
        "env_manager": "uv", "serving_format": "skops", "problem": "regression",
        "model_registry": "wandb",
    },
    "micromamba": {"env_manager": "conda", "serving_format": "onnx", "problem": "regression"},
}  # fmt: skip


def test_each_base_is_tried():
    assert set(IMAGES) == set(AXES["docker_base"])
    assert set(AXES["serving_format"]) == {made["serving_format"] for made in IMAGES.values()}


FULL = ("slim", "micromamba")
"""Compose builds and runs the first, too; making conda's takes longest."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(b, marks=[pytest.mark.full] if b in FULL else []) for b in IMAGES],
)
def image(request, engine) -> Iterator[Project]:
    """A project that has trained, and its image `TAG` of that name."""
    answers: dict[str, str] = IMAGES[request.param]
    needs(answers["env_manager"])
    name = f"ciclo-{request.param}-{answers['serving_format']}-{os.getpid()}"
    with on_disk(request.session) as folder:
        made = project(folder / "it", docker_base=request.param, **answers)
        made.environment |= {"IMAGE": name, "TAG": "tried"}
        on_a_slice(made)
        made.run("make train")
        made.run("make image", timeout=1800)
        yield made
        tags = [f"{n}:{tag}" for n in (name, f"{name}-job") for tag in ("tried", "latest")]
        docker("image", "rm", "--force", *tags)


@pytest.mark.heavy(3)
def test_the_image_answers_like_the_bundle(image):
    assert "examples answered as version 1 should" in image.run("make smoke")
    assert image.report("smoke")["rows"] > 0


@pytest.mark.full
@pytest.mark.heavy(3)
@pytest.mark.parametrize("image", ["slim"], indirect=True)
def test_podman_builds_it_and_runs_it_too(image):
    if not shutil.which("podman"):
        missing("podman is not installed")
    try:
        said = image.run("make smoke ENGINE=podman", timeout=1800)
        assert "examples answered as version 1 should" in said
    finally:
        name = image.environment["IMAGE"]
        image.run(f"podman image rm --force {name}:tried {name}-job:tried")


@pytest.mark.heavy(3)
def test_the_image_is_small_and_has_no_rights(image, record_property):
    served = f"{image.environment['IMAGE']}:tried"
    facts = json.loads(docker("image", "inspect", served))[0]
    assert facts["Config"]["User"] == "10001:0"
    assert facts["Config"]["Healthcheck"]["Test"]
    assert facts["Config"]["Labels"]["org.opencontainers.image.revision"] == "tried"
    onnx = "onnx" in served
    heavy = [
        "mlflow",
        "wandb",
        "pandas",
        "matplotlib",
        "river",
        *(["sklearn", "scipy"] if onnx else []),
    ]
    said = docker(
        "run",
        "--rm",
        "--cap-drop",
        "ALL",
        "--entrypoint",
        "python3",
        served,
        "-c",
        CANNOT.format(heavy=heavy),
    )
    assert said == "10001 [] [] [] 1"
    registry = {"MLFLOW_TRACKING_URI": "sqlite:////tmp/mlflow.db", "WANDB_MODE": "offline"}
    told = [word for name, value in registry.items() for word in ("--env", f"{name}={value}")]
    job = docker(
        "run", "--rm", "--read-only", "--tmpfs", "/tmp", *told,
        f"{image.environment['IMAGE']}-job:tried", "status",
    )  # fmt: skip
    assert "no version yet" in job
    record_property("said", f"{served}: {facts['Size'] / 1e6:.0f} MB")


HARDENED = """
FROM {python} AS python

FROM scratch
COPY --from=python /usr/local /opt/python
COPY --from=python /lib /lib
COPY --from=python /lib64 /lib64
COPY --from=python /usr/lib /usr/lib
COPY --from=python /etc/passwd /etc/group /etc/
ENV PATH=/opt/python/bin LD_LIBRARY_PATH=/opt/python/lib PYTHONHOME=/opt/python
USER 65532
"""
"""As Docker's hardened images of Python are: no shell, Python under /opt, a user of its own."""


@pytest.mark.full
@pytest.mark.heavy(3)
@pytest.mark.parametrize("image", ["distroless"], indirect=True)
def test_a_hardened_base_takes_the_place_of_distroless(image):
    base = f"ciclo-hardened-{os.getpid()}:3.13-debian13"
    tags = [f"{image.environment['IMAGE']}{job}:hardened" for job in ("", "-job")]
    found = re.search(r"FROM (python:\S+) AS build", (image.folder / "Dockerfile").read_text())
    assert found
    docker("build", "--tag", base, "-", input=HARDENED.format(python=found[1]))
    try:
        assert "examples answered" in image.run(f"make smoke TAG=hardened BASE={base}")
        assert docker("run", "--rm", "--entrypoint", "python3", tags[0], *WHERE) == "/opt/python"
    finally:
        docker("image", "rm", "--force", base, *tags)


WHERE = "-c", "import sys; print(sys.prefix)"
RECORD = """#!/bin/sh
printf '%s\\n' "$@" >>'{log}'
"""


def test_what_a_closed_network_needs_reaches_the_build(template, tmp_path):
    """Index and certificates as secrets, the proxy by its name, the base and the engine."""
    made, log = copy(template, tmp_path / "it"), tmp_path / "log"
    (made / "locks").mkdir()
    for name in ("dev", "job", "serve"):
        (made / "locks" / f"{name}.txt").touch()
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "podman").write_text(RECORD.format(log=log))
    (tools / "podman").chmod(0o755)
    own = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PIP_INDEX_URL": "https://me:secret@index.example/simple",
        "PIP_CERT": "/etc/ssl/own.pem",
        "HTTPS_PROXY": "http://proxy.example:3128",
    }
    command = ["make", "image", "ENGINE=podman", "BASE=registry.example/python:3.13"]
    done = subprocess.run(command, cwd=made, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = log.read_text().splitlines()
    for wanted in ("BASE=registry.example/python:3.13", "HTTPS_PROXY",
                   "id=index,env=PIP_INDEX_URL", "id=ca,src=/etc/ssl/own.pem"):  # fmt: skip
        assert asked.count(wanted) == 2, wanted
    assert "secret@" not in log.read_text()


def test_compose_starts_each_when_what_it_needs_is_healthy_and_says_its_variables(renders):
    for folder in renders.values():
        text = (folder / "compose.yaml").read_text()
        services = yaml.safe_load(text)["services"]
        images = (folder / "Dockerfile").read_text()
        for name, service in services.items():
            for needed, how in service.get("depends_on", {}).items():
                assert how == {"condition": "service_healthy"}, name
                assert "healthcheck" in services[needed] or "HEALTHCHECK" in images, needed
        told = (folder / ".env.example").read_text()
        for variable in set(re.findall(r"\$\{([A-Z_]+)", text)) - {"IMAGE"}:
            assert re.search(rf"^#?{variable}=", told, re.MULTILINE), variable


ALARMS = [({}, "nowhere"), ({"ALERT_WEBHOOK": "http://hooks.example/a b"}, "webhook")]
ALARMS += [({"ALERT_WEBHOOK": "http://hooks.example", "ALERT_FORMAT": "slack"}, "slack")]


@pytest.mark.parametrize(("given", "form"), ALARMS)
def test_alarms_go_where_the_variables_say(given, form, template, tmp_path):
    """By the command of compose.yaml, over a stand-in for Alertmanager that shows its arguments."""
    folder = copy(template, tmp_path / "it")
    prometheus = yaml.safe_load((folder / "deploy/prometheus/prometheus.yml").read_text())
    (manager,) = prometheus["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    service, address = services["alertmanager"], tmp_path / "webhook"
    assert service["profiles"] == services["prometheus"]["profiles"]

    (tmp_path / "alertmanager").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "alertmanager").chmod(0o755)
    (script,) = service["command"]
    environment = {"ALERT_WEBHOOK": "", "ALERT_FORMAT": "webhook"} | given
    assert service["environment"].keys() == environment.keys()
    said = subprocess.run(
        [*service["entrypoint"], script.replace("$$", "$").replace("/tmp/webhook", str(address))],
        env=environment | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.splitlines()[0] == f"--config.file=/etc/alertmanager/{form}.yml"
    assert address.read_text() == environment["ALERT_WEBHOOK"]
    text = (folder / "deploy/alertmanager" / f"{form}.yml").read_text()
    told = yaml.safe_load(text)
    assert told["route"]["receiver"] == told["receivers"][0]["name"] == form
    assert ("_file: /tmp/webhook" in text) == bool(given)


@pytest.mark.heavy(3)
def test_without_a_model_it_lives_and_says_why(image):
    name, port = f"{image.environment['IMAGE']}-empty", free_port()
    docker(
        "run", "--detach", "--name", name, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
        "--env", "JOURNAL_URL=sqlite:////tmp/journal.db", "--publish", f"127.0.0.1:{port}:8000",
        f"{image.environment['IMAGE']}:tried",
    )  # fmt: skip
    try:
        state = ("inspect", "--format", "{{.State.Health.Status}}", name)
        end = time.monotonic() + 60
        while docker(*state) != "healthy" and time.monotonic() < end:
            time.sleep(0.5)
        assert docker(*state) == "healthy"
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10)
        assert "no model yet" in json.load(refused.value)["detail"]
        docker("stop", name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    finally:
        docker("rm", "--force", name)


def until_served(made, version: str) -> None:
    """Waits until a version answers, for a minute at most."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            assert made.ask("GET", "/readyz")["version"] == version
            return
        except OSError:  # no model yet, or no server
            time.sleep(1)
    raise AssertionError(f"version {version} is not served")


@contextmanager
def composed(folder: Path) -> Iterator[Project]:
    """A project for compose with ports of its own; nothing of it is left running."""
    needed = os.environ.get("POSTGRES_IMAGE") or POSTGRES.search(COMPOSE.read_text())[1]  # type: ignore[index]
    there = (["image", "inspect", needed], ["pull", "--quiet", needed])
    if all(subprocess.run([ENGINE, *how], capture_output=True).returncode for how in there):
        missing(f"{needed} cannot be pulled; POSTGRES_IMAGE may name another")
    made = project(folder, name="composed")
    made.environment |= {f"{name}_PORT": str(free_port()) for name in ("MLFLOW", "POSTGRES")}
    made.environment |= {"COMPOSE_PROJECT_NAME": f"ciclo-{os.getpid()}"}
    try:
        yield made
    finally:
        made.run("make down")
        label = f"label=com.docker.compose.project=ciclo-{os.getpid()}"
        docker("volume", "prune", "--all", "--force", "--filter", label)


@pytest.mark.heavy(4)
def test_compose_goes_from_nothing_round_the_cycle(engine, disk):
    """`make up` on an empty machine: live, then ready without a restart once a model is trained;
    and a turn of the cycle on what PostgreSQL kept."""
    with composed(disk / "it") as made:
        made.run("make up", timeout=1800)
        assert made.ask("GET", "/healthz") == {"status": "live"}
        with pytest.raises(urllib.error.HTTPError, match="503"):
            made.ask("GET", "/readyz")
        registry = f"http://127.0.0.1:{made.environment['MLFLOW_PORT']}"
        with pytest.raises(urllib.error.HTTPError, match="401"):  # nobody is let in without a login
            urllib.request.urlopen(f"{registry}/api/2.0/mlflow/experiments/get?experiment_id=0")
        made.environment["MLFLOW_TRACKING_URI"] = registry
        assert "MLFLOW_TRACKING_USERNAME" in made.run("make doctor", fails=True)
        database = f"only-on-my-machine@127.0.0.1:{made.environment['POSTGRES_PORT']}/journal"
        made.environment |= {
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": "only-on-my-machine",
            "JOURNAL_URL": f"postgresql+psycopg://journal:{database}",
        }
        made.run("make train")
        until_served(made, "1")
        made.run(f"make load URL=http://127.0.0.1:{made.port}")
        for environment in ("staging", "production"):
            made.run(f"make promote ENV={environment}")
        made.run("make deploy ENV=production", timeout=1800)  # what is served now is production's
        until_served(made, "1")
        foreseen(made)
        quiet(made)


@contextmanager
def bucket(folder: Path) -> Iterator[str]:
    """The address of an empty bucket in a store that speaks S3, which containers reach too."""
    home, port = folder / "store", free_port()
    for command in (["venv", str(home)], ["pip", "install", "--python", str(home), OBJECT_STORE]):
        subprocess.run(["uv", *command], check=True, capture_output=True)
    gateway = "{{(index .IPAM.Config 0).Gateway}}"
    host = docker("network", "inspect", "bridge", "--format", gateway)
    serves = [str(home / "bin/python"), "-m", "moto.server", "--host", host, "--port", str(port)]
    store = subprocess.Popen(serves, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        made = urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(made, timeout=10)
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.5)
        yield made.full_url
    finally:
        store.kill()
        store.wait()


@pytest.mark.full
@pytest.mark.heavy(5)
def test_compose_works_with_a_database_and_a_bucket_that_env_names(engine, disk):
    """Versions are in PostgreSQL, artifacts and snapshots in the bucket, after a restart too."""
    needs("uv")
    with bucket(disk) as store, composed(disk / "it") as made:
        project_file = made.folder / "pyproject.toml"
        edit(project_file, '    "fsspec>', '    "s3fs>=2025.9",\n    "fsspec>')
        made.run("make lock")
        named = {
            "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg://journal:only-on-my-machine@db:5432/mlflow",
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/mlflow",
            "DATA_STORE": "s3://bucket/snapshots",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": store.removesuffix("/bucket"),
        }
        text = (made.folder / ".env.example").read_text()
        for name, value in named.items():
            text, found = re.subn(rf"(?m)^#{name}=.*$", f"{name}={value}", text)
            assert found == 1, name
        (made.folder / ".env").write_text(text)
        made.run("docker compose up --detach --wait db")
        psql = "PGPASSWORD=only-on-my-machine psql --host 127.0.0.1 --username journal"
        create = shlex.quote(f"{psql} --command 'CREATE DATABASE mlflow' journal")
        made.run(f"docker compose exec -T db sh -c {create}")
        made.run("make up", timeout=1800)
        job = "docker compose run --rm -T job"
        made.run(f"{job} train")
        until_served(made, "1")
        made.run(f"{job} promote --env staging")
        made.run("docker compose restart mlflow && docker compose up --detach --wait")
        assert re.search(r"(?m)^ 1 +test .*\n +staging", made.run(f"{job} status"))
        assert "deleted" not in made.run(f"{job} prune --yes store")
        with urllib.request.urlopen(f"{store}?list-type=2", timeout=10) as listed:
            keys = re.findall("<Key>(.*?)</Key>", listed.read().decode())
        assert [key for key in keys if re.fullmatch(r"snapshots/composed/\w{32}\.parquet", key)]
        assert [key for key in keys if re.fullmatch(r"mlflow/.*/model\.onnx", key)]
