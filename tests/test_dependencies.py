"""What a project asks for is what its code imports, and constraints.txt pins all of it."""

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

import pytest
from harness import ROOT
from variants import REGISTRIES

PACKAGE_OF = {
    "fastapi_offline": "fastapi-offline",
    "mlflow": "mlflow-skinny",
    "pydantic_core": "pydantic",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "sklearn": "scikit-learn",
    "starlette": "fastapi",
}
# Not imported by name: what another package loads (drivers, loops, formats), and tools.
LOADED = {
    *(
        "alembic",
        "bokeh",
        "httptools",
        "protobuf",
        "psycopg",
        "pyarrow",
        "skops",
        "sqlparse",
        "uvloop",
    ),
    *("flit-core", "httpx", "mypy", "pandas-stubs", "pytest-xdist", "ruff"),
}


@functools.cache
def imports(code: bytes) -> frozenset[str]:
    """The modules that a Python file imports."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.split(".")[0])
    return frozenset(found)


def imported(folder: Path) -> set[str]:
    """The packages that Python files import, other than Python's own and the project's."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        if path.parent.name != "scripts":  # they run apart, with tools of their own
            found |= imports(path.read_bytes())
    own = {path.stem for path in folder.rglob("*.py")} | {"tests", "src"}
    own |= {path.name for path in (folder / "src").iterdir()}
    return {PACKAGE_OF.get(name, name) for name in found - own - set(sys.stdlib_module_names)}


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in requirements}


def declared(project: Path) -> set[str]:
    told = tomllib.loads((project / "pyproject.toml").read_text())
    groups = [*told["project"]["optional-dependencies"].values()]
    groups += told["dependency-groups"].values()
    return named(sum(groups, told["project"]["dependencies"]))


def test_declared_and_imported_agree(renders):
    for name, project in renders.items():
        wanted, there = imported(project), declared(project)
        assert sorted(wanted - there) == [], f"{name}: imported, not declared"
        assert sorted(there - wanted - LOADED) == [], f"{name}: declared, not imported"


def test_every_dependency_has_a_floor_and_a_ceiling(renders):
    for project in renders.values():
        told = tomllib.loads((project / "pyproject.toml").read_text())
        groups = told["project"]["optional-dependencies"].values()
        for requirement in sum(groups, told["project"]["dependencies"]):
            assert re.search(r">=[\d.]+,<[\d.]+", requirement), requirement


@pytest.mark.parametrize("name", ["constraints.txt", "**/constraints.*.txt"])
def test_constraints_pin_exactly(name):
    for path in (ROOT / "template").glob(name):
        if path.name != "constraints.local.txt":
            pins = [line for line in path.read_text().splitlines() if not line.startswith("#")]
            assert pins
            assert all(re.match(r"[a-z0-9._-]+==[^\s,*]+( ; .+)?$", pin) for pin in pins)


def test_constraints_cover_every_dependency(renders):
    pinned = named((ROOT / "template/constraints.txt").read_text().splitlines())
    for project in renders.values():
        assert sorted(declared(project) - pinned) == []


def test_the_servers_version_is_said_once_for_all():
    """The fact, the verb that runs it and its constraints name the same version."""
    for registry, facts in REGISTRIES.items():
        home = ROOT / "template" / f"{{% if model_registry == '{registry}' %}}.{{% endif %}}"
        if not facts["server"]:
            continue
        assert facts["server"] in (home / "registry.mk").read_text()
        assert facts["server"] in (home / f"constraints.{registry}.txt").read_text().splitlines()
