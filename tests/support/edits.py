"""What users do to a project: the ten edits of docs/yours.md, and ruder ones."""

import random
from dataclasses import dataclass
from pathlib import Path

from harness import files, is_yours


@dataclass(frozen=True)
class Edit:
    """Lines that a user adds: after the line that holds `after`, or at the end of the file."""

    name: str
    path: str
    text: str
    after: str = ""

    def apply(self, project: Path) -> bool:
        """Makes the edit; False where this project has no such file."""
        found = sorted(project.glob(self.path))
        path = found[0] if found else project / self.path
        if not found and self.path not in ("local.mk", "src/mine.py"):
            return False
        old = path.read_text() if found else ""
        if not self.after:
            path.write_text(old + self.text)
            return True
        assert old.count(self.after) == 1, f"{self.after!r} in {path}"
        at = old.index("\n", old.index(self.after)) + 1
        path.write_text(old[:at] + self.text + old[at:])
        return True


TEN = [
    Edit("a feature", "src/*/project/features.py", "\n\nMINE_FEATURE = 1\n"),
    Edit("another model", "src/*/project/model.py", "\n\nMINE_MODEL = 1\n"),
    Edit("a metric of the business's", "src/*/project/metrics.py", "\n\nMINE_METRIC = 1\n"),
    Edit("another source or split", "src/*/project/data.py", "\n\nMINE_SOURCE = 1\n"),
    Edit("a setting", "settings.toml", "[train] # MINE_SETTING\nseed = 3\n"),
    Edit(
        "a dependency",
        "pyproject.toml",
        '    #\n    "MINE_DEPENDENCY>=1",\n',
        after="project/model.py, go below this line",
    ),
    Edit("a verb", "local.mk", "MINE_VERB: ## a verb\n\t@echo mine\n"),
    Edit(
        "a job in the pipelines",
        ".github/workflows/ci.yml",
        "\n  MINE_JOB:\n    runs-on: ubuntu-24.04\n    steps: [{run: make check}]\n",
    ),
    Edit("a chapter of the README", "README.md", "\nMINE_CHAPTER: more of it.\n"),
    Edit(
        "what clients do in the load test",
        "loadtest/locustfile.py",
        "\n    MINE_TASK = 1\n",
    ),
]
RUDER = [
    Edit("a seam", "src/*/predictor.py", "MINE_PREDICTOR = 1\n"),
    Edit("the environment", "env.mk", "MINE_ENV := 1\n"),
    Edit("a module of ours", "src/*/registry/gates.py", "MINE_GATE = 1\n"),
    Edit("a schedule", ".github/workflows/cycle.yml", "# MINE_SCHEDULE\n"),
    Edit("a composite action", ".github/actions/setup/action.yml", "# MINE_ACTION\n"),
    Edit("the licence", "LICENSE", "MINE_LICENCE\n"),
    Edit("a module of one's own", "src/mine.py", "MINE_MODULE = 1\n"),
    Edit("an ignored file", ".gitignore", "/MINE_IGNORED\n"),
]


def marker(edit: Edit) -> bytes:
    """What must be found where the edit is kept."""
    start = edit.text.index("MINE_")
    return edit.text[start : start + 8].encode()


def draw(project: Path, random_: random.Random, count: int = 3) -> tuple[list[Edit], set[str]]:
    """Makes `count` edits and deletes one seed; returns the edits and what was deleted."""
    made: list[Edit] = []
    for edit in random_.sample([*TEN, *RUDER], len(TEN + RUDER)):
        if len(made) < count and edit.apply(project):
            made.append(edit)
    touched = {str(p.relative_to(project)) for e in made for p in project.glob(e.path)}
    seeds = [p for p in files(project) if is_yours(p) and p.startswith(("src/", "tests/"))]
    gone = random_.choice([p for p in seeds if p not in touched and p != "src/mine.py"])
    (project / gone).unlink()
    return made, {gone}
