"""Renders the template fast, and updates what was rendered.

Rendering in process from a plain folder, with each Jinja source compiled once, plain names not
rendered at all, and git not asked about files' modes and submodules, is 10 times as fast as stock
Copier; test_stock.py renders and updates without, and gets the same files.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import copier
import jinja2
import pytest
from copier import _vcs
from copier._main import Worker

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "update.md").read_text()
(BACK,) = re.findall(r"## Go back.*?```sh\n(.*?)\n```", PAGE, re.DOTALL)
"""The command by which the page of updates brings a tree back."""
PARTS = ("copier.yml", "template", "parts")
STAND_IN = b"PAR1 a small stand-in for the data PAR1"
IGNORED = shutil.ignore_patterns("__pycache__", "*.py[co]", ".*_cache", "*.egg-info")


def snapshot(to: Path, data: bool = False) -> Path:
    """The working tree's template in a plain folder; the sample data only where it is asked for."""
    to.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, to / part, ignore=IGNORED, dirs_exist_ok=True)
        else:
            shutil.copy2(source, to)
    if not data:
        for sample in to.glob("template/**/*.parquet"):
            sample.write_bytes(STAND_IN)
    return to


@contextmanager
def fast() -> Iterator[None]:
    """Does once what gives the same each time, and skips git's look at modes and submodules."""
    compile_, code = jinja2.Environment.compile, {}
    clone, render_string = _vcs.clone, Worker._render_string
    answers_file = cached_property(vars(Worker)["answers_relpath"].fget)
    answers_file.__set_name__(Worker, "answers_relpath")

    def compile_once(self, source, name=None, filename=None, raw=False, defer_init=False):
        known = (source, name, raw, defer_init)
        if not isinstance(source, str) or known not in code:
            code[known] = compile_(self, source, name, filename, raw, defer_init)
        else:
            self.preprocess(source, name, filename)  # resets what Copier's `yield` tag keeps
        return code[known]

    def render_braces(self, string, extra_context=None):
        return render_string(self, string, extra_context) if "{" in string else string

    def clone_shared(url: str, ref: str, location: str) -> str:
        if ref == "HEAD":  # may be a dirty tree
            return clone(url, ref, location)
        ask = _vcs.get_git()
        ask("clone", "--quiet", "--shared", "--no-checkout", "--", url, location)
        ask("-C", location, "checkout", "--quiet", "--detach", ref)
        return location

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", compile_once)
        patch.setattr("copier._template.clone", clone_shared)
        patch.setattr(Worker, "_render_string", render_braces)
        patch.setattr(Worker, "answers_relpath", answers_file)
        patch.setattr(Worker, "_sync_git_index_executable_bit", lambda *_: None, raising=False)
        yield


def copy(template: Path, to: Path, ref: str | None = None, /, **answers: Any) -> Path:
    """Renders `template`, or its version `ref`; every answer must be a question's, and is kept."""
    made = copier.run_copy(str(template), to, data=answers, vcs_ref=ref, defaults=True, quiet=True)
    kept = made.answers.combined
    assert answers.items() <= kept.items()
    assert not answers.keys() - made.template.questions_data.keys(), "not a question"
    return to


def update(project: Path) -> None:
    """Takes in the template's latest version."""
    copier.run_update(project, defaults=True, overwrite=True, quiet=True)


def script(name: str, folder: Path = ROOT / "template" / "scripts") -> ModuleType:
    """A script as a module."""
    spec = spec_from_file_location(name, folder / f"{name}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_update(project: Path, *choices: str) -> dict[str, Any]:
    """What `make update` does before it locks and checks; returns its report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        module = script("update")
        code = module.main(*choices)
        report = json.loads(module.REPORT.read_text())
    assert code == bool(report["conflicts"] or report["kept"])
    return report


def switch(project: Path, **answers: Any) -> None:
    """Changes answers, within the template's version that the project has."""
    copier.run_update(
        project,
        data=answers,
        vcs_ref=copier.VcsRef.CURRENT,
        defaults=True,
        overwrite=True,
        quiet=True,
    )


def git(folder: Path, *command: str) -> str:
    """What a git command says; raises if it fails."""
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "ciclo"), ("EMAIL", "ciclo@localhost"))
    }
    return subprocess.run(
        ["git", "-C", folder, *command], check=True, capture_output=True, text=True,
        env=os.environ | identity,
    ).stdout  # fmt: skip


def commit(folder: Path, tag: str = "") -> None:
    """Commits everything, in a new repository if there is none."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", tag or "state")
    if tag:
        git(folder, "tag", tag)


def edit(path: Path, old: str, new: str) -> None:
    """Replaces the one place where `old` stands."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new))


def files(folder: Path) -> dict[str, bytes]:
    """Every file by its path, without git's and Python's own."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".git", "__pycache__"} & {*path.relative_to(folder).parts}
    }


def ownership() -> list[tuple[re.Pattern[str], str]]:
    """The table of docs/yours.md: which paths are of which class, in its order."""
    found = []
    for line in (ROOT / "docs" / "yours.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and "`" in cells[0]:
            for glob in re.findall(r"`([^`]+)`", cells[0]):
                pattern = re.escape(glob).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
                found.append((re.compile(pattern), cells[1]))
    return found


OWNERSHIP = ownership()


def owners(path: str) -> list[str]:
    """The classes that the table gives a path."""
    return [owner for pattern, owner in OWNERSHIP if pattern.fullmatch(path)]


def is_yours(path: str) -> bool:
    """Whether a file is the user's: seeded once, kept as it is, or unknown to the template."""
    return owners(path)[:1] in ([], ["yours"], ["yours, seeded once"], ["yours, must be there"])
