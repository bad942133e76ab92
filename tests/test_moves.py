"""Law 5 where files move: an edit is in force in the file's new place, or git shows a conflict."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import (
    BACK,
    PAGE,
    ROOT,
    commit,
    copy,
    edit,
    files,
    git,
    is_yours,
    make_update,
    script,
    snapshot,
    update,
)
from releases import RELEASES, SUPPORTED, history

TABLE = yaml.safe_load((ROOT / "template/scripts/moves.yml").read_text())
SOURCE, PACKAGE = Path("template/src/{{ package }}"), Path("src/flight_delays")
LINES = "".join(f"{name} = {n}\n\n\n" for n, name in enumerate("ABCDEF"))
MOVES = """
moved:
  src/{package}/one.py: src/{package}/phase/first.py
  src/{package}/two.py: src/{package}/phase/joined.py
  src/{package}/three.py: src/{package}/phase/joined.py
  a.cfg: b.cfg
gone:
  src/{package}/four.py: its rule is a setting now
"""


@pytest.fixture(scope="module")
def made(repository, tmp_path_factory) -> Path:
    """Releases v1.0.0 and v1.1.0, which moves a file, joins two, drops one, and changes all."""
    to = snapshot(tmp_path_factory.mktemp("moves") / "releases")
    source = to / SOURCE
    for name in ("one", "two", "three", "four"):
        (source / f"{name}.py").write_text(f"# {name}\n\n{LINES.replace(' =', f'_{name} =')}")
    for ci, name in {"none": "b.cfg", "github": "a.cfg"}.items():
        (to / "template" / f"{{% if ci == '{ci}' %}}.{{% endif %}}" / name).write_text(LINES)
    (to / "template/scripts/moves.yml").write_text("moved: {a.cfg: b.cfg}\n")
    commit(to, "v1.0.0")

    (source / "phase").mkdir()
    texts = {name: (source / f"{name}.py").read_text() for name in ("one", "two", "three")}
    texts = {name: text.replace("\nA_", "\nNEWER_") for name, text in texts.items()}
    (source / "phase/first.py").write_text(texts["one"])
    (source / "phase/joined.py").write_text(texts["two"] + texts["three"])
    for name in ("one", "two", "three", "four"):
        (source / f"{name}.py").unlink()
    (to / "template/scripts/moves.yml").write_text(MOVES)
    commit(to, "v1.1.0")
    return to


@pytest.fixture
def project(made, tmp_path) -> Path:
    """A committed project of v1.0.0."""
    to = copy(made, tmp_path / "project", "v1.0.0")
    commit(to)
    return to


def change(project: Path, name: str, old: str, new: str) -> None:
    edit(project / PACKAGE / f"{name}.py", old, new)


def status(project: Path) -> dict[str, str]:
    """What git shows of every file that is not as committed."""
    command = ("status", "--porcelain", "--untracked-files=all", "--no-renames")
    lines = git(project, *command).splitlines()
    return {line[3:]: line[:2].strip() for line in lines}


def go_back(project: Path) -> None:
    """The one command, after which all is as it was."""
    subprocess.run(BACK, shell=True, cwd=project, check=True, capture_output=True)
    assert status(project) == {}


def test_what_nobody_edited_is_as_in_a_fresh_copy(made, project, tmp_path):
    report = make_update(project)
    assert (report["moved"], report["conflicts"], report["kept"]) == ({}, [], [])
    after = files(project)
    after.pop("reports/update.json")
    assert after == files(copy(made, tmp_path / "fresh"))


def test_an_edit_follows_its_file(project):
    change(project, "one", "D_one = 3", "D_one = 'mine'")
    commit(project)
    report = make_update(project)
    was, to = f"{PACKAGE}/one.py", f"{PACKAGE}/phase/first.py"
    assert (report["moved"], report["conflicts"], report["kept"]) == ({was: to}, [], [])
    text = (project / to).read_text()
    assert "D_one = 'mine'" in text
    assert "NEWER_one = 0" in text
    assert (status(project)[was], status(project)[to]) == ("D", "??")


def test_edits_that_clash_are_a_conflict_in_the_new_place(project):
    change(project, "one", "A_one = 0", "A_one = 'mine'")
    commit(project)
    before = files(project)
    report = make_update(project)
    was, to = f"{PACKAGE}/one.py", f"{PACKAGE}/phase/first.py"
    assert (report["conflicts"], report["kept"]) == ([to], [])
    assert (status(project)[was], status(project)[to]) == ("D", "UU")
    shown = git(project, "diff", "--", to)
    assert "A_one = 'mine'" in shown
    assert "NEWER_one = 0" in shown
    sides = [git(project, "show", f":{stage}:{to}") for stage in (1, 2, 3)]
    assert ["A_one = 0" in side for side in sides] == [True, False, False]
    assert ["mine" in side for side in sides] == [False, True, False]
    go_back(project)
    after = files(project)
    after.pop("reports/update.json")
    assert after == before


@pytest.mark.parametrize("clash", [False, True])
def test_edits_of_files_that_are_one_now_are_merged_there(clash, project):
    change(project, "two", "C_two = 2", "C_two = 'mine'")
    change(project, "three", *(("A_three = 0", "A_three = 'my'") if clash else ("F_", "MY_F_")))
    commit(project)
    report = make_update(project)
    to = f"{PACKAGE}/phase/joined.py"
    assert report["moved"] == {f"{PACKAGE}/two.py": to, f"{PACKAGE}/three.py": to}
    assert report["conflicts"] == ([to] if clash else [])
    text = (project / to).read_text()
    assert "C_two = 'mine'" in text
    assert ("A_three = 'my'" if clash else "MY_F_three = 5") in text
    assert ("<<<<<<< before updating" in text) == clash


def test_what_you_deleted_stays_deleted(project):
    for name in ("one", "two"):
        (project / PACKAGE / f"{name}.py").unlink()
    commit(project)
    report = make_update(project)
    assert (report["moved"], report["conflicts"], report["kept"]) == ({}, [], [])
    assert not (project / PACKAGE / "phase/first.py").exists()
    assert (project / PACKAGE / "phase/joined.py").exists(), "three.py is in it, too"


def test_a_mode_follows_its_file(project):
    (project / PACKAGE / "one.py").chmod(0o755)
    change(project, "two", "C_two = 2", "C_two = 'mine'")
    commit(project)
    make_update(project)
    modes = [
        (project / PACKAGE / f"phase/{n}.py").stat().st_mode & 0o111 for n in ("first", "joined")
    ]
    assert modes == [0o111, 0]


def test_line_ends_are_no_edit_and_no_conflict(project):
    (project / ".gitattributes").unlink()
    commit(project)
    change(project, "one", "D_one = 3", "D_one = 'mine'")
    for name in ("one", "two", "four"):
        path = project / PACKAGE / f"{name}.py"
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    commit(project)
    assert git(project, "ls-files", "--eol", f"{PACKAGE}/one.py").startswith("i/crlf")
    report = make_update(project)
    to = f"{PACKAGE}/phase/first.py"
    assert (report["moved"], report["conflicts"], report["kept"]) == (
        {f"{PACKAGE}/one.py": to},
        [],
        [],
    )
    text = (project / to).read_bytes()
    assert b"D_one = 'mine'" in text
    assert b"\r" not in text


def test_in_a_folder_of_a_larger_repository(made, tmp_path):
    whole = tmp_path / "whole"
    project = copy(made, whole / "models/project", "v1.0.0")
    change(project, "one", "A_one = 0", "A_one = 'mine'")
    change(project, "two", "C_two = 2", "C_two = 'mine'")
    change(project, "four", "C_four = 2", "C_four = 'mine'")
    commit(whole)
    report = make_update(project)
    first, joined, four = (f"{PACKAGE}/{n}.py" for n in ("phase/first", "phase/joined", "four"))
    assert (report["conflicts"], report["kept"]) == ([first], [four])
    shown = status(whole)
    assert [shown[f"models/project/{path}"] for path in (first, joined, four)] == ["UU", "??", "UD"]
    assert "C_two = 'mine'" in (project / joined).read_text()
    go_back(project)


@pytest.mark.parametrize("what", ["a file of yours", "bytes", "a link"])
def test_what_cannot_be_merged_is_kept_as_a_conflict(what, project):
    """Where something else lies in the new place, or git cannot merge what became of the file."""
    was, to = project / PACKAGE / "one.py", project / PACKAGE / "phase/first.py"
    if what == "bytes":
        was.write_bytes(b"\0mine")
    elif what == "a link":
        was.unlink()
        was.symlink_to("two.py")
    else:
        change(project, "one", "D_one = 3", "D_one = 'mine'")
        to.parent.mkdir()
        to.write_text("MINE = True\n")
    commit(project)
    mine = git(project, "show", f"HEAD:{PACKAGE}/one.py")
    report = make_update(project)
    assert report["kept"] == [f"{PACKAGE}/one.py"]
    assert status(project)[f"{PACKAGE}/one.py"] == "UD"
    assert git(project, "show", f":2:{PACKAGE}/one.py") == mine
    assert was.is_symlink() == (what == "a link")
    assert ("MINE = True" in to.read_text()) == (what == "a file of yours")
    go_back(project)


def test_an_edited_file_that_is_gone_for_good_is_kept_as_a_conflict(project, capsys):
    change(project, "four", "C_four = 2", "C_four = 'mine'")
    commit(project)
    report = make_update(project)
    assert report["kept"] == [f"{PACKAGE}/four.py"]
    assert status(project)[f"{PACKAGE}/four.py"] == "UD"
    assert "which you had edited; its rule is a setting now" in capsys.readouterr().out


def test_a_switch_moves_what_the_answer_moves_and_no_more(project):
    """v1.0.0 has a file in one place or the other by the answer; v1.1.0's moves are not its."""
    change(project, "one", "D_one = 3", "D_one = 'mine'")
    edit(project / "a.cfg", "D = 3", "D = 'mine'")
    commit(project)
    report = make_update(project, "ci=none")
    assert report["moved"] == {"a.cfg": "b.cfg"}
    assert "D = 'mine'" in (project / "b.cfg").read_text()
    assert "D_one = 'mine'" in (project / PACKAGE / "one.py").read_text()


# A project runs its own script, an older one.


@pytest.mark.parametrize("edited", [False, True])
def test_the_script_of_the_newer_version_updates(edited, made, tmp_path, monkeypatch, capsys):
    """Unless the project's own was edited; that one still finds the newer version's moves."""
    releases = shutil.copytree(made, tmp_path / "releases")
    edit(releases / "template/scripts/update.py", " files changed, yours", " are new, yours")
    commit(releases, "v1.2.0")
    project = copy(releases, tmp_path / "project", "v1.0.0")
    change(project, "one", "D_one = 3", "D_one = 'mine'")
    if edited:
        edit(project / "scripts/update.py", "To go back to what was", "Back")
    commit(project)
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["update.py"])
    module = script("update", project / "scripts")
    if edited:
        assert module.main() == 0
    else:
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert ended.value.code == 0
    said = capsys.readouterr().out
    assert (" are new, yours are as they were" in said) == (not edited)
    assert said.count("To go back") == (not edited)
    assert f"with your edit, to {PACKAGE}/phase/first.py" in said


@pytest.mark.parametrize("told", [None, "elsewhere", "moved"])
def test_only_an_update_that_ended_and_knew_no_moves_is_finished(told, made, project):
    """Not one that was stopped halfway, nor a second time: the tree is not clean."""
    update(project)  # all but the report, which the script writes last
    report = {"from": "v1.0.0", "to": "v9" if told == "elsewhere" else "v1.1.0"}
    if told:
        (project / "reports").mkdir()
        found = report | ({"moved": {}} if told == "moved" else {})
        (project / "reports/update.json").write_text(json.dumps(found))
    before = files(project)
    with pytest.raises(Exception, match="files are not committed"):
        make_update(project)
    assert files(project) == before
    (project / "reports").mkdir(exist_ok=True)
    (project / "reports/update.json").write_text(json.dumps({"from": "v1.0.0", "to": "v1.1.0"}))
    assert make_update(project)["moved"] == {}


def mark(project: Path) -> dict[str, str]:
    """Edits every file that is not the user's, twice; returns what must be found of each."""
    marks = {}
    for number, path in enumerate(files(project)):
        if not is_yours(path) and path not in (".copier-answers.yml", "scripts/update.py"):
            marks[path] = f"# MINE {number}."
            lines = (project / path).read_text().splitlines(keepends=True)
            lines.insert(len(lines) // 2, f"{marks[path]}\n")
            (project / path).write_text("".join(lines) + f"{marks[path]}\n")
    return marks


def as_released(project: Path, tag: str) -> dict[str, Any]:
    """What `make update` of a release does before it locks and checks; returns its report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        if tag == "v0.0.1":
            script("update").copier.run_update(".", defaults=True, overwrite=True, quiet=True)
            return {}
        with suppress(SystemExit):  # of the newer version's script, if that is another
            script("update", project / "scripts").main()
        return dict(json.loads(Path("reports/update.json").read_text()))


OTHER = {"problem": "regression", "env_manager": "pip", "serving_format": "skops"}


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> Path:
    """All releases, with the working tree as the newest, v9.0.0."""
    return history(tmp_path_factory.mktemp("releases") / "ciclo")


@pytest.mark.parametrize(
    ("way", "answers"),
    [
        ("its own script", {}),
        ("its own script, committed", OTHER),
        ("the newer script", {}),
        ("the newer script", OTHER),
    ],
    ids=["own", "own-committed", "newer", "newer-other"],
)
@pytest.mark.parametrize("tag", SUPPORTED)
def test_no_edit_of_any_file_of_a_release_is_lost(tag, way, answers, releases, tmp_path):
    """With the script that the release has, and once more with the newer one that it brings; and
    as if the release had had that one."""
    project = copy(releases, tmp_path / "project", tag, **answers)
    marks = mark(project)
    commit(project)
    report = as_released(project, tag) if way != "the newer script" else {}
    knew_moves = "moved" in report
    if way == "its own script, committed" and not knew_moves:
        commit(project)
        (taken_back,) = re.findall("`git (reset --soft .*?)`", PAGE)
        git(project, *taken_back.split())
    if not knew_moves:
        report = make_update(project)
    assert (report["from"], report["to"]) == (tag, "v9.0.0")
    fresh, shown = files(copy(releases, tmp_path / "fresh", **answers)), status(project)
    assert {*report["conflicts"], *report["kept"]} == {
        path for path, state in shown.items() if state in ("UU", "UD", "AA")
    }
    for was, mine in marks.items():
        path = report["moved"].get(was, was)
        assert (project / path).read_text().count(mine) >= 2, f"{was}: lost its edit"
        assert path in fresh or shown[path] == "UD", f"{path}: nothing uses it, and git is silent"
    go_back(project)


def paths(names: list[str]) -> set[str]:
    """What files of template/ are called where they are rendered, but for what is the user's."""
    found = set()
    for name in names:
        plain = re.sub(r"{% if [^%]*%}\.{% endif %}/", "", name).removesuffix(".jinja")
        plain = plain.replace("{{ package }}", "{package}")
        found |= {plain} - ({plain} if is_yours(plain) or "{{" in plain else set())
    return found


def test_the_table_says_where_every_file_of_every_release_is(template):
    now = paths([p.relative_to(template / "template").as_posix()
                 for p in (template / "template").rglob("*") if p.is_file()])  # fmt: skip
    was = set()
    for made in RELEASES.values():
        listed = git(ROOT, "ls-tree", "-r", "-z", "--name-only", f"{made}:template")
        was |= paths(listed.split("\0")[:-1])
    moved, gone = TABLE["moved"], TABLE["gone"]
    assert was - now == {*moved, *gone}
    assert not moved.keys() & gone.keys()
    assert {*moved.values()} <= now
    assert all(isinstance(why, str) and why for why in gone.values())
    assert {"scripts/update.py", "scripts/moves.yml"} <= now, "older scripts look for them there"
