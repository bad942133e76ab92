"""The rendered code, by tests/engine: each test as often as it says something new.

Once for each problem and format where it depends on them, as its marks say; one environment, that
of the first project, holds what all of them need.
"""

import os
from itertools import product

import pytest
from engine_tests import FORMATS, PROBLEMS, marks, run, with_tests
from harness import ROOT
from running_project import Project, missing, project
from variants import OBJECT_STORE, REGISTRIES, choices

COVERED = 88
"""Percent of the package's lines that the first project's run must reach; 91 were seen."""
MINUTES = {"": 9, "problem or format": 7, "problem and format": 1}
pytestmark = pytest.mark.xdist_group("engine")  # the environment is made once


def passes(done) -> None:
    """A failure shows all that was said."""
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)


def inner(engine: Project, problem: str, serving_format: str) -> Project:
    """A project with the tests in it."""
    folder = engine.folder.parent / f"{problem}-{serving_format}"
    if folder.exists():
        return Project(folder)
    made = project(folder, problem=problem, serving_format=serving_format)
    with_tests(made.folder)
    return made


@pytest.mark.parametrize(
    ("problem", "serving_format"),
    [
        pytest.param(*pair, marks=pytest.mark.heavy(MINUTES[marks(*pair)]), id="-".join(pair))
        for pair in product(PROBLEMS, FORMATS)
    ],
)
def test_the_rendered_code(engine, problem, serving_format):
    made, which = inner(engine, problem, serving_format), marks(problem, serving_format)
    command = ["pytest", "tests/engine", "-m", which, "-o", "tmp_path_retention_policy=failed"]
    if not which:
        command += ["--cov=src/flight_delays", f"--cov-fail-under={COVERED}"]
    passes(run(made.folder, engine.folder / ".venv/bin/python", *command))


@pytest.mark.heavy(1)
def test_its_tests_are_typed_and_clean(engine):
    """By the settings of a rendered project, but that they may reach what a module imports.

    So is the demo, which uses the package, and would else fail only when it runs.
    """
    made, python = inner(engine, PROBLEMS[0], FORMATS[0]), engine.folder / ".venv/bin/python"
    demo = str(ROOT / "demo" / "replay.py")
    passes(run(made.folder, python, "mypy", "--implicit-reexport", "src", "tests", demo))
    passes(run(made.folder, python, "ruff", "check"))
    passes(run(made.folder, python, "ruff", "format", "--check"))


@pytest.fixture
def teams_server(engine, monkeypatch) -> None:
    """Tells the tests of a Python that has what MLflow's image has, and a store that speaks S3."""
    if not os.environ.get("TEST_JOURNAL_URL"):
        missing("TEST_JOURNAL_URL names no PostgreSQL (pg_virtualenv gives one)")
    facts = REGISTRIES["mlflow"]
    packages = " ".join(f"'{name}'" for name in [facts["server"], *facts["beside"], OBJECT_STORE])
    home = engine.folder.parent / "server"
    if not home.exists():
        engine.run(
            f"uv venv --quiet --python 3.13 {home} && uv pip install --quiet --python {home} "
            f"--constraint constraints.mlflow.txt {packages}"
        )
    monkeypatch.setenv("TEST_MLFLOW", str(home / "bin" / "python"))


@pytest.mark.full
@pytest.mark.heavy(2)
@pytest.mark.parametrize("tests", ["test_team.py", "test_port.py"])
@pytest.mark.usefixtures("teams_server")
def test_a_teams_mlflow(engine, tests):
    made = inner(engine, PROBLEMS[0], FORMATS[0])
    python = engine.folder / ".venv/bin/python"
    passes(run(made.folder, python, "pytest", f"tests/engine/{tests}"))


@pytest.mark.full
@pytest.mark.heavy(1)
def test_signatures_are_those_of_the_public_tool(engine, monkeypatch):
    """In an environment of its own: it needs much, and pyOpenSSL, which it does not declare."""
    made, home = inner(engine, PROBLEMS[0], FORMATS[0]), engine.folder.parent / "model-signing"
    engine.run(
        f"uv venv --quiet --python 3.13 {home} && "
        f"uv pip install --quiet --python {home} model-signing==1.1.1 pyopenssl"
    )
    monkeypatch.setenv("TEST_MODEL_SIGNING", str(home / "bin" / "model_signing"))
    done = run(
        made.folder, engine.folder / ".venv/bin/python", "pytest", "-rs",
        "tests/engine/test_signature.py", "-k", "own_tool",
    )  # fmt: skip
    passes(done)
    assert "1 passed" in done.stdout


@pytest.mark.heavy(2)
@pytest.mark.full
def test_each_other_registry_passes_the_ports_test(tmp_path):
    """The first one's is among the tests above."""
    for registry in choices("model_registry")[1:]:
        made = project(tmp_path / registry, env_manager="uv", ci="none", model_registry=registry)
        python = with_tests(made.folder, registry) / ".venv/bin/python"
        made.run("make setup")
        passes(run(made.folder, python, "pytest", "tests/engine"))
        passes(run(made.folder, python, "mypy", "--implicit-reexport"))
        passes(run(made.folder, python, "ruff", "check"))
        passes(run(made.folder, python, "ruff", "format", "--check"))


@pytest.mark.heavy(2)
@pytest.mark.full
def test_scores_on_dask_and_ray(engine, tmp_path):
    """In an environment that has them, as `make lock ENGINES='dask ray'` makes it."""
    made = project(tmp_path / "it", env_manager="uv", ci="none")
    made.run("make lock ENGINES='dask ray'")
    assert "\nray==" in (made.folder / "locks" / "job.txt").read_text()
    assert "\nray==" not in (engine.folder / "locks" / "job.txt").read_text()
    made.run("make setup")
    python = with_tests(made.folder) / ".venv/bin/python"
    done = run(made.folder, python, "pytest", "-rs", "tests/engine/test_workers.py")
    passes(done)
    assert "is not installed" not in done.stdout
