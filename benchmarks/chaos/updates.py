"""`make update` that is killed: what is the user's is as it was, or as an update leaves it."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from frame import Case, fault

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("copier.yml", "template", "parts")
BACK = "git reset --quiet -- . && git restore . && git clean -d --force ."
"""What the script and docs/update.md say to do after an update that was stopped."""
WHO = {
    f"GIT_{role}_{part}": "chaos" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")
}


@fault("make update killed at random moments")
def update(case: Case) -> None:
    """One command brings back what was there, and the next update ends as one that was not cut."""
    if not shutil.which("uv"):
        case.notes.append("skipped: no uv is installed")
        return
    project = case.folder.parent / "project"
    yours(case, project, releases(case.folder.parent / "releases"))
    before, start = state(project), time.monotonic()
    case.expect((code := updated(project).wait()) == 0, f"make update ended with {code}")
    takes, after = time.monotonic() - start, state(project)
    case.expect(before != after, "the update changed nothing")
    locks = 0
    for _ in case.times(20, 2):
        sh(project, BACK)
        case.expect(state(project) == before, "the way back does not lead there")
        process = updated(project)
        time.sleep(random.uniform(0, takes))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (lock := project / ".git/index.lock").exists():  # git says so, and that it must go
            lock.unlink()
            locks += 1
        sh(project, BACK)
        case.expect(state(project) == before, "something is lost")
        case.expect(updated(project).wait() == 0, "the next update fails")
        case.expect(state(project) == after, "the next update ends otherwise")
    n = len(case.times(20, 2))
    case.notes.append(f"{n} kills within {takes:.0f} s, {locks} left a lock of git's")


def releases(made: Path) -> Path:
    """The template as it is, v1.0.0, and a v1.1.0 that changes each module and drops a workflow."""
    made.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, made / part)
    sh(made, "git init --quiet && git add --all && git commit --quiet -m 1 && git tag v1.0.0")
    for path in made.glob("template/src/*/**/*.py"):
        if "project" not in path.parts:
            path.write_text(path.read_text() + "# 1.1\n")
    next(made.glob("template/*github*/.github/workflows/cycle.yml.jinja")).unlink()
    sh(made, "git commit --quiet -a -m 2 && git tag v1.1.0")
    return made


def yours(case: Case, project: Path, template: Path) -> None:
    """The case's project as one of v1.0.0: with an edit, a file, a stash and what git ignores."""
    shutil.copytree(case.folder, project, ignore=shutil.ignore_patterns("var", "reports"))
    answers = project / ".copier-answers.yml"
    head, _, rest = answers.read_text().partition("\n_commit:")
    rest = rest.split("\n", 2)[2]
    answers.write_text(f"{head}\n_commit: v1.0.0\n_src_path: {template}\n{rest}")
    sh(project, "git init --quiet && git add --all && git commit --quiet -m rendered")
    module = next(project.glob("src/*/serving/app.py"))
    module.write_text("# mine\n" + module.read_text())
    (project / "mine.txt").write_text("mine\n")
    sh(project, "git add --all && git commit --quiet -m mine")
    (project / "mine.txt").write_text("later\n")
    sh(project, "git stash --quiet")
    (project / ".env").write_text("SECRET=mine\n")
    (project / "var").mkdir()
    (project / "var/mine.db").write_text("mine\n")


def updated(project: Path) -> subprocess.Popen[bytes]:
    """`make update` without the lock and the check that follow, as it begins."""
    return subprocess.Popen(
        ["make", "update", "MAKE=true"], cwd=project, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def state(project: Path) -> dict[str, object]:
    """All files but the report and git's own, and what git keeps."""
    files = {
        str(path.relative_to(project)): (path.read_bytes(), path.stat().st_mode)
        for path in project.rglob("*")
        if path.is_file() and path.relative_to(project).parts[0] not in (".git", "reports")
    }
    return files | {
        "log": sh(project, "git log -g --format=%H"),
        "stash": sh(project, "git stash list"),
    }


def sh(folder: Path, line: str) -> str:
    """What a line of shell says; raises where it fails."""
    return subprocess.run(  # noqa: S602
        line, shell=True, cwd=folder, check=True, capture_output=True, text=True,
        env=os.environ | WHO,
    ).stdout  # fmt: skip
