"""The rendered package's house: folders that one can look through, and imports that go one way."""

import ast
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from harness import ROOT
from variants import choices

MOST = 12
"""Modules of a folder, without __init__ and __main__."""


def modules() -> dict[str, list[Path]]:
    """The files of each module by its name in the package, one for each answer that has its own.

    Those of project/ are left out: they are the user's, and may import what they like.
    """
    found = defaultdict(list)
    for package in (ROOT / "template").glob("**/src/{{ package }}"):
        for path in package.rglob("*.py"):
            parts = path.relative_to(package).with_suffix("").parts
            if parts[0] != "project":
                found[".".join(parts).removesuffix(".__init__")].append(path)
    return found


def imports(path: Path, name: str, known: set[str]) -> set[str]:
    """The modules that a module imports at its top, in its functions, or for its types."""
    here = [*name.split("."), *(["__init__"] if path.stem == "__init__" else [])]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(filter(None, [*here[: -node.level], node.module]))
            for alias in node.names:
                module = ".".join(filter(None, [base, alias.name]))
                found.add(module if module in known else base)
    return {module for module in found if module.partition(".")[0] != "project"} - {""}


def test_no_module_imports_itself_by_way_of_others():
    files = modules()
    known = {*files}
    graph = {n: {m for p in paths for m in imports(p, n, known)} for n, paths in files.items()}
    assert graph["cycle"] > {"registry.gates", "training.snapshots", "monitoring.monitor"}
    assert {module for found in graph.values() for module in found} <= known
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_a_folder_can_be_looked_through():
    sizes = Counter(
        name.rpartition(".")[0]
        for name, paths in modules().items()
        if not paths[0].stem.startswith("__")
    )
    assert sizes.keys() >= {"", "training", "serving.journal"}
    assert {folder: size for folder, size in sizes.items() if size > MOST} == {}


@pytest.mark.parametrize("registry", choices("model_registry"))
def test_only_a_registrys_own_files_know_it(registry):
    for name, paths in modules().items():
        for path in paths:
            if f"model_registry == '{registry}'" in str(path):
                assert name.startswith("registry."), f"{name} is the registry's, and elsewhere"
            else:
                assert registry not in path.read_text().lower(), f"{name} names {registry}"
