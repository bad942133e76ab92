"""Law 4: a project of any supported release can take in this one, and lives on."""

import ast
from pathlib import Path

import pytest
import yaml
from edits import TEN, marker
from harness import (
    ROOT,
    commit,
    copy,
    edit,
    files,
    git,
    is_yours,
    make_update,
    snapshot,
    update,
)
from releases import CASES, COVERING, SUPPORTED, history
from running_project import Project, turn
from variants import AXES

ANSWERS = ".copier-answers.yml"
PACKAGE = "src/flight_delays"
SOURCE = "template/src/{{ package }}"


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> Path:
    """A clone with the tags of all supported releases and the working tree as the newest."""
    return history(tmp_path_factory.mktemp("releases") / "ciclo")


def project_of(releases: Path, tag: str, to: Path, **answers: str) -> Path:
    """A committed project of an older release."""
    copy(releases, to, tag, **answers)
    commit(to)
    return to


def ours(folder: Path) -> dict[str, bytes]:
    left = (ANSWERS, "reports/update.json")
    return {p: c for p, c in files(folder).items() if not is_yours(p) and p not in left}


def named(value: str | dict[str, str]) -> str:
    return value if isinstance(value, str) else "-".join(value.values())


@pytest.mark.parametrize(
    ("tag", "answers"),
    [
        pytest.param(tag, answers, marks=[] if answers == COVERING[0] else [pytest.mark.heavy])
        for tag, answers in CASES
    ],
    ids=named,
)
def test_an_update_equals_a_fresh_copy_outside_what_is_yours(tag, answers, releases, tmp_path):
    project = project_of(releases, tag, tmp_path / "project", **answers)
    seeded = {path: content for path, content in files(project).items() if is_yours(path)}
    report = make_update(project)
    fresh = copy(releases, tmp_path / "fresh", **answers)
    assert (report["from"], report["to"]) == (tag, "v9.0.0")
    assert (report["conflicts"], report["kept"]) == ([], [])
    assert ours(project) == ours(fresh)
    after = files(project)
    assert {path: after.get(path) for path in seeded} == seeded


@pytest.mark.parametrize("tag", SUPPORTED)
def test_real_edits_live_through_it(tag, releases, tmp_path):
    """Features, model, metrics, data, settings, README, dependencies, load test and a workflow
    changed; nothing is lost and nothing conflicts."""
    project = project_of(releases, tag, tmp_path / "project")
    made = [e for e in TEN if e.apply(project)]
    assert len(made) == len(TEN)
    commit(project)
    before = files(project)
    report = make_update(project)
    assert (report["conflicts"], report["kept"]) == ([], [])
    after = files(project)
    for path, content in before.items():
        for e in made:
            if marker(e) in content:
                assert marker(e) in after[path], f"{e.name}: {path}"
        if is_yours(path):
            assert after[path] == content, path
    old, new = (copy(releases, tmp_path / ref, ref) for ref in (tag, "v9.0.0"))
    same = {p for p, c in ours(old).items() if ours(new).get(p) == c}
    changed = set(git(project, "diff", "--name-only", "HEAD").split())
    assert not changed & same, "a file was touched that did not change between the versions"


@pytest.mark.heavy(4)
@pytest.mark.parametrize(
    ("tag", "answers"),
    [
        pytest.param(tag, answers, marks=[] if answers == COVERING[0] else [pytest.mark.full])
        for tag, answers in CASES
    ],
    ids=named,
)
@pytest.mark.parametrize(
    "edited", [True, pytest.param(False, marks=pytest.mark.full)], ids=["edited", "unchanged"]
)
def test_a_project_lives_on_after_its_update(tag, edited, answers, disk):
    """With the old project/ in place: the project's own checks, and one turn of the cycle."""
    releases = history(disk / "ciclo", data=True)
    folder = project_of(releases, tag, disk / "project", **answers)
    if edited:
        for mine in TEN:  # but for a dependency that is none, and settings that are others
            if mine.path.endswith((".py", "README.md", "ci.yml")):
                assert mine.apply(folder)
        commit(folder)
    old = {path: content for path, content in files(folder).items() if is_yours(path)}
    made = Project(folder)
    made.run("make update")
    answers = yaml.safe_load((folder / ANSWERS).read_text())
    assert answers["_commit"] == "v9.0.0"
    assert {path: files(folder).get(path) for path in old} == old
    made.run("make check")
    made.run("make train")
    for command in ("promote ENV=staging", "load ENV=staging", "promote ENV=production"):
        made.run(f"make {command}")
    turn(made)


def names(tree: ast.Module) -> set[str]:
    """What a module defines at its top."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def interface() -> dict[str, set[str]]:
    """The names of interface.py, by the module of project/ that offers them."""
    tree = ast.parse((ROOT / SOURCE / "interface.py").read_text())
    return {
        node.name.removesuffix("Module").lower(): {
            f.name for f in node.body if isinstance(f, ast.FunctionDef)
        }
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


@pytest.mark.parametrize("problem", AXES["problem"])
@pytest.mark.parametrize("tag", SUPPORTED)
def test_each_release_seeded_what_the_interface_asks_for(tag, problem, releases, tmp_path):
    project = project_of(releases, tag, tmp_path / "project", problem=problem)
    for module, asked in interface().items():
        text = (project / PACKAGE / "project" / f"{module}.py").read_text()
        assert asked <= names(ast.parse(text)), module


@pytest.mark.parametrize("problem", AXES["problem"])
@pytest.mark.parametrize("tag", SUPPORTED)
def test_what_the_seeds_of_each_release_import_is_where_it_was(tag, problem, releases, tmp_path):
    project = project_of(releases, tag, tmp_path / "project", problem=problem)
    asked = set()
    for path in (project / PACKAGE / "project").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                asked |= {(node.module, name.name) for name in node.names}
    assert ("sources", "read") in asked
    for module, name in asked:
        assert name in names(ast.parse((ROOT / SOURCE / f"{module}.py").read_text())), module


def test_nothing_else_of_project_is_asked_for():
    """What our code takes from project/ is in the interface; a newer hook comes by getattr."""
    asked: set[tuple[str, str]] = set()
    for path in (ROOT / "template").rglob("*.py"):
        if "project" in path.parts or path.name == "interface.py":
            continue
        tree = ast.parse(path.read_text())
        modules = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("project"):
                for name in node.names:
                    if node.module == "project":
                        modules[name.asname or name.name] = name.name
                    else:
                        asked.add((node.module.split(".")[1], name.name))
        for node in ast.walk(tree):
            value = node.value if isinstance(node, ast.Attribute) else None
            if isinstance(value, ast.Name) and value.id in modules:
                asked.add((modules[value.id], node.attr))
    offered = {(module, name) for module, found in interface().items() for name in found}
    assert len(asked) > 8
    assert asked <= offered, asked - offered


@pytest.mark.parametrize("tag", SUPPORTED)
def test_no_question_and_no_choice_ever_goes(tag, releases):
    then = yaml.safe_load(git(releases, "show", f"{tag}:copier.yml"))
    now = yaml.safe_load((ROOT / "copier.yml").read_text())
    for name, question in then.items():
        if isinstance(question, dict) and "choices" in question and not name.startswith("_"):
            old, new = (
                list(c.values()) if isinstance(c, dict) else c
                for c in (question["choices"], now[name]["choices"])
            )
            assert [value for value in old if value not in new] == [], name


# A later version renames, removes, retires: each the way that docs/add-a-choice.md says.


@pytest.fixture
def pair(tmp_path):
    """A made-up release, a project of it, and how to make the next one."""
    template = snapshot(tmp_path / "template")

    def start(**answers: str) -> Path:
        commit(template, "v1.0.0")
        folder = copy(template, tmp_path / "project", **answers)
        commit(folder)
        return folder

    return template, start


@pytest.mark.heavy
def test_a_renamed_question_keeps_its_answer(pair):
    template, start = pair
    edit(template / "copier.yml", "# STACK", "colour: {type: str, default: red}\n\n# STACK")
    project = start(colour="blue")
    edit(
        template / "copier.yml",
        "colour: {type: str, default: red}",
        "hue: {type: str, default: \"{{ colour | default('red') }}\"}",
    )
    commit(template, "v2.0.0")
    make_update(project)
    answers = yaml.safe_load((project / ANSWERS).read_text())
    assert (answers["hue"], "colour" in answers) == ("blue", False)


@pytest.mark.heavy
@pytest.mark.parametrize("edited", [True, False])
def test_a_renamed_file_keeps_an_edit_of_the_old_one(pair, edited):
    template, start = pair
    project = start()
    if edited:
        with (project / "registry.mk").open("a") as file:
            file.write("# mine\n")
        commit(project)
    for old in template.glob("template/*/registry.mk"):
        old.rename(old.with_name("records.mk"))
    commit(template, "v2.0.0")
    report = make_update(project)
    assert report["kept"] == (["registry.mk"] if edited else [])
    assert (project / "registry.mk").exists() == edited
    assert (project / "records.mk").exists()


def test_a_file_of_yours_that_is_no_longer_rendered_stays(pair):
    template, start = pair
    project = start()
    (project / "settings.toml").write_text("# mine\n")
    commit(project)
    (template / "template" / "settings.toml").unlink()
    edit(template / "copier.yml", "_exclude:\n", "_exclude:\n  - /settings.toml\n")
    commit(template, "v2.0.0")
    report = make_update(project)
    assert report["kept"] == []
    assert (project / "settings.toml").read_text() == "# mine\n"


@pytest.mark.heavy
@pytest.mark.parametrize("through", ["make update", "copier"])
def test_a_retired_choice_stops_with_a_message(pair, through):
    template, start = pair
    project = start(ci="none")
    row = "{ci: {none: choose github}}"
    edit(template / "copier.yml", 'when: false, default: "{}"}', f'when: false, default: "{row}"}}')
    commit(template, "v2.0.0")
    before = files(project)
    with pytest.raises(Exception, match="ci=none is retired: choose github"):
        update(project) if through == "copier" else make_update(project)
    assert files(project) == before
    assert git(project, "status", "--porcelain") == ""
    make_update(project, "ci=github")
    commit(project)
    assert make_update(project)["to"] == "v2.0.0"
