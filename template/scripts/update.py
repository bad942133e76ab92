"""Takes in what ciclo improved since, or changes answers. `make update` runs it with Copier.

usage: update.py [QUESTION=ANSWER]...

Your work is safe: it asks for a clean tree, so that one git command brings back what was there,
and it ends with 1 when something is left to you: a conflict that git shows, or a file that ciclo
dropped though you had edited it, which is kept.
"""

import json
import re
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
RENDERED = re.compile(r"^# As rendered: (\{.*\})$", re.MULTILINE)


class Stop(Exception):
    """What happened, and what to do, in a line."""


def git(*command: str) -> str:
    """What a git command says; raises CalledProcessError when it fails."""
    done = subprocess.run(["git", *command], check=True, capture_output=True, text=True)
    return done.stdout


def names(*command: str) -> list[str]:
    """The paths that a git command gives with -z."""
    return [name for name in git(*command, "-z").split("\0") if name]


def check_tree() -> None:
    """Raises Stop unless everything here is committed."""
    try:
        git("rev-parse", "--verify", "HEAD")
    except FileNotFoundError:
        raise Stop("git is not installed; an update needs it to keep your work safe") from None
    except subprocess.CalledProcessError:
        raise Stop(
            "there is no commit here; an update needs one to go back to: "
            "git init && git add --all && git commit --message Start"
        ) from None
    if dirty := git("status", "--porcelain", "--", ".").splitlines():
        raise Stop(
            f"{len(dirty)} files are not committed ({dirty[0].strip()}); commit them, or put them "
            f"away with `git stash --include-untracked`; after an update that was stopped: {BACK}"
        )


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
    except yaml.YAMLError as error:
        raise Stop(f"{ANSWERS} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(answers, dict) or not {"_src_path", "_commit"} <= answers.keys():
        raise Stop(
            f"{ANSWERS} does not say _src_path and _commit, the template and its version; check it "
            "out from an earlier commit, or copy the template from a git repository"
        )
    if found := RENDERED.search(text):
        was = json.loads(found[1])
        for name in sorted(was.keys() | answers.keys()):
            if not name.startswith("_") and was.get(name) != answers.get(name):
                raise Stop(
                    f"{name} was changed by hand in {ANSWERS}, from {was.get(name)!r} to "
                    f"{answers.get(name)!r}, which changes no file; put it back, commit, and "
                    f"run: make update CHOICE='{name}={answers.get(name)}'"
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


def update(answers: dict[str, Any], data: dict[str, str]) -> None:
    """Lets Copier merge; when it cannot, the tree is as before, and Stop says why."""
    current = {"vcs_ref": copier.VcsRef.CURRENT} if data else {}
    try:
        copier.run_update(".", data=data, defaults=True, overwrite=True, quiet=True, **current)
    except BaseException as error:
        git(*RESTORE)
        git(*CLEAN)
        if not isinstance(error, CopierError | ProcessExecutionError | ValueError | OSError):
            raise
        said = getattr(error, "stderr", "") or str(error)
        reason = " ".join(said.split())[-400:] or type(error).__name__
        raise Stop(
            f"nothing was changed: {reason}; the template is {answers['_src_path']} at "
            f"{answers['_commit']} (if it moved, write its new address as _src_path into "
            f"{ANSWERS}, commit, and run this again)"
        ) from None


def keep_edited(answers: dict[str, Any]) -> list[str]:
    """Brings back the files that went though they had been edited here; returns their names."""
    gone = names("diff", "--name-only", "--diff-filter=D", "--relative", "HEAD")
    if not gone:
        return []
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        data = {key: value for key, value in answers.items() if not key.startswith("_")}
        copier.run_copy(
            answers["_src_path"], folder, data=data, vcs_ref=answers["_commit"], defaults=True,
            overwrite=True, quiet=True,
        )  # fmt: skip
        for name in gone:
            before = subprocess.run(
                ["git", "show", f"HEAD:./{name}"], check=True, capture_output=True
            ).stdout
            rendered = Path(folder, name)
            if not rendered.is_file() or rendered.read_bytes() != before:
                git("checkout", "--quiet", "HEAD", "--", name)
                kept.append(name)
    return kept


def main(*choices: str) -> int:
    """Updates, says what happened, and returns 1 when something is left to do by hand."""
    check_tree()
    answers = read_answers()
    data = chosen(choices, answers)
    update(answers, data)
    kept = keep_edited(answers)
    now = yaml.safe_load(ANSWERS.read_text())
    conflicts = sorted(set(names("diff", "--name-only", "--diff-filter=U", "--relative")))
    changed = git("status", "--porcelain", "--", ".").splitlines()
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
        print(f"{answers['_commit']} is the newest version; nothing changed")
        return 0
    step = " ".join(choices) or f"{report['from']} to {report['to']}"
    print(f"{step}: {len(changed)} files changed, yours are as they were")
    for name in conflicts:
        print(f"  conflict: {name}")
    for name in kept:
        print(f"  kept: {name}, which ciclo no longer has and you had edited")
    if conflicts or kept:
        print("Left to you: solve the conflicts, delete what you no longer need of what was kept,")
        print("then `make check`, and commit. See docs/update.md of ciclo.")
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
