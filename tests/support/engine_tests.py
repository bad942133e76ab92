"""The tests of the rendered code: tests/engine, as tests of a rendered project, in its environment.

usage: engine_tests.py [ARGUMENTS OF PYTEST]    in build/engine, rendered anew; PROBLEM=, FORMAT=
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import copier
from harness import IGNORED, ROOT
from variants import choices

TESTS = ROOT / "tests" / "engine"
PROBLEMS, FORMATS = choices("problem"), choices("serving_format")


def marks(problem: str, serving_format: str) -> str:
    """Which of the tests say something new there, as pytest's -m has it.

    All of them in the first project. Of the others, one for each problem and format runs what
    depends on either, and the rest run what depends on both.
    """
    i, j = PROBLEMS.index(problem), FORMATS.index(serving_format)
    if i == j == 0:
        return ""
    return "problem or format" if i == j else "problem and format"


PORT = {
    "mlflow": ["port_mlflow.py", "port_team.py", "test_team.py", "team.py"],
    "wandb": ["port_wandb.py", "port_folder.py", "test_wandb.py", "wandb_server.py"],
}
"""What the port's test needs of each registry, and no other test does."""
SHARED = ["__init__.py", "conftest.py", "servers.py", "test_port.py"]


def with_tests(project: Path, registry: str = "mlflow") -> Path:
    """A rendered project, with the tests among its own: all of them, or with another registry than
    the first those of the port."""
    to = project / "tests" / "engine"
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(TESTS, to, ignore=IGNORED)
    others = {name for other, names in PORT.items() if other != registry for name in names}
    mine = {path.name for path in to.glob("*.py")} - others
    if registry != "mlflow":
        mine &= {*SHARED, *PORT[registry]}
    for path in to.glob("*.py"):
        if path.name not in mine:
            path.unlink()
    return project


def run(project: Path, python: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A module of an environment that need not be the project's, with the project's package."""
    hidden = ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "MAKEFLAGS", "MAKELEVEL")
    own = {name: value for name, value in os.environ.items() if name not in hidden}
    own |= {"PYTHONPATH": str(project / "src"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    own |= {"COVERAGE_CORE": "sysmon"}  # takes a third of the time that the usual one adds
    return subprocess.run(
        [python, "-m", *command], cwd=project, env=own, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    problem, serving_format = os.environ.get("PROBLEM"), os.environ.get("FORMAT")
    folder = ROOT / "build" / "engine"
    answers = {"problem": problem or PROBLEMS[0], "serving_format": serving_format or FORMATS[0]}
    copier.run_copy(
        str(ROOT), folder, answers, vcs_ref="HEAD", defaults=True, overwrite=True, quiet=True
    )
    subprocess.run(["make", "--no-print-directory", "setup"], cwd=folder, check=True)
    done = run(with_tests(folder), folder / ".venv/bin/python", "pytest", *arguments)
    print(done.stdout)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
