"""Laws 3 and 5: whole answer sets are switched under a user's edits, and nothing is lost."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
from edits import TEN, draw, marker
from harness import (
    OWNERSHIP,
    ROOT,
    commit,
    copy,
    edit,
    files,
    git,
    is_yours,
    make_update,
    owners,
    script,
)
from variants import FIXED, refusal, variants

PAIRS, CHUNKS = 200, 20
ANSWERS = ".copier-answers.yml"


def test_every_rendered_file_has_one_class(renders):
    for folder in renders.values():
        for path in files(folder):
            assert len(owners(path)) == 1, f"{path} is {owners(path)} in docs/yours.md"


def test_no_row_of_the_table_is_idle(renders):
    rendered = {path for folder in renders.values() for path in files(folder)}
    made = ("locks/", "var/", "reports/", "data/snapshots/", "build/", ".venv/")
    for pattern, owner in OWNERSHIP:
        if owner != "yours" and not pattern.pattern.replace("\\", "").startswith(made):
            assert any(pattern.fullmatch(path) for path in rendered), pattern.pattern


def test_the_page_lists_the_ten_edits():
    page = (ROOT / "docs" / "yours.md").read_text()
    rows = re.findall(r"^\| ([^|`]+) \| `([^`]+)`", page, re.MULTILINE)
    assert rows == [(e.name, e.path) for e in TEN]


def lives_through(project: Path, fresh: Path, edits: list, gone: set[str], *choices: str) -> None:
    """The law: after the update each edit is kept to the byte, merged, or shown; all else is as
    in a fresh copy."""
    before = files(project)
    report = make_update(project, *choices)
    after, new = files(project), files(fresh)
    shown = {*report["conflicts"], *report["kept"]}
    edited = {str(p.relative_to(project)) for e in edits for p in project.glob(e.path)}
    for e in edits:
        paths = [path for path in before if Path(path).match(e.path)]
        for path in paths:
            if is_yours(path) or path in report["kept"]:
                assert after.get(path) == before[path], f"{e.name}: {path} is not as it was"
            elif path not in report["conflicts"]:
                assert marker(e) in after.get(path, b""), f"{e.name}: {path} lost the edit"
    assert not gone & set(after), "a deleted seed came back"
    for path in report["conflicts"]:
        assert b"<<<<<<< before updating" in after[path]
    ours = {p for p in {*after, *new} if not is_yours(p)} - edited - shown - {ANSWERS}
    ours -= {"reports/update.json"}
    different = [p for p in ours if after.get(p) != new.get(p)]
    assert not different, f"not as in a fresh copy: {sorted(different)}"


def texts(answers: dict[str, str], first: dict[str, str]) -> dict[str, str]:
    return {k: first[k] if k in FIXED else v for k, v in answers.items()}


def pair(repository: Path, folder: Path, seed: int):
    """A project with edits, a fresh copy with the other answers, and what is to be switched."""
    draws = random.Random(seed)
    first, other = draws.choice(variants()), draws.choice(variants())
    mixed = first | {name: draws.choice(variants())[name] for name in ("license", "python")}
    first = first if refusal(mixed) else mixed
    other = texts(other, first)
    project = copy(repository, folder / "project", **first)
    commit(project)
    edits, gone = draw(project, draws)
    commit(project)
    fresh = copy(repository, folder / "fresh", **other)
    return project, fresh, edits, gone, [f"{k}={v}" for k, v in other.items() if k not in FIXED]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "chunk", [pytest.param(n, marks=[pytest.mark.full] if n % 10 else []) for n in range(CHUNKS)]
)
def test_whole_answer_sets_can_be_switched_under_edits(chunk, repository, tmp_path):
    for seed in range(chunk, PAIRS, CHUNKS):
        folder = tmp_path / str(seed)
        project, fresh, edits, gone, choices = pair(repository, folder, seed)
        try:
            lives_through(project, fresh, edits, gone, *choices)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {choices}: {error}") from None


def test_one_of_them_quickly(repository, tmp_path):
    project, fresh, edits, gone, choices = pair(repository, tmp_path, 1000)
    lives_through(project, fresh, edits, gone, *choices)


@pytest.mark.heavy
@pytest.mark.parametrize("broken", ["what is seeded once", "what had been edited"])
def test_the_law_can_say_no(broken, repository, tmp_path, monkeypatch):
    """A class broken on purpose: the law must see it."""
    releases = shutil.copytree(repository, tmp_path / "releases")
    project = copy(releases, tmp_path / "project")
    commit(project)
    seeded = broken == "what is seeded once"
    mine = next(e for e in TEN if e.path.endswith("model.py" if seeded else "ci.yml"))
    assert mine.apply(project)
    commit(project)
    if seeded:
        edit(releases / "copier.yml", "/src/{{ package }}/project{% endif %}", "/x{% endif %}")
        for model in releases.glob("template/*/src/*/project/model.py"):
            model.write_text("# Newer.\n" + model.read_text())
        commit(releases, "v1.1.0")
        choices, answers = [], {}
    else:
        monkeypatch.setattr("test_switch.make_update", without_keeping)
        choices, answers = ["ci=none"], {"ci": "none"}
    fresh = copy(releases, tmp_path / "fresh", **answers)
    with pytest.raises(AssertionError, match=r"is not as it was|lost the edit"):
        lives_through(project, fresh, [mine], set(), *choices)


def without_keeping(project: Path, *choices: str) -> dict:
    """An update that does not look at what was deleted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        module = script("update")
        real = module.settle

        def forgetful(*renders: Path | str) -> tuple[dict, dict]:
            moved, kept = real(*renders)
            for name in kept:
                git(project, "rm", "--quiet", "--force", name)
            return moved, {}

        patch.setattr(module, "settle", forgetful)
        module.main(*choices)
        return json.loads(module.REPORT.read_text())


@pytest.mark.heavy
def test_the_ten_edits_live_through_a_release(repository, tmp_path):
    """The release changes the first line that it can of every file that is rendered."""
    releases = shutil.copytree(repository, tmp_path / "releases")
    project = copy(releases, tmp_path / "project")
    commit(project)
    for mine in TEN:
        assert mine.apply(project)
    commit(project)
    before = files(project)
    changed = 0
    for source in sorted((releases / "template").rglob("*")):
        if not source.is_file() or source.suffix == ".parquet":
            continue
        lines = source.read_text().split("\n")
        marks = [n for n, line in enumerate(lines[:-6]) if line.startswith("#") and "{" not in line]
        for n in marks[:1]:
            lines[n] += " Newer."
            changed += 1
        source.write_text("\n".join(lines))
    assert changed > 10
    commit(releases, "v1.1.0")
    report = make_update(project)
    assert (report["conflicts"], report["kept"]) == ([], [])
    after = files(project)
    for mine in TEN:
        touched = [path for path in before if marker(mine) in before[path]]
        assert touched, mine.name
        for path in touched:
            assert marker(mine) in after[path], f"{mine.name}: {path}"
            assert not is_yours(path) or after[path] == before[path]
    assert git(project, "diff", "--name-only", "--diff-filter=U") == ""
