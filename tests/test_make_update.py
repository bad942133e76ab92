"""`make update` as people meet it: what it refuses, what it says, and the way back."""

import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import BACK, commit, copy, edit, files, git, script

ANSWERS = ".copier-answers.yml"


@pytest.fixture
def releases(repository, tmp_path) -> Path:
    """A release v1.0.0, and a v1.1.0 that changes the Makefile and drops a workflow."""
    made = shutil.copytree(repository, tmp_path / "releases")
    edit(made / "template/Makefile.jinja", "READY := .venv/.ready", "READY := .venv/.theirs")
    next(made.glob("template/*github*/.github/workflows/cycle.yml.jinja")).unlink()
    commit(made, "v1.1.0")
    return made


@pytest.fixture
def project(releases, tmp_path) -> Path:
    """A committed project of v1.0.0."""
    made = copy(releases, tmp_path / "project", "v1.0.0")
    commit(made)
    return made


def update(project: Path, *choices: str) -> tuple[int, str]:
    """The script's exit code and what it said; in this process, which is faster."""
    module, told = script("update", project / "scripts"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        patch.chdir(project)
        try:
            return module.main(*choices), told.getvalue()
        except module.Stop as error:
            return 1, f"error: {error}\n"


def process(project: Path, *choices: str) -> subprocess.Popen[str]:
    """The same as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "scripts/update.py", *choices], cwd=project, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def refused(project: Path, *choices: str) -> str:
    """What it says when it refuses; nothing changes, and it is one line."""
    (project / "reports/update.json").unlink(missing_ok=True)  # what it said before
    before = files(project)
    code, said = update(project, *choices)
    assert code == 1
    assert files(project) == before
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    return said


def test_what_is_there_is_taken_in_and_then_nothing_is_left(project):
    code, said = update(project)
    assert (code, "v1.0.0 to v1.1.0" in said) == (0, True), said
    commit(project)
    assert update(project) == (0, "v1.1.0 is the newest version; nothing changed\n")


def test_conflicts_and_edited_files_that_went_are_listed(project):
    edit(project / "Makefile", "READY := .venv/.ready", "READY := .venv/.mine")
    with (project / ".github/workflows/cycle.yml").open("a") as file:
        file.write("# mine\n")
    commit(project)
    code, said = update(project)
    assert code == 1
    assert "conflict: Makefile" in said
    assert "kept: .github/workflows/cycle.yml" in said
    assert "# mine" in (project / ".github/workflows/cycle.yml").read_text()
    shown = git(project, "status", "--porcelain").splitlines()
    assert {"UU Makefile", "UD .github/workflows/cycle.yml"} <= {*shown}


def test_a_tree_that_is_not_clean_is_refused(project):
    (project / "mine.txt").write_text("mine\n")
    assert "1 files are not committed (?? mine.txt)" in refused(project)


def test_without_git_or_a_commit_it_is_refused(project):
    shutil.rmtree(project / ".git")
    assert "git init --initial-branch main && git add --all && git commit" in refused(project)
    git(project, "init", "--quiet")
    assert "there is no commit here" in refused(project)


def test_a_missing_or_broken_answers_file_is_refused(project):
    (project / ANSWERS).unlink()
    commit(project)
    assert f"{ANSWERS} is missing" in refused(project)
    (project / ANSWERS).write_text("a: [\n")
    commit(project)
    assert f"{ANSWERS} cannot be read" in refused(project)
    (project / ANSWERS).write_text("ci: none\n")
    commit(project)
    assert "does not say _src_path and _commit" in refused(project)


def test_an_answer_changed_by_hand_is_refused_with_the_command_that_changes_it(project):
    edit(project / ANSWERS, "\nci: github", "\nci: none")
    commit(project)
    said = refused(project)
    assert "ci was changed by hand" in said
    assert "make update CHOICE=ci=none" in said


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("ci", "use QUESTION=ANSWER; the questions are author, ci,"),
        ("colour=red", "use QUESTION=ANSWER"),
        ("ci=jenkins", "ci"),
        ("problem=regression", "it stays classification"),
        ("name=other", "it stays flight-delays"),
    ],
)
def test_a_choice_that_is_none_is_refused(choice, said, project):
    assert said in refused(project, choice)


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("git config status.showUntrackedFiles no; touch mine", "1 files are not committed"),
        ("git update-index --skip-worktree env.mk", "git does not look at env.mk"),
        ("git update-index --assume-unchanged env.mk", "git does not look at env.mk"),
        ("echo env.mk >.git/info/exclude", "env.mk is committed, and ignored too"),
        ("git rm -q --cached env.mk; echo /env.mk >>.gitignore; git add .gitignore; "
         "git commit -qm x", "env.mk lies here and ciclo renders it"),
        ("mkdir -p var; touch var/mine.rej", "var/mine.rej"),
    ],
)  # fmt: skip
def test_what_git_could_not_bring_back_is_refused(do, said, project):
    who = {f"GIT_{role}_{part}": "a" for role in ("AUTHOR", "COMMITTER")
           for part in ("NAME", "EMAIL")}  # fmt: skip
    subprocess.run(do, shell=True, cwd=project, check=True, env=os.environ | who)
    before = git(project, "status", "--porcelain", "--untracked-files=all")
    assert said in refused(project)
    assert git(project, "status", "--porcelain", "--untracked-files=all") == before


def test_a_project_that_a_larger_repository_ignores_is_refused(releases, tmp_path):
    whole = tmp_path / "whole"
    project = copy(releases, whole / "build" / "project", "v1.0.0")
    (whole / ".gitignore").write_text("build/\n")
    commit(whole)
    assert "this folder is ignored" in refused(project)


def test_an_answer_that_is_so_already_changes_nothing(project):
    assert update(project, "ci=github") == (0, "ci=github is so already; nothing changed\n")


@pytest.mark.heavy
def test_a_failure_after_the_merge_brings_everything_back(project, monkeypatch):
    with (project / ".github/workflows/cycle.yml").open("a") as file:
        file.write("# mine\n")
    commit(project)
    before = files(project)
    module = script("update", project / "scripts")
    real = module.git

    def full(*command: str) -> str:
        if command[0] == "checkout":
            raise OSError("no space left")
        return real(*command)

    monkeypatch.setattr(module, "git", full)
    monkeypatch.chdir(project)
    with pytest.raises(module.Stop, match="nothing was changed: no space left"):
        module.main()
    assert files(project) == before
    assert git(project, "status", "--porcelain") == ""


def test_a_lock_of_git_that_was_left_is_named(project, monkeypatch):
    module = script("update", project / "scripts")
    monkeypatch.chdir(project)

    def killed(*_: object, **__: object) -> None:
        (project / ".git/index.lock").touch()
        raise OSError("killed")

    monkeypatch.setattr(module.copier, "run_update", killed)
    with pytest.raises(module.Stop, match=r"index\.lock.*git restore"):
        module.main()


def test_a_name_changed_by_hand_has_one_way_out(project):
    edit(project / ANSWERS, "\nname: flight-delays", "\nname: other")
    commit(project)
    assert refused(project).endswith("put it back and commit\n")


def test_quotes_reach_the_answer_as_they_are(project):
    done = subprocess.run(
        ["make", "--no-print-directory", "update", "CHOICE=author=O'Brien & $5 \"é\"", "UV=echo"],
        cwd=project, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[0].endswith('update.py author=O\'Brien & $5 "é"')


@pytest.mark.heavy
def test_a_template_that_moved_is_named_and_found_again(project, releases):
    moved = releases.rename(releases.with_name("moved"))
    said = refused(project)
    assert str(releases) in said
    assert "write its new address (a full one) as _src_path" in said
    edit(project / ANSWERS, f"\n_src_path: {releases}", f"\n_src_path: {moved}")
    commit(project)
    assert update(project)[0] == 0


@pytest.mark.heavy
def test_a_shallow_clone_of_a_project_is_updated_too(project, tmp_path):
    commit(project)
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{project}", "shallow")
    code, said = update(tmp_path / "shallow")
    assert (code, "v1.0.0 to v1.1.0" in said) == (0, True), said


@pytest.mark.heavy
def test_a_project_in_a_folder_of_a_larger_repository(releases, tmp_path):
    """Only the project must be clean, and only the project is brought back."""
    whole = tmp_path / "whole"
    project = copy(releases, whole / "models" / "project", "v1.0.0")
    (whole / "other.txt").write_text("committed\n")
    commit(whole)
    (whole / "other.txt").write_text("not committed\n")
    code, said = update(project)
    assert (code, "v1.0.0 to v1.1.0" in said) == (0, True), said
    subprocess.run(BACK, shell=True, cwd=project, check=True, capture_output=True)
    assert "problem" in refused(project, "problem=regression")
    assert (whole / "other.txt").read_text() == "not committed\n"
    assert git(project, "status", "--porcelain", "--", ".") == ""


@pytest.mark.heavy
def test_as_a_process_it_ends_with_a_line_and_a_code(project):
    started = process(project, "ci=jenkins")
    out, said = started.communicate(timeout=60)
    assert (started.returncode, out) == (1, "")
    assert said.startswith("error: nothing was changed: ")
    assert said.count("\n") == 1


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment_one_command_brings_back_what_was_there(seed, project):
    edit(project / "Makefile", "READY := .venv/.ready", "READY := .venv/.mine")
    commit(project)
    before = files(project)
    started = process(project)
    time.sleep(random.Random(seed).uniform(0.3, 4))
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()
    subprocess.run(BACK, shell=True, cwd=project, check=True, capture_output=True)
    left = {p: c for p, c in files(project).items() if not p.startswith("reports/")}
    assert left == before
    assert git(project, "status", "--porcelain") == ""
    assert update(project)[0] == 1, "and it can be done again"


@pytest.mark.heavy
def test_stopped_by_a_person_nothing_is_changed(project):
    before = files(project)
    started = process(project)
    time.sleep(1.5)
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=60)
    if started.returncode != 0:  # it was not done already
        assert said == "error: stopped; nothing was changed\n"
        assert files(project) == before
        assert git(project, "status", "--porcelain") == ""
