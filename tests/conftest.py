"""Fixtures: the template as a plain folder, as a git repository, and its rendered variants."""

import subprocess
from pathlib import Path

import pytest
from harness import commit, copy, fast, snapshot
from variants import key, variants


@pytest.fixture(scope="session", autouse=True)
def fast_renders(request, tmp_path_factory):
    """All renders are fast, and no git configuration of the machine has a say."""
    empty = tmp_path_factory.mktemp("git") / "config"
    empty.write_text("[init]\ndefaultBranch = main\n[gc]\nauto = 0\n")
    with pytest.MonkeyPatch.context() as patch, fast():
        patch.setenv("GIT_CONFIG_GLOBAL", str(empty))
        patch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
        patch.setenv("COPIER_CACHE_DIR", str(empty.parent / "cache"))
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
def renders(template, tmp_path_factory) -> dict[str, Path]:
    """Every variant, rendered."""
    home = tmp_path_factory.mktemp("renders")
    return {key(answers): copy(template, home / key(answers), **answers) for answers in variants()}


@pytest.fixture
def run():
    """Runs a command; a failure shows what it said."""

    def call(*command: str, cwd: Path) -> str:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call
