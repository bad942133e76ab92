"""Takes in what ciclo improved since, or changes answers. `make update` runs it with Copier.

usage: update.py [QUESTION=ANSWER]...

Your work is safe: it asks for a clean tree in which git sees every file, so that one git command
brings back what was there, and it ends with 1 when something is left to you: a conflict that git
shows, or a file that ciclo dropped though you had edited it, which is kept.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import copier
import yaml
from copier.errors import CopierError, CopierWarning
from plumbum import ProcessExecutionError

ANSWERS = Path(".copier-answers.yml")
REPORT = Path("reports/update.json")
RESTORE = ("restore", "--source=HEAD", "--staged", "--worktree", ".")
CLEAN = ("clean", "-d", "--force", ".")
BACK = f"git {' '.join(RESTORE)} && git {' '.join(CLEAN)}"
RENDERED = re.compile(r"^# As rendered: (.*)$", re.MULTILINE)
SEEDS = re.compile(r"(data|tests/project|src/[^/]+/project)/")
FOR_GOOD = ("name", "package", "problem", "fixed")


class Stop(Exception):
    """What happened, and what to do, in a line."""


def git(*command: str) -> str:
    """What a git command says; raises CalledProcessError when it fails."""
    done = subprocess.run(["git", *command], check=True, capture_output=True, text=True)
    return done.stdout


def names(*command: str) -> list[str]:
    """The paths that a git command gives with -z."""
    return [name for name in git(*command).split("\0") if name]


def check_tree() -> None:
    """Raises Stop unless git sees every file here, and has it."""
    try:
        git("rev-parse", "--verify", "HEAD")
        top = git("rev-parse", "--show-toplevel").rstrip("\n")
    except FileNotFoundError:
        raise Stop("git is not installed; an update needs it to keep your work safe") from None
    except subprocess.CalledProcessError as error:
        if "dubious ownership" in error.stderr:
            raise Stop(" ".join(error.stderr.split())) from None
        raise Stop(
            "there is no commit here; an update needs one to go back to: "
            "git init --initial-branch main && git add --all && git commit --message Start"
        ) from None
    dirty = git("status", "--porcelain", "--untracked-files=all", "--", ".").splitlines()
    if dirty:
        raise Stop(
            f"{len(dirty)} files are not committed ({dirty[0].strip()}); commit them, or put them "
            f"away with `git stash --include-untracked`; after an update that was stopped: {BACK}"
        )
    if ANSWERS.exists() and not names("ls-files", "-z", "--", str(ANSWERS)):
        raise Stop(f"git does not know {ANSWERS}: this folder is ignored; an update needs commits")
    unseen = names("ls-files", "-z", "--cached", "--ignored", "--exclude-standard", "--", ".")
    if unseen:
        raise Stop(
            f"{unseen[0]} is committed, and ignored too, which hides it from the merge; change the "
            f"rule that `git check-ignore --no-index --verbose {shlex.quote(unseen[0])}` shows"
        )
    unseen = [name for name in names("ls-files", "-z", "-v", "--", ".") if name[:2] != "H "]
    if unseen:
        raise Stop(
            f"git does not look at {unseen[0][2:]} (skip-worktree, assume-unchanged or a sparse "
            "checkout); end that first, for an edit there would be lost"
        )
    lost = names("-C", top, "ls-files", "-z", "--deleted")
    lost += names("-C", top, "ls-files", "-z", "--others", "--", "*.rej")
    if lost:
        raise Stop(f"{lost[0]} in {top} is deleted or a *.rej, which would confuse the merge")


def read_answers() -> dict[str, Any]:
    """The answers; raises Stop when they are not as Copier left them."""
    try:
        text = ANSWERS.read_text()
    except FileNotFoundError:
        raise Stop(
            f"{ANSWERS} is missing, and only it says what this project was made from; find it with "
            f"`git log --diff-filter=D -- {ANSWERS}` and check it out from the commit before"
        ) from None
    try:
        answers = yaml.safe_load(text)
        was = json.loads(found[1]) if (found := RENDERED.search(text)) else {}
    except (yaml.YAMLError, ValueError) as error:
        raise Stop(f"{ANSWERS} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(answers, dict) or not {"_src_path", "_commit"} <= answers.keys():
        raise Stop(
            f"{ANSWERS} does not say _src_path and _commit, the template and its version; check it "
            "out from an earlier commit, or copy the template from a git repository"
        )
    for name in sorted(was.keys() | answers.keys()) if was else ():
        before, now = was.get(name), answers.get(name)
        if not name.startswith("_") and before != now:
            instead = shlex.quote(f"{name}={now}")
            raise Stop(
                f"{name} was changed by hand in {ANSWERS}, from {before!r} to {now!r}, which "
                "changes no file; put it back and commit"
                + ("" if name in FOR_GOOD else f", then run: make update CHOICE={instead}")
            )
    return answers


def chosen(choices: tuple[str, ...], answers: dict[str, Any]) -> dict[str, str]:
    """QUESTION=ANSWER as data; raises Stop for what is no question."""
    known = sorted(key for key in answers if not key.startswith("_") and key != "fixed")
    data = {}
    for choice in choices:
        name, equals, value = choice.partition("=")
        if not equals or name not in known:
            raise Stop(
                f"CHOICE={choice}: use QUESTION=ANSWER; the questions are {', '.join(known)}"
            )
        data[name] = value
    return data


def render(answers: dict[str, Any], ref: str | None, to: Path) -> Path:
    """A fresh copy with these answers; raises Stop when there can be none."""
    source = answers["_src_path"]
    data = {key: value for key, value in answers.items() if not key.startswith("_")}
    try:
        copier.run_copy(source, to, data=data, vcs_ref=ref, defaults=True, quiet=True)
    except (CopierError, ProcessExecutionError, ValueError, OSError) as error:
        reason = " ".join((getattr(error, "stderr", "") or str(error)).split())[-400:]
        way = ""
        if isinstance(error, ProcessExecutionError) or "Local template" in reason:
            way = (
                f"; if the template moved, write its new address (a full one) as _src_path into "
                f"{ANSWERS}, commit, and run this again"
            )
        raise Stop(f"nothing was changed: {reason} (the template is {source}){way}") from None
    return to


def hidden(*renders: Path) -> list[str]:
    """What ciclo renders and what lies here too, but not in git."""
    tracked = set(names("ls-files", "-z", "--", "."))
    paths = {str(p.relative_to(r)) for r in renders for p in r.rglob("*") if p.is_file()}
    here = (path for path in paths - tracked if Path(path).exists())
    return sorted(path for path in here if not SEEDS.match(path))


def merge(data: dict[str, str], old: Path) -> list[str]:
    """Lets Copier merge, and brings back the files that went though they had been edited here;
    returns their names. When it cannot, the tree is as before."""
    current = {"vcs_ref": copier.VcsRef.CURRENT} if data else {}
    kept = []
    try:
        copier.run_update(".", data=data, defaults=True, overwrite=True, quiet=True, **current)
        for name in names("diff", "-z", "--name-only", "--diff-filter=D", "--relative", "HEAD"):
            show = ["git", "show", f"HEAD:./{name}"]
            before = subprocess.run(show, check=True, capture_output=True).stdout
            if not (old / name).is_file() or (old / name).read_bytes() != before:
                git("checkout", "--quiet", "HEAD", "--", name)
                kept.append(name)
    except BaseException as error:
        try:
            git(*RESTORE)
            git(*CLEAN)
        except subprocess.CalledProcessError as stuck:
            raise Stop(f"{' '.join(stuck.stderr.split())} When that is done: {BACK}") from None
        if not isinstance(error, CopierError | ProcessExecutionError | ValueError | OSError):
            raise
        raise Stop(f"nothing was changed: {' '.join(str(error).split())[-400:]}") from None
    return kept


def main(*choices: str) -> int:
    """Updates, says what happened, and returns 1 when something is left to do by hand."""
    REPORT.unlink(missing_ok=True)
    check_tree()
    answers = read_answers()
    data = chosen(choices, answers)
    with tempfile.TemporaryDirectory() as folder:
        old = render(answers, answers["_commit"], Path(folder, "old"))
        new = render(answers | data, answers["_commit"] if data else None, Path(folder, "new"))
        if unsafe := hidden(old, new):
            raise Stop(
                f"{unsafe[0]} lies here and ciclo renders it, but git does not have it: "
                f"`git add --force {shlex.quote(unsafe[0])}` and commit, or move it away"
            )
        kept = merge(data, old)
    now = yaml.safe_load(ANSWERS.read_text())
    conflicts = sorted(set(names("diff", "-z", "--name-only", "--diff-filter=U", "--relative")))
    changed = git("status", "--porcelain", "--untracked-files=all", "--", ".").splitlines()
    report = {
        "from": answers["_commit"],
        "to": now["_commit"],
        "choices": choices,
        "changed": len(changed),
        "conflicts": conflicts,
        "kept": kept,
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    if not changed:
        newest = f"{answers['_commit']} is the newest version"
        print(f"{' '.join(choices) + ' is so already' if choices else newest}; nothing changed")
        return 0
    step = " ".join(choices) or f"{report['from']} to {report['to']}"
    print(f"{step}: {len(changed)} files changed, yours are as they were")
    for name in conflicts:
        print(f"  conflict: {name}")
    for name in kept:
        print(f"  kept: {name}, which ciclo no longer has and you had edited")
    if conflicts or kept:
        print("Left to you: solve the conflicts, delete what you no longer need of what was kept,")
        print("then `make lock` and `make check`, and commit.")
    print(f"To go back to what was: {BACK}")
    return 1 if conflicts or kept else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore", CopierWarning)
    try:
        sys.exit(main(*filter(None, sys.argv[1:])))
    except Stop as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: stopped; nothing was changed")
