"""Ours: the tests of the life cycle. Yours are in tests/project/."""

import importlib
from pathlib import Path
from types import ModuleType

NAME = next(Path(__file__).parents[1].glob("src/*/settings.py")).parent.name


def package(module: str) -> ModuleType:
    """A module of the package, whatever its name is."""
    return importlib.import_module(f"{NAME}.{module}")
