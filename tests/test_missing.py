"""A tool that is not there: one line says what to install, and nothing is half made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import copy, files
from variants import AXES

THERE = ["awk", "cat", "env", "git", "make", "mkdir", "mv", "rm", "rmdir", "sed", "sh", "touch"]
TOLD = {
    "uv": "uv is not there; install it",
    "pip": "python3.13 is not a Python 3.13; install that",
    "conda": "micromamba, mamba or conda is not there; install one",
}


@pytest.fixture
def bare(tmp_path) -> dict[str, str]:
    """An environment in which hardly any command is found."""
    (tmp_path / "bin").mkdir()
    for name in THERE:
        found = shutil.which(name)
        assert found, name
        (tmp_path / "bin" / name).symlink_to(Path(found).resolve())
    hidden = ("CONDA_EXE", "PYTHON", "UV")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"PATH": str(tmp_path / "bin")}


@pytest.mark.parametrize("manager", AXES["env_manager"])
@pytest.mark.parametrize("verb", ["setup", "lock", "train", "update"])
def test_what_makes_the_environment_is_missing(manager, verb, bare, template, tmp_path):
    project = copy(template, tmp_path / "it", env_manager=manager)
    before = files(project)
    done = subprocess.run(["make", verb], cwd=project, env=bare, capture_output=True, text=True)
    assert done.returncode
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert TOLD[manager] in errors[0]
    made = files(project).keys() - before.keys()
    assert made <= {"var/constraints.txt"}, made


@pytest.mark.parametrize("given", ["", "rows.csv"])
@pytest.mark.parametrize("verb", ["data", "train"])
def test_data_that_nobody_would_read_is_refused(verb, given, template, tmp_path):
    project = copy(template, tmp_path / "it")
    command = ["make", "--old-file=.venv/.ready", verb, f"DATA={given}"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode
    assert "error: DATA= is for own and score and outcomes; say DATA_URI= here\n" in done.stderr


@pytest.mark.parametrize("verb", ["image", "up", "down"])
def test_the_engine_is_missing(verb, bare, template, tmp_path):
    project = copy(template, tmp_path / "it")
    (project / "locks").mkdir()
    for name in ("dev", "job", "serve"):
        (project / "locks" / f"{name}.txt").touch()
    done = subprocess.run(["make", verb], cwd=project, env=bare, capture_output=True, text=True)
    assert done.returncode
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: docker is not there; install it, or say which engine: make ENGINE=podman"
    ]
