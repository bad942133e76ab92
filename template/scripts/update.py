"""Takes in what ciclo improved since, or changes answers. `make update` runs it with Copier.

usage: update.py [QUESTION=ANSWER]...

Your work is safe: it asks for a clean tree in which git sees every file, so that one git command
brings back what was there. An edit of a file that moved goes where moves.yml says that it is now.
It ends with 1 when something is left to you, all of which git shows as conflicts: lines that both
changed, or a file that ciclo dropped though you had edited it, which is kept.

The script of the version that is updated to does it, unless this one was edited. Where an older
version's script, or Copier alone, has updated, it finishes that before it is committed.
"""

import json
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import copier
import yaml
from copier.errors import CopierError, CopierWarning
from plumbum import ProcessExecutionError

ANSWERS = Path(".copier-answers.yml")
REPORT = Path("reports/update.json")
SCRIPT = Path("scripts/update.py")
MOVES = Path("scripts/moves.yml")
WAY_BACK = ("reset --quiet -- .", "restore .", "clean -d --force .")
BACK = " && ".join(f"git {command}" for command in WAY_BACK)
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


def plain(path: Path) -> bytes | None:
    """What a file holds, whatever its line ends; None where there is none."""
    return path.read_bytes().replace(b"\r\n", b"\n") if path.is_file() else None


@dataclass
class Yours:
    """A file as it was rendered, and as it is here or was before Copier deleted it."""

    path: str
    base: bytes | None
    base_mode: str
    text: bytes
    mode: str

    @classmethod
    def read(cls, path: str, mode: str, rendered: Path) -> "Yours":
        """Reads both, line ends aside."""
        text = plain(Path(path))
        if text is None:
            show = ["git", "show", f"HEAD:./{path}"]
            text = subprocess.run(show, check=True, capture_output=True).stdout
            text = text.replace(b"\r\n", b"\n")
        runs = rendered.is_file() and rendered.stat().st_mode & 0o100
        return cls(path, plain(rendered), "100755" if runs else "100644", text, mode)

    @property
    def edited(self) -> bool:
        """Whether it is not as it was rendered."""
        return (self.text, self.mode) != (self.base, self.base_mode)

    def merge(self, theirs: bytes) -> tuple[bytes, int]:
        """Your edit made in another text, and in how many places the two conflict; above 127 git
        cannot merge what they are."""
        sides = {"before updating": self.text, "last update": self.base, "after updating": theirs}
        command = ["git", "merge-file", "--stdout"]
        with tempfile.TemporaryDirectory() as folder:
            for name, text in sides.items():
                Path(folder, name).write_bytes(text or b"")
                command += ["-L", name]
            done = subprocess.run([*command, *sides], check=False, cwd=folder, capture_output=True)
        return done.stdout, done.returncode

    def unmerge(self, place: str, theirs: bytes | None) -> None:
        """Lets git show a conflict at a path: as rendered before, yours, and as rendered now."""
        place = git("rev-parse", "--show-prefix").rstrip("\n") + place
        lines = [f"0 {'0' * 40}\t{place}\0"]
        for stage, text in enumerate((self.base, self.text, theirs), start=1):
            if text is not None:
                store = ["git", "hash-object", "-w", "--stdin"]
                name = subprocess.run(store, input=text, check=True, capture_output=True).stdout
                lines.append(f"{self.mode} {name.decode().strip()} {stage}\t{place}\0")
        command = ["git", "update-index", "-z", "--index-info"]
        subprocess.run(command, input="".join(lines).encode(), check=True)

    def keep(self) -> None:
        """Brings it back, as git does where one side edits a file and the other deletes it."""
        if not Path(self.path).is_file():
            git("checkout", "--quiet", "HEAD", "--", self.path)
        self.unmerge(self.path, None)


def carry(to: Path, edits: list[Yours], rendered: Path) -> bool:
    """Merges edits into the file where theirs is now; False where something else lies there."""
    theirs = text = plain(rendered) or b""
    conflict = None
    for edit in edits:
        text, count = edit.merge(text)
        if count > 127 or not edit.mode.startswith("100"):
            return False
        conflict = conflict or (edit if count else None)
    if plain(to) not in (theirs, text):
        return False
    to.write_bytes(text)
    for edit in edits:
        if edit.mode != edit.base_mode:
            to.chmod(int(edit.mode, 8) & 0o777)
    if conflict:
        conflict.unmerge(to.as_posix(), theirs)
    return True


def settle(old: Path, new: Path, package: str) -> tuple[dict[str, str], dict[str, str]]:
    """Carries edits of files that moved to where these are now, and brings back edited files that
    went; returns the new place of each that moved, and why each other one is kept."""
    text = (plain(new / MOVES) or b"{}").decode().replace("{package}", package)
    table = {"moved": {}, "gone": {}} | yaml.safe_load(text)
    entries = (entry.split("\t") for entry in names("ls-tree", "-r", "-z", "HEAD"))
    modes = {path: entry[:6] for entry, path in entries}
    moved, kept = {}, {}
    places: dict[str, list[str]] = {}
    for was, to in table["moved"].items():
        if (old / was).is_file() and not (new / was).exists() and (new / to).is_file():
            places.setdefault(to, []).append(was)
    for to, sources in places.items():
        here = [Yours.read(was, modes[was], old / was) for was in sources if was in modes]
        edits = [file for file in here if file.edited]
        if not here and to not in modes and plain(Path(to)) == plain(new / to):
            Path(to).unlink(missing_ok=True)  # what you deleted stays deleted
        if edits and (to in modes or not carry(Path(to), edits, new / to)):
            kept |= {file.path: f"it moved to {to}, where something else lies" for file in edits}
        else:
            moved |= {file.path: to for file in edits}
        for file in here:
            if file.path in kept:
                file.keep()
            else:
                Path(file.path).unlink(missing_ok=True)
    went = {*names("diff", "-z", "--name-only", "--diff-filter=D", "--relative", "HEAD")}
    went |= {path for path in table["gone"] if path in modes and (old / path).is_file()}
    for path in sorted(went.difference(*places.values())):
        file = Yours.read(path, modes[path], old / path)
        if file.edited and not (new / path).exists():
            file.keep()
            kept[path] = table["gone"].get(path, "ciclo no longer has it")
    return moved, kept


def merge(data: dict[str, str], old: Path, new: Path, package: str) -> Any:
    """Lets Copier merge, and settles what moved or went. When it cannot, the tree is as before."""
    current = {"vcs_ref": copier.VcsRef.CURRENT} if data else {}
    try:
        copier.run_update(".", data=data, defaults=True, overwrite=True, quiet=True, **current)
        return settle(old, new, package)
    except BaseException as error:
        known = CopierError | ProcessExecutionError | ValueError | OSError
        try:
            for command in WAY_BACK:
                git(*command.split())
        except subprocess.CalledProcessError as stuck:
            raise Stop(f"{' '.join(stuck.stderr.split())} When that is done: {BACK}") from None
        if not isinstance(error, known | subprocess.CalledProcessError):
            raise
        raise Stop(f"nothing was changed: {' '.join(str(error).split())[-400:]}") from None


def unfinished() -> dict[str, Any] | None:
    """The answers before an update by a script that knew no moves, if that is not committed yet:
    0.1.0's leaves a report that tells of none, and in 0.0.1 Copier alone updated."""
    try:
        then = yaml.safe_load(git("show", f"HEAD:./{ANSWERS}"))
        now = yaml.safe_load(ANSWERS.read_text())
        step = {"from": then["_commit"], "to": now["_commit"]}
        alone = not names("ls-tree", "-z", "HEAD", str(SCRIPT))
        reported = json.loads(REPORT.read_text()) if REPORT.exists() else step if alone else {}
    except Exception:  # check_tree and read_answers say what is wrong
        return None
    done = step["from"] == step["to"] or "moved" in reported
    return then if step.items() <= reported.items() and not done else None


def main(*choices: str) -> int:
    """Updates, says what happened, and returns 1 when something is left to do by hand."""
    before = None if choices else unfinished()
    if not before:
        check_tree()
        REPORT.unlink(missing_ok=True)
    answers = read_answers()
    data = chosen(choices, answers)
    with tempfile.TemporaryDirectory() as folder:
        was = before or answers
        old = render(was, was["_commit"], Path(folder, "old"))
        ref = answers["_commit"] if before or data else None
        new = render(answers | data, ref, Path(folder, "new"))
        if before:
            moved, kept = settle(old, new, answers["package"])
        else:
            if plain(Path(__file__)) == plain(old / SCRIPT) != plain(new / SCRIPT):
                runpy.run_path(str(new / SCRIPT), run_name="__main__")  # it ends this process
            if unsafe := hidden(old, new):
                raise Stop(
                    f"{unsafe[0]} lies here and ciclo renders it, but git does not have it: "
                    f"`git add --force {shlex.quote(unsafe[0])}` and commit, or move it away"
                )
            moved, kept = merge(data, old, new, answers["package"])
    now = yaml.safe_load(ANSWERS.read_text())
    unmerged = names("diff", "-z", "--name-only", "--diff-filter=U", "--relative")
    conflicts = sorted({*unmerged} - kept.keys())
    changed = git("status", "--porcelain", "--untracked-files=all", "--", ".").splitlines()
    report = {
        "from": was["_commit"],
        "to": now["_commit"],
        "choices": choices,
        "changed": len(changed),
        "moved": moved,
        "conflicts": conflicts,
        "kept": sorted(kept),
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    if not changed:
        newest = f"{was['_commit']} is the newest version"
        print(f"{' '.join(choices) + ' is so already' if choices else newest}; nothing changed")
        return 0
    step = " ".join(choices) or f"{report['from']} to {report['to']}"
    print(f"{step}: {len(changed)} files changed, yours are as they were")
    for name, to in moved.items():
        print(f"  moved: {name}, with your edit, to {to}")
    for name in conflicts:
        print(f"  conflict: {name}")
    for name, why in kept.items():
        print(f"  kept: {name}, which you had edited; {why}")
    if conflicts or kept:
        print("Left to you: solve the conflicts, move your lines from what was kept and delete it,")
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
