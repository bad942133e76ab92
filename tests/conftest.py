"""Fixtures: the template as a plain folder, as a git repository, and its rendered variants."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_provider import CLIENT, CLIENTS, MAKE, ORIGIN, FakeProvider
from harness import commit, copy, fast, git, snapshot
from running_project import Project, needs, on_disk, project
from variants import key, variants

GIT = """
[init]
defaultBranch = main
[gc]
auto = 0
[core]
fsync = none
looseCompression = 0
"""
collect_ignore = ["engine"]  # they run inside a rendered project
MEMORY = Path("/dev/shm")
COVERAGE = "pytest-cov==7.1.0 coverage==7.17.5"


def pytest_configure() -> None:
    """Many small files are twice as fast in memory; what is too large for it asks for `disk`."""
    os.environ.setdefault("DISK_TMPDIR", tempfile.gettempdir())
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 2**30:
        os.environ.setdefault("TMPDIR", str(MEMORY))
        tempfile.tempdir = None  # read anew


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first; of the heavy ones the longest first, so that no worker waits for one.

    An image is made once: what looks at it stays on one worker.
    """
    for item in items:
        if "image" in getattr(item, "fixturenames", ()):
            base = item.callspec.params["image"]  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.xdist_group(f"image-{base}"))

    def minutes(item: pytest.Item) -> float:
        heavy = item.get_closest_marker("heavy")
        return (heavy.args or (0.1,))[0] if heavy else 0

    items.sort(key=lambda item: (minutes(item) > 0, -minutes(item)))


@pytest.hookimpl(wrapper=True)
def pytest_collection_finish(session: pytest.Session):
    """Tests of a group share what is dear to make: where xdist does not group them, says so."""
    if getattr(session.config.option, "loadgroup", False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
                raise pytest.UsageError(f"xdist does not keep the group of {item.nodeid}")
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what tests had to say: record_property("said", text)."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "said":
                terminalreporter.write_line(text)


@pytest.fixture(scope="session", autouse=True)
def fast_renders(tmp_path_factory):
    """All renders are fast, and no git configuration of the machine has a say."""
    config = tmp_path_factory.mktemp("git") / "config"
    config.write_text(GIT)
    with pytest.MonkeyPatch.context() as patch, fast():
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        patch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
        # Of the packages that every project has, mypy need not make a picture each time. A worker
        # has its own: two that write to one fail.
        patch.setenv("MYPY_CACHE_DIR", str(tmp_path_factory.mktemp("mypy")))
        patch.setenv("COPIER_CACHE_DIR", str(config.parent / "cache"))
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """The working tree's template as a plain folder."""
    return snapshot(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """The same as a git repository with one release, from which projects can be updated."""
    made = snapshot(tmp_path_factory.mktemp("repository"))
    commit(made, "v1.0.0")
    return made


@pytest.fixture(scope="session")
def renders(template, tmp_path_factory, worker_id) -> dict[str, Path]:
    """Every variant, rendered; the workers of a run share the work, and what comes of it."""
    home = tmp_path_factory.getbasetemp()
    home = (home if worker_id == "master" else home.parent) / "renders"
    home.mkdir(exist_ok=True)
    found = {key(answers): answers for answers in variants()}
    for name, answers in found.items():
        try:
            (home / f"{name}.taken").touch(exist_ok=False)
        except FileExistsError:
            continue
        start = time.perf_counter()
        copy(template, home / f"{name}.draft", **answers)
        (home / f"{name}.taken").write_text(str(time.perf_counter() - start))
        (home / f"{name}.draft").rename(home / name)
    end = time.monotonic() + 120
    while not all((home / name).exists() for name in found):
        assert time.monotonic() < end, "another worker has not rendered what it took"
        time.sleep(0.1)
    return {name: home / name for name in found}


@pytest.fixture
def disk(request) -> Iterator[Path]:
    """A folder that is not in memory, for a project with its environment."""
    with on_disk(request.session) as folder:
        yield folder


@pytest.fixture(scope="session")
def engine(request) -> Iterator[Project]:
    """The first project, set up: its environment runs the code of every problem and format."""
    needs("uv")
    with on_disk(request.session) as folder:
        made = project(folder / "it", env_manager="uv")
        made.run("make setup")
        made.run(f"uv pip install --quiet --python .venv {COVERAGE}")
        yield made


@pytest.fixture
def run():
    """Runs a command; a failure shows what it said."""

    def call(*command: str, cwd: Path) -> str:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="session")
def hosted(template, tmp_path_factory) -> dict[str, Path]:
    """A committed project for each provider."""
    home = tmp_path_factory.mktemp("hosted")
    for ci in CLIENTS:
        commit(copy(template, home / ci, ci=ci))
        git(home / ci, "remote", "add", "origin", ORIGIN)
    return {ci: home / ci for ci in CLIENTS}


@pytest.fixture(params=CLIENTS)
def provider(request, hosted, tmp_path) -> FakeProvider:
    """A project whose provider is a stand-in, for each provider."""
    project = shutil.copytree(hosted[request.param], tmp_path / "it")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {CLIENTS[request.param]: CLIENT, "make": MAKE}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    for name in ("git", "sh"):  # and no real client
        (tools / name).symlink_to(str(shutil.which(name)))
    (tmp_path / "state").write_text(
        '{"known": ["ci.yml", "cycle.yml", "update.yml", "rollback.yml"]}'
    )
    return FakeProvider(request.param, project, tools)
