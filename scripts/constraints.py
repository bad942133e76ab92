"""Resolves what the template's tests run with: constraints.txt, for all Pythons and all choices.

`make constraints` runs it and needs uv. Everything the rendered projects may ask for is resolved
together, from the floors in copier.yml and pyproject.toml.jinja; the registry's server apart.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
from harness import copy, snapshot  # noqa: E402
from variants import QUESTIONS, choices, variants  # noqa: E402

TEMPLATE = ROOT / "template"
CLIENTS = {"adlfs>=2025.8", "gcsfs>=2025.9", "s3fs>=2025.9"}
"""What a team may add for an object store: docs/reproduce.md."""
OLDEST = min(choices("python"), key=lambda version: int(version.split(".")[1]))
HEAD = "# {what}\n# Resolved for Python {oldest} and later by ciclo's `make constraints`.\n"


def requirements(folder: Path) -> set[str]:
    """Every requirement of every variant."""
    found: set[str] = set()
    template = snapshot(folder / "template")
    for number, answers in enumerate(variants()):
        project = copy(template, folder / str(number), **answers)
        pyproject = tomllib.loads((project / "pyproject.toml").read_text())
        found.update(pyproject["project"]["dependencies"])
        found.update(*pyproject["project"]["optional-dependencies"].values())
        found.update(*pyproject["dependency-groups"].values())
    return found


def resolve(wanted: set[str], what: str, to: Path) -> None:
    """Writes the closure of `wanted` to `to`; nothing is written if there is none."""
    done = subprocess.run(
        ["uv", "pip", "compile", "--quiet", "--universal", "--upgrade", "--python-version", OLDEST,
         "--no-header", "--no-annotate", "-"],
        input="\n".join(sorted(wanted)), check=False, text=True, capture_output=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"error: {to.name}: {done.stderr.strip()}")
    to.write_text(HEAD.format(what=what, oldest=OLDEST) + done.stdout)
    print(f"{to.relative_to(ROOT)}: {done.stdout.count('==')} packages")


def main() -> None:
    """Writes all constraints."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = requirements(Path(folder)) | CLIENTS
    resolve(wanted, "What the template was tested with.", TEMPLATE / "constraints.txt")
    for registry, facts in yaml.safe_load(QUESTIONS["model_registry_facts"]["default"]).items():
        if not facts["server"]:
            continue
        home = TEMPLATE / f"{{% if model_registry == '{registry}' %}}.{{% endif %}}"
        what = "What the registry's own server was tested with; it runs apart."
        resolve({facts["server"], *facts["beside"]}, what, home / f"constraints.{registry}.txt")


if __name__ == "__main__":
    main()
