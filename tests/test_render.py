"""Laws 1 and 2: every variant renders to sound files, and every choice matters."""

import json
import re
import sys
import tomllib
from collections.abc import Callable
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
import pytest
import yaml
from harness import ROOT, commit, copy, files, git
from variants import AXES, QUESTIONS, beside, choices, covering, key, projects, variants

PARSERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".py": lambda text: compile(text, "", "exec"),
    ".toml": tomllib.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}
LEFT = re.compile(r"\{%|\{#|(?<!\$)\{\{-?\s*(?:_copier|" + "|".join(QUESTIONS) + r")\b")
FORBIDDEN = re.compile(r'["<>:|?*\\]')


@pytest.fixture(scope="module")
def distinct(renders) -> dict[tuple[str, bytes], str]:
    """Each distinct content of all variants, by suffix, with one place where it is found."""
    return {
        (PurePosixPath(path).suffix, content): f"{variant}/{path}"
        for variant, folder in renders.items()
        for path, content in files(folder).items()
    }


def test_the_whole_product_is_rendered(renders, distinct, record_property):
    taken = [float((f.parent / f"{f.name}.taken").read_text()) for f in renders.values()]
    record_property(
        "said",
        f"{len(renders)} variants, {len(distinct)} distinct files, "
        f"{sum(taken) / len(taken):.2f} s a variant",
    )
    assert len(renders) == len(variants())


def test_every_file_parses(distinct):
    for (suffix, content), where in distinct.items():
        if suffix in PARSERS:
            try:
                PARSERS[suffix](content.decode())
            except Exception as error:
                pytest.fail(f"{where}: {error}")


def test_nothing_of_jinja_is_left(distinct):
    for (suffix, content), where in distinct.items():
        assert not LEFT.search(where), where
        if suffix != ".parquet":
            found = LEFT.search(content.decode())
            assert not found, f"{where}: {found}"


def test_no_line_ends_in_a_blank(distinct):
    for (suffix, content), where in distinct.items():
        if suffix != ".parquet" and not where.endswith(".copier-answers.yml"):
            assert not re.search(rb"[ \t]\n", content), where


def test_the_matrix_is_json(run):
    command = [sys.executable, str(ROOT / "tests" / "support" / "variants.py")]
    found = json.loads(run(*command, cwd=ROOT))
    possible = {tuple(v[name] for name in AXES) for v in found}
    assert possible <= set(product(*AXES.values()))
    assert len(possible) == len(found)
    runs, every = (json.loads(run(*command, how, cwd=ROOT)) for how in ("--covering", "--projects"))
    assert set(runs) < set(every)
    assert (len(runs), len(every)) == (len(covering()), len(projects()))


@pytest.mark.parametrize("question", [*AXES, "python"])
def test_what_is_run_holds_each_choice(question):
    assert {made.get(question, QUESTIONS[question]["default"]) for made in covering()} == set(
        choices(question)
    )


def test_texts_end_in_one_newline(distinct):
    for (suffix, content), where in distinct.items():
        if suffix != ".parquet" and content:
            assert content.endswith(b"\n"), where
            assert not content.endswith(b"\n\n"), where


def test_paths_are_legal_on_every_system(renders):
    names = [path for folder in renders.values() for path in files(folder)]
    sources = [path.name for path in (ROOT / "template").rglob("*")]
    assert not [name for name in names if FORBIDDEN.search(name)]
    assert not [name for name in sources if re.search(r'["<>:|?*\\]', name)]


@pytest.mark.parametrize("answers", variants(), ids=key)
def test_exactly_the_expected_files(answers, renders, template):
    """No file is lost and none leaks, by a rendering of the paths that is not Copier's."""
    source, environment = (
        template / "template",
        jinja2.Environment(undefined=jinja2.StrictUndefined),
    )
    seams = {name: of["default"] for name, of in QUESTIONS.items() if of.get("choices")}
    package = str(answers["name"]).replace("-", "_")
    context = seams | answers | {
        "package": package, "_copier_conf": {"answers_file": ".copier-answers.yml"},
    }  # fmt: skip
    expected = []
    for path in source.rglob("*"):
        parts = [environment.from_string(p).render(context) for p in path.relative_to(source).parts]
        if path.is_file() and all(parts):
            expected.append(str(PurePosixPath(*parts)).removesuffix(".jinja"))
    assert sorted(files(renders[key(answers)])) == sorted(expected)


def test_ruff_changes_nothing(renders, run):
    """Each distinct file once, at its place: it follows the configuration rendered with it."""
    found = {}
    for folder in renders.values():
        settings = (folder / "pyproject.toml").read_text().partition("[tool.ruff]")[2]
        for path in folder.rglob("*.py"):
            found[path.relative_to(folder), path.read_bytes(), settings] = str(path)
    assert len(found) > 100
    ruff = [sys.executable, "-m", "ruff"]
    run(*ruff, "check", "--no-cache", *found.values(), cwd=ROOT)
    run(*ruff, "format", "--check", "--no-cache", *found.values(), cwd=ROOT)


def test_package_code_is_python_as_it_lies(run):
    run(sys.executable, "-m", "ruff", "check", "--no-cache", "template", cwd=ROOT)


@pytest.mark.parametrize("answers", variants(), ids=key)
def test_make_reads_its_files(answers, renders, run):
    shown = run("make", "help", cwd=renders[key(answers)])
    verbs = (
        "setup lock check data train ui status promote rollback serve score load capacity monitor"
        " cycle report image up down deploy doctor update clean help ci-setup ci-check ci-promote"
    )
    assert not set(verbs.split()) - set(re.findall(r"make ([\w-]+)", shown))


def test_a_clone_has_the_same_bytes_whatever_git_is_told(template, tmp_path):
    """As Git for Windows is set up: scripts that images run keep LF, and data what it has."""
    project = copy(template, tmp_path / "project")
    (project / "data" / "mine.csv").write_bytes(b"a,b\r\n1,2\r\n")
    commit(project)
    clone = ("clone", "--quiet", "-c", "core.autocrlf=true", str(project), str(tmp_path / "clone"))
    git(tmp_path, *clone)
    assert files(tmp_path / "clone") == files(project)


def test_texts_arrive_unchanged(renders):
    for answers in variants():
        told = tomllib.loads((renders[key(answers)] / "pyproject.toml").read_text())["project"]
        assert told["description"] == answers["description"]
        assert told["authors"] == [{"name": answers["author"]}]
        assert told["name"] == answers["name"]


@pytest.mark.parametrize("question", [name for name in QUESTIONS if len(choices(name)) > 1])
def test_every_choice_changes_a_file(question, template, tmp_path):
    """Each choice renders something of its own, and says so in a label."""
    made = []
    for number, choice in enumerate(choices(question)):
        answers = beside(question) | {question: choice}
        rendered = files(copy(template, tmp_path / str(number), **answers))
        del rendered[".copier-answers.yml"]
        made.append(rendered)
    assert all(one != other for one in made for other in made if one is not other)


def test_no_choice_has_an_overlay_without_a_question():
    """Overlays name a question, and one of its choices."""
    form = re.compile(r"\{% if (\w+) (?:==|!=) '([\w.-]+)' %\}\.\{% endif %\}")
    for path in (ROOT / "template").rglob("*{%*"):
        found = form.fullmatch(path.name)
        assert found, f"{path.name} is not of the form of an overlay"
        assert found[2] in choices(found[1]), path.name


def test_the_axes_are_there():
    assert {"problem", "env_manager", "ci", "serving_format"} <= set(AXES)
    assert [path for path in (ROOT / "template").iterdir() if isinstance(path, Path)]
