"""Law 4: a project of any supported release can take in this one, and lives on."""

import ast
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from edits import TEN, Edit, marker
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
from releases import CASES, COVERING, RELEASES, SUPPORTED, history
from running_project import Project, examples, on_a_slice, turn
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


@pytest.mark.parametrize("tag", SUPPORTED)
def test_each_listed_release_is_in_the_history_as_that_version(tag, releases):
    made = RELEASES[tag]
    git(ROOT, "merge-base", "--is-ancestor", made, "HEAD")
    assert "template" in git(ROOT, "ls-tree", "--name-only", made).split()
    if tag == "v0.0.1":  # the first commit that had tests, before there was a changelog
        assert "CHANGELOG.md" not in git(ROOT, "ls-tree", "--name-only", made).split()
    else:
        newest = git(ROOT, "show", f"{made}:CHANGELOG.md").split("\n## ")[1]
        assert newest.startswith(f"{tag[1:]} (")


def test_each_release_in_the_history_is_listed(releases):
    """But the one that is made at this moment, which the next commit lists."""
    head = git(ROOT, "rev-parse", "HEAD").strip()
    log = git(ROOT, "log", "--format=%H Release=%s")
    found = dict(re.findall(r"^(\w+) Release=Release (\d+\.\d+\.\d+)$", log, re.MULTILINE))
    assert found
    found = {f"v{version}": made for made, version in found.items()}
    for tag in git(ROOT, "tag", "--list", "v*").split():
        found[tag] = git(ROOT, "rev-list", "--max-count=1", tag).strip()
    assert {tag: made for tag, made in found.items() if made != head}.items() <= RELEASES.items()


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


MOVED = Edit(
    "a module that moved",
    "src/*/gates.py",
    "\n    MINE_GATE = 1\n",
    after="One demand, and whether it is met.",
)
PROMOTE = ("promote ENV=staging", "load ENV=staging", "promote ENV=production")
ROWS = 10_000


def put_to_use(made: Project) -> list[dict[str, Any]]:
    """A version in every environment, and a journal of production's; returns its predictions."""
    on_a_slice(made)
    made.run("make train")
    for command in PROMOTE:
        made.run(f"make {command}")
    seen: list[dict[str, Any]] = []
    with made.running("make serve ENV=production"):
        rows = [{"features": row} for row in examples(made)]
        while len(seen) < ROWS:
            batch = {"rows": rows * (1000 // len(rows))}
            seen += made.ask("POST", "/predictions/batch", batch)["predictions"]
    return seen


def goes_on(made: Project, seen: list[dict[str, Any]]) -> None:
    """What the old version registered and served is served, known and judged by the new one."""
    assert len(re.findall(r"promote (test|staging|production)", made.run("make status"))) == 3
    with made.running("make serve ENV=production"):
        served = made.ask("GET", "/version")
        assert (served["version"], served["format"]) == ("1", 1)
        first, label = f"/predictions/{seen[0]['id']}", seen[0]["prediction"]
        made.ask("PUT", f"{first}/outcome", {"outcome": label})
        kept = made.ask("GET", first)
        assert (kept["version"], kept["outcome"]) == ("1", label)
        assert {name: kept[name] for name in seen[0] if name in kept} == seen[0]
    with closing(sqlite3.connect(made.folder / "var/journal.db")) as journal:
        assert journal.execute("SELECT count(*) FROM predictions").fetchone()[0] >= len(seen)


@pytest.mark.full
@pytest.mark.heavy(4)
@pytest.mark.parametrize(("tag", "answers"), CASES, ids=named)
@pytest.mark.parametrize("edited", [True, False], ids=["edited", "unchanged"])
def test_a_project_lives_on_after_its_update(tag, edited, answers, disk):
    """With the old project/ in place: the project's own checks, and one turn of the cycle. One that
    was in use and is edited, in a module that moved too, goes on with all it had."""
    releases = history(disk / "ciclo", data=True)
    folder = project_of(releases, tag, disk / "project", **answers)
    made, in_use = Project(folder, PYTEST_ADDOPTS="-m 'not slow'"), edited and tag != "v0.0.1"
    seen = put_to_use(made) if in_use else []
    if edited:
        for mine in TEN:  # but for a dependency that is none, and settings that are others
            if mine.path.endswith((".py", "README.md", "ci.yml")):
                assert mine.apply(folder)
        assert MOVED.apply(folder) == in_use
    commit(folder)
    old = {path: content for path, content in files(folder).items() if is_yours(path)}
    said = made.run("make update", fails=in_use)  # the release's own, which knows no moves
    if in_use or tag == "v0.0.1":
        said = made.run("make update")
    assert " passed" in said, "the project's checks ran"
    answers = yaml.safe_load((folder / ANSWERS).read_text())
    assert answers["_commit"] == "v9.0.0"
    after = files(folder)
    assert {path: after.get(path) for path in old} == old
    assert not in_use or marker(MOVED) in after[f"{PACKAGE}/registry/gates.py"]
    if in_use:
        goes_on(made, seen)
    made.run("make train")
    for command in () if in_use else PROMOTE:
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


def imported(path: Path) -> set[tuple[str, str]]:
    """What a seed asks of the package: modules, as their path below it, and names in them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(name.name, "") for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            place = f"{PACKAGE}/project".split("/")[1 : 4 - node.level] if node.level else []
            module = ".".join([*place, *([node.module] if node.module else [])])
            found |= {(module, name.name) for name in node.names}
    package = PACKAGE.removeprefix("src/")
    return {(m.partition(".")[2], name) for m, name in found if m.split(".")[0] == package}


def resolves(package: Path, module: str, name: str) -> bool:
    """Whether there is such a module in a package, and the name in it, or as a module below it."""
    place = package.joinpath(*module.split(".")) if module else package
    if not name or any((place / n).exists() for n in (f"{name}.py", f"{name}/__init__.py")):
        return place.is_dir() or place.with_suffix(".py").exists()
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    tree = ast.parse(file.read_text() if file.exists() else "")
    handed_on = {
        n.asname or n.name for i in tree.body if isinstance(i, ast.ImportFrom) for n in i.names
    }
    return name in names(tree) | handed_on


@pytest.mark.parametrize("tag", SUPPORTED)
def test_what_the_seeds_of_each_release_import_is_there_after_an_update(tag, releases, tmp_path):
    seeds, asked = set(), set()
    for problem in AXES["problem"]:
        project = project_of(releases, tag, tmp_path / problem, problem=problem)
        make_update(project)
        for path in [*project.glob("src/*/project/*.py"), *project.glob("tests/project/*.py")]:
            seeds.add(path.relative_to(project).as_posix())
            for module, name in imported(path):
                asked.add((module, name))
                assert resolves(project / PACKAGE, module, name), f"{path}: {module} {name}"
    assert {("sources", "read"), ("contract", "derive"), ("project.features", "Features")} <= asked
    listed = git(ROOT, "ls-tree", "-r", "--name-only", RELEASES[tag], "template").splitlines()
    listed = [re.sub(r"{% if [^%]*%}\.{% endif %}/", "", path) for path in listed]
    listed = [path.replace("{{ package }}", "flight_delays") for path in listed]
    every = {re.sub(r"^template/|\.jinja$", "", path) for path in listed if "/project/" in path}
    assert seeds == every, "an overlay was not looked at"


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
