"""Law 9 here: the tables are true, the links lead somewhere, the commands run."""

import json
import re
import shutil
import subprocess
import tomllib
from types import SimpleNamespace

import pytest
import yaml
from harness import ROOT, commit, copy, edit, owners, snapshot
from running_project import FENCE, Project, blocks, project, walk
from variants import AXES, QUESTIONS, choices

PAGES = [
    ROOT / "README.md",
    ROOT / "AGENTS.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *ROOT.glob("docs/**/*.md"),
]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of a page."""
    text = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2] or (ROOT / page).read_text()
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert table, f"{page}: no table under {heading}"
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_choices_is_copier_yml():
    asked = [n for n, q in QUESTIONS.items() if q.get("choices") and q.get("when") is not False]
    table = {
        row[0].strip("`"): set(re.findall(r"`([^`]+)`", row[1]))
        for row in rows("README.md", "Choices")
    }
    assert table == {name: {str(value) for value in choices(name)} for name in asked}
    explained = (ROOT / "docs" / "choices.md").read_text()
    assert all(f"**{name}**" in explained for name in table)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_each_threat_has_its_test():
    page = (ROOT / "docs" / "threats.md").read_text()
    code = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 30
    assert not [name for name in named if f"def {name}(" not in code]


def test_each_practice_has_its_file_and_its_command(template, tmp_path):
    folder = copy(template, tmp_path / "it")
    verbs = subprocess.run(["make", "help"], cwd=folder, capture_output=True, text=True, check=True)
    known = set(re.findall(r"^  make (\w+)", verbs.stdout, re.MULTILINE))
    package = next(folder.glob("src/*/settings.py")).parent
    for practice, files, commands in rows("docs/life-cycle.md", "The life cycle"):
        for name in re.findall(r"`([^` ]+)`", files):
            if "/" in name or "." in name:
                places = (folder / name, package / name, folder / ".github" / "workflows" / name)
                assert any(place.exists() for place in places), f"{practice}: {name}"
        for command in re.findall(r"`make (\w+)", commands):
            assert command in known, f"{practice}: make {command}"


def test_the_comparison_says_nothing_of_what_is_not_there():
    offered = {str(value) for values in AXES.values() for value in values}
    for missing in ("wandb", "conda", "gitlab", "kubernetes", "distroless"):
        assert missing in offered or missing not in (ROOT / "README.md").read_text().lower()


def test_every_command_of_the_front_page_is_run_somewhere():
    """Its commands are those of the pages that the tests walk, or the repository's own verbs."""
    pages = [(ROOT / "docs" / name).read_text() for name in ("start.md", "update.md")]
    run = {line for page in pages for line in "".join(blocks(page, "sh")).splitlines()}
    own = {"make demo", "make lint", "make test", "make test-fast"}
    for page in ("README.md", "CONTRIBUTING.md", "AGENTS.md"):
        for line in "".join(blocks((ROOT / page).read_text(), "sh")).splitlines():
            assert line in run | own, f"{page}: {line}"


def named(text: str) -> tuple[set[str], set[str]]:
    """The verbs and the paths that a page names in backticks, outside of its blocks."""
    words = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    verbs = {found[1] for word in words if (found := re.match(r"make ([a-z-]+)", word))}
    path = re.compile(r"[\w.*-]+(/[\w.*-]*)+|[\w.-]*\.(?:md|py|mk|toml|txt|yml)")
    return verbs, {word for word in words if path.fullmatch(word)}


def test_what_a_project_tells_agents_is_there(renders):
    """Its commands are run in test_run.py."""
    for folder in renders.values():
        page = (folder / "AGENTS.md").read_text()
        verbs, paths = named(page)
        told = subprocess.run(["make", "help"], cwd=folder, capture_output=True, text=True)
        assert verbs > {"train", "promote"}
        assert not verbs - set(re.findall(r"^  make ([a-z-]+)", told.stdout, re.MULTILINE))
        assert paths > {"src/*/project/", "cycle.py"}
        for path in paths:  # what is made or added later has its row in docs/yours.md
            is_there = [*folder.glob(path), *folder.glob(f"src/*/{path}")]
            assert is_there or owners(f"{path}x" if path.endswith("/") else path), path


def test_what_the_template_tells_agents_is_there():
    verbs, paths = named((ROOT / "AGENTS.md").read_text())
    own = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert verbs > {"lint"}
    assert not verbs - own - {"check"}, "check is a project's"
    assert paths > {"copier.yml", "tests/engine/"}
    for path in paths:
        assert [*ROOT.glob(path), *ROOT.glob(f"template/**/{path}")], path


def test_each_decision_is_in_the_index():
    home = ROOT / "docs" / "decisions"
    table = re.findall(
        r"^\| (\d+) \| \[([^]]+)\]\(([^)]+)\)", (home / "README.md").read_text(), re.MULTILINE
    )
    assert [name for *_, name in table] == sorted(path.name for path in home.glob("[0-9]*.md"))
    for number, title, name in table:
        text = (home / name).read_text()
        assert text.startswith(f"# {number}. {title}")
        assert re.findall("^## (.*)", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_the_page_of_events_verifies_what_is_signed():
    """The signature is that of tests/engine/test_events.py."""
    page = (ROOT / "docs" / "events.md").read_text()
    there = {}
    exec(blocks(page, "python")[0], there)
    there["time"] = SimpleNamespace(time=lambda: 1700000100)
    id, at = "staging-1", "1700000000"
    signature = "v1,uI4mNTyLHOqbBSJMly9XgxPBoIQ+3h4d81knxMNT/NM="
    headers = dict(zip(there["NAMES"], (id, at, signature), strict=True))
    body = b'{"id": "staging-1"}'
    assert there["verified"](headers, body, "s3cret")
    theirs = {f"x-mlflow-{name}": value for name, value in headers.items()}
    assert there["verified"](theirs, body, "s3cret", list(theirs))
    assert not there["verified"](headers, body + b" ", "s3cret")
    assert not there["verified"](headers, body, "secret")
    assert not there["verified"]({}, body, "s3cret")
    there["time"].time = lambda: 1700000400
    assert not there["verified"](headers, body, "s3cret"), "somebody sends an old one again"


def test_the_page_of_events_shows_every_field():
    page = (ROOT / "docs" / "events.md").read_text()
    text = (ROOT / "template/src/{{ package }}/events/notify.py").read_text()
    fields = re.findall(r'"(\w+)"', re.findall(r"^FIELDS = (.*)", text, re.MULTILINE)[0])
    (shown,) = blocks(page, "json")
    assert {*json.loads(shown)} == {"id", "at", "type", "model", "text", *fields}


@pytest.mark.parametrize("page", ["AGENTS.md", "template/AGENTS.md"])
def test_agents_read_no_more_than_they_must(page):
    assert len((ROOT / page).read_text().splitlines()) <= 80


def test_the_repository_uses_what_it_renders(template, tmp_path):
    """What cannot be the same file is equal to what a project would have."""
    assert (ROOT / ".pre-commit-config.yaml").resolve() == ROOT / "template/.pre-commit-config.yaml"
    made = copy(template, tmp_path / "it", env_manager="pip", name="ciclo")
    container = ".devcontainer/devcontainer.json"
    assert (ROOT / container).read_text() == (made / container).read_text()
    ours, theirs = (
        tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["ruff"]
        for folder in (ROOT, made)
    )
    assert ours["line-length"] == theirs["line-length"]
    apart = {"per-file-ignores": {}, "isort": {}}  # each has files of its own
    assert ours["lint"] | apart == theirs["lint"] | apart


def test_every_action_of_our_own_workflows_is_pinned():
    """Those of a project are tested with its pipelines."""
    found = [*ROOT.glob(".github/workflows/*.yml")]
    assert found
    for path in found:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                used = step.get("uses", "./")
                assert used.startswith("./") or re.search(r"@[0-9a-f]{40}$", used), (
                    f"{path}: {used}"
                )


@pytest.mark.heavy(2)
def test_start_by_the_words_of_the_page(disk):
    """A clone in an empty folder, and docs/start.md from the first command to the last."""
    clone = disk / "ciclo"
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "build", ".*_cache")
    )
    commit(clone)
    made = Project(clone)
    page = "".join(blocks((ROOT / "docs" / "start.md").read_text(), "sh"))
    assert "".join(blocks((ROOT / "README.md").read_text(), "sh")).count("copier copy") == 1
    for command in page.splitlines():
        if command.startswith("cd "):
            made.folder = (made.folder / command[3:]).resolve()
        elif command == "make serve":
            with made.running(command):
                example = json.loads((made.folder / "reports" / "example.json").read_text())
                assert made.ask("POST", "/predictions", example)["version"] == "1"
        else:
            made.run(command)


def lines(page: str) -> set[str]:
    """The commands of a page."""
    return {*"".join(blocks((ROOT / "docs" / page).read_text(), "sh")).splitlines()}


def test_the_portuguese_pages_have_commands_that_are_run():
    for language in ("sh", "python"):
        english, portuguese = (
            blocks((ROOT / "docs" / page).read_text(), language)
            for page in ("tutorial.md", "pt/tutorial.md")
        )
        assert english == portuguese
    assert lines("pt/index.md") <= lines("start.md") | lines("own-data.md")


def test_the_tutorial_starts_as_the_first_page_and_goes_on_as_the_readme(template, tmp_path):
    """The chapters that are its own are run in the next test."""
    readme = (copy(template, tmp_path / "it") / "README.md").read_text()
    known = lines("start.md") | {*"".join(blocks(readme, "sh")).splitlines()}
    own = [line for line in lines("tutorial.md") - known if "later" not in line]
    assert {line.split("#")[0].strip() for line in known} >= {*own} - {
        "make rollback ENV=production"
    }


@pytest.mark.full
@pytest.mark.heavy(4)
def test_the_tutorial_by_its_words(disk):
    """The world changes, the monitor sees it, and the cycle finds a better version."""
    made = project(disk / "it")
    del made.environment["MONITOR_WINDOW"]
    page = (ROOT / "docs" / "tutorial.md").read_text()
    start, _, rest = page.partition("## Train")
    assert {*"".join(blocks(start, "sh")).splitlines()} < lines("start.md")
    (script,) = blocks(rest, "python")
    (made.folder / "later.py").write_text(script)
    turned, _, after = rest.partition("It goes to production")
    walk(made, turned)
    assert made.report("monitor")["verdict"] == "retrain"
    assert "version 2 waits in staging" in made.run("make status")
    walk(made, after)
    assert "rollback production" in made.run("make status")


@pytest.mark.full
@pytest.mark.heavy(4)
def test_update_by_the_words_of_the_page(disk):
    """docs/update.md: an update, another answer, a conflict that is solved, and the way back."""
    template = snapshot(disk / "template", data=True)
    commit(template, "v1.0.0")
    folder = copy(template, disk / "project")
    commit(folder)
    made = Project(folder, PYTEST_ADDOPTS="tests/project")
    made.run("make lock")
    commit(folder)
    makefile, ready = template / "template/Makefile.jinja", "READY := .venv/.ready"
    with (template / "template/constraints.txt").open("a") as file:
        file.write("# newer\n")
    commit(template, "v1.1.0")
    update, choice, solved, back = blocks((ROOT / "docs" / "update.md").read_text(), "sh")

    said = made.run(update)
    assert "v1.0.0 to v1.1.0" in said
    assert "passed" in said, "it runs the checks"
    commit(folder)
    made.run(choice)
    assert "MIT License" in (folder / "LICENSE").read_text()
    commit(folder)

    edit(folder / "Makefile", ready, "READY := .venv/.mine")
    commit(folder)
    edit(makefile, ready, "READY := .venv/.theirs")
    commit(template, "v1.2.0")
    before = (folder / "Makefile").read_text()
    assert "conflict: Makefile" in made.run(update, fails=True)
    made.run(back)
    assert (folder / "Makefile").read_text() == before
    assert not made.run("git status --porcelain").strip()

    made.run(update, fails=True)
    made.run("git checkout --quiet --theirs Makefile")
    assert ".venv/.theirs" in (folder / "Makefile").read_text()
    edit(folder / "Makefile", "READY := .venv/.theirs", ready)
    for command in solved.splitlines():
        made.run(command)
    assert not made.run("git status --porcelain").strip()
    assert "v1.2.0 is the newest version" in made.run(update)


@pytest.mark.heavy(4)
def test_the_demo(disk):
    """What the README shows is what `make demo` gives: it retrains, and that pays."""
    made = Project(ROOT)
    for name in [n for n in made.environment if n.startswith(("LOAD_", "MONITOR_", "SERVING_"))]:
        del made.environment[name]
    said = made.run(f"make demo DEST='{disk / 'demo'}'")
    record = json.loads((disk / "demo" / "reports" / "demo" / "demo.json").read_text())
    mean = {name: line["mean"] for name, line in record["table"].items()}
    assert mean["ciclo"] > mean["never retrained"], said
    promoted = [t for t in record["turns"] if "production" in t["promoted"]]
    assert 1 <= len(promoted) < 9
    for name in ("demo.png", "demo.html"):
        assert (disk / "demo" / "reports" / "demo" / name).stat().st_size > 10_000
    left = Project(disk / "demo")
    assert "production" in left.run("make status"), "the project can be gone on with"
    left.run("make train")
    assert "quiet" in (disk / "demo" / "reports" / "demo" / "demo.html").read_text()
