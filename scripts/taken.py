"""Writes parts/taken.txt: the names that a project may not have, since they would hide a module.

`make constraints` runs it, as new versions bring new packages. They are Python's modules and
keywords, the packages that constraints.txt pins with their modules, and the project's folders.
"""

import keyword
import re
import sys
import textwrap
from pathlib import Path

import mypy

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "template"
TAKEN = ROOT / "parts" / "taken.txt"
MODULES = {
    "attrs": ["attr"],
    "cwevals": ["coreweave_evaluations"],
    "gitpython": ["git"],
    "google-auth": ["google"],
    "grpcio": ["grpc"],
    "locust": ["pytest_locust"],
    "markdown-it-py": ["markdown_it"],
    "matplotlib": ["mpl_toolkits", "pylab"],
    "mlflow-skinny": ["databricks", "mlflow"],
    "mypy": ["mypyc"],
    "opentelemetry-api": ["opentelemetry"],
    "proto-plus": ["proto"],
    "pytest": ["py"],
    "pytest-xdist": ["xdist"],
    "python-dateutil": ["dateutil"],
    "python-dotenv": ["dotenv"],
    "python-engineio": ["engineio"],
    "python-socketio": ["socketio"],
    "pyyaml": ["yaml"],
    "pyzmq": ["zmq"],
    "rpds-py": ["rpds"],
    "scikit-learn": ["sklearn"],
    "toolz": ["tlz"],
    "websocket-client": ["websocket"],
    "zope-event": ["zope"],
}
"""What one imports of a package, where that is not the package's own name."""
MADE = {"build", "dist", "docs", "locks", "project", "reports", "var", "venv"}
"""Folders that a project has besides those that are rendered, or will likely have."""
OTHERS = {
    "conda",
    "orjson",
    "pip",
    "setuptools",
    "uv",
    "wheel",
}
"""What makes environments, and what a project is likely to add."""


def python() -> set[str]:
    """Modules and keywords of every Python from 3.11 on, whichever this one is."""
    # typeshed knows the modules of all Pythons but for a few, which each of them has.
    known = (Path(mypy.__file__).parent / "typeshed/stdlib/VERSIONS").read_text()
    modules = re.findall(r"^(\w+): 3\.\d+-(?:3\.1[1-9])?\s", known, re.MULTILINE)
    return {*modules, *sys.stdlib_module_names, *keyword.kwlist, *keyword.softkwlist, "type"}


def packages() -> set[str]:
    """The packages that a project may install, as modules would be called, and their modules."""
    pins = re.findall(r"^([\w.-]+)==", (TEMPLATE / "constraints.txt").read_text(), re.MULTILINE)
    return {
        *(re.sub(r"[-.]", "_", pin) for pin in pins),
        *(m for of in MODULES.values() for m in of),
    }


def folders() -> set[str]:
    """The folders at the root of a project, whatever was answered."""
    paths = (path.relative_to(TEMPLATE).parent.parts for path in TEMPLATE.rglob("*"))
    return {next((part for part in parts if "{%" not in part), "") for parts in paths}


def taken() -> str:
    """The text of the file."""
    names = python() | packages() | folders() | MADE | OTHERS
    legal = sorted(name for name in names if re.fullmatch("[a-z][a-z0-9_]*", name))
    return textwrap.fill(" ".join(legal), 100) + "\n"


if __name__ == "__main__":
    TAKEN.write_text(taken())
