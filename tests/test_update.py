"""Laws 3, 4 and 5: switching an answer, taking in a release, and whose file is whose."""

import shutil
from pathlib import Path

import pytest
from harness import commit, copy, edit, files, git, is_yours, snapshot, switch, update
from variants import AXES, FIXED, beside, choices

SWITCHED = [[name] for name in AXES if name not in FIXED] + [["license", "python"]]
ANSWERS = ".copier-answers.yml"
PACKAGE = "src/flight_delays"
SOURCE = "src/{{ package }}"
ONNX = "{% if serving_format == 'onnx' %}.{% endif %}"


@pytest.fixture
def releases(repository, tmp_path) -> Path:
    """The template at its release v1.0.0, for a test to release more."""
    return shutil.copytree(repository, tmp_path / "releases")


def start(template: Path, to: Path, **answers: str) -> Path:
    """A rendered project with its first commit."""
    copy(template, to, **answers)
    commit(to)
    return to


def unmerged(project: Path) -> list[str]:
    """The files that git shows as conflicts."""
    return git(project, "diff", "--name-only", "--diff-filter=U").split()


@pytest.fixture(scope="module")
def unchanged(repository, tmp_path_factory) -> Path:
    """A project that no test changes."""
    return start(repository, tmp_path_factory.mktemp("unchanged") / "project")


@pytest.mark.parametrize(
    "questions",
    [pytest.param(q, marks=[] if "license" in q[0] else [pytest.mark.heavy]) for q in SWITCHED],
    ids="-".join,
)
def test_switching_equals_copying(questions, repository, tmp_path):
    """Each choice after the other, and back to the first, as if copied so."""
    rounds = range(max(len(choices(name)) for name in questions))
    turns = [{name: choices(name)[n % len(choices(name))] for name in questions} for n in rounds]
    others = {} if len(questions) > 1 else beside(questions[0])
    project = start(repository, tmp_path / "project", **others | turns[0])
    for number, answers in enumerate([*turns[1:], turns[0]]):
        switch(project, **answers)
        fresh = copy(repository, tmp_path / str(number), **others | answers)
        assert files(project) == files(fresh)
        commit(project)


@pytest.mark.parametrize(
    ("question", "answer", "kept"),
    [
        ("name", "other-name", "flight-delays"),
        ("package", "other_name", "flight_delays"),
        ("problem", "regression", "classification"),
    ],
)
def test_what_is_fixed_cannot_be_switched(question, answer, kept, unchanged):
    assert question in FIXED
    with pytest.raises(ValueError, match=f"is fixed when the project is made: it stays {kept}"):
        switch(unchanged, **{question: answer})
    assert git(unchanged, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("problem", "other"), [("classification", "regression"), ("regression", "classification")]
)
def test_nor_can_it_by_hand(problem, other, repository, tmp_path):
    project = start(repository, tmp_path / "project", problem=problem)
    edit(project / ANSWERS, f"\nproblem: {problem}", f"\nproblem: {other}")
    commit(project)
    with pytest.raises(ValueError, match=f"it stays {problem}"):
        switch(project)
    assert git(project, "status", "--porcelain") == ""


def test_an_update_from_an_older_version_equals_a_copy(tmp_path):
    """A made-up v0.0.1 with files, lines, a question and a seed that HEAD no longer has."""
    template = snapshot(tmp_path / "template")
    rendered = template / "template"
    (rendered / "old.cfg").write_text("[old]\n")
    (rendered / SOURCE / "errors.py").unlink()
    (rendered / ONNX / SOURCE / "predictor.py").write_text('"""The older one."""\n')
    (rendered / SOURCE / "project/features.py").write_text('"""As seeded then."""\n')
    edit(rendered / "Makefile.jinja", "READY := .venv/.ready", "READY := .venv/.done\nOLD := 1")
    edit(rendered / "pyproject.toml.jinja", '    "typer>=', '    "old-thing>=1",\n    "typer>=')
    edit(template / "copier.yml", "# STACK", "colour: {type: str, default: red}\n\n# STACK")
    commit(template, "v0.0.1")
    project = start(template, tmp_path / "project", author="Ada")
    assert "colour: red" in (project / ANSWERS).read_text()

    shutil.rmtree(rendered)
    snapshot(template)
    commit(template, "v1.0.0")
    update(project)
    updated = files(project)
    fresh = files(copy(template, tmp_path / "fresh", author="Ada"))
    assert updated[f"{PACKAGE}/project/features.py"] == b'"""As seeded then."""\n'
    assert set(updated) == set(fresh)
    assert [path for path in fresh if updated[path] != fresh[path]] == [
        f"{PACKAGE}/project/features.py"
    ]


def test_what_is_yours_is_never_touched(releases, tmp_path):
    """The seed and the settings keep every byte, whatever the template makes of them."""
    project = start(releases, tmp_path / "project")
    yours = [path for path in files(project) if is_yours(path)]
    assert f"{PACKAGE}/project/features.py" in yours
    gone = f"{PACKAGE}/project/metrics.py"
    (project / gone).unlink()
    for path in set(yours) - {gone}:
        (project / path).write_bytes(b"# mine: " + path.encode() + b"\n")
    (project / "data/mine.csv").write_text("mine\n")
    commit(project)
    before = files(project)

    for source in (releases / "template").rglob("*"):
        rendered = source.relative_to(releases / "template").as_posix()
        plain = rendered.split("%}/")[-1].replace("{{ package }}", "flight_delays")
        if source.is_file() and is_yours(plain):
            source.write_bytes(source.read_bytes() + b"# newer\n")
    (releases / "template" / SOURCE / "project/newer.py").write_text('"""Newer."""\n')
    edit(releases / "template/Makefile.jinja", "READY := .venv/.ready", "READY := .venv/.new")
    commit(releases, "v1.1.0")
    update(project)
    after = files(project)
    assert "READY := .venv/.new" in after["Makefile"].decode()
    assert {path: after.get(path) for path in before if is_yours(path)} == {
        path: content for path, content in before.items() if is_yours(path)
    }
    assert set(after) == set(before)


def test_ordinary_edits_merge(releases, tmp_path):
    """Yours and ours in one file, some lines apart: both stay, and git sees no conflict."""
    project = start(releases, tmp_path / "project")
    edit(project / "Makefile", "export MLFLOW", "export MINE = 1\nexport MLFLOW")
    edit(project / ".gitignore", "# Yours\n", "# Yours\n/mine/\n")
    pyproject = project / "pyproject.toml"
    for place in ("project/features.py needs more, go", "project/model.py, go", "your tests, go"):
        end = f"{place} below this line.\n    #\n"
        edit(pyproject, end, f'{end}    "mine-{len(place)}>=1",\n')
    (project / PACKAGE / "mine.py").write_text('"""Mine."""\n')
    commit(project)

    rendered = releases / "template"
    edit(rendered / "Makefile.jinja", "help: ## this list", "help: ## this very list")
    edit(rendered / ".gitignore", "/.venv/\n", "/.venv/\n/newer/\n")
    edit(rendered / "pyproject.toml.jinja", '    "typer>=', '    "theirs>=1",\n    "typer>=')
    edit(rendered / "pyproject.toml.jinja", '    "rich>=', '    "theirs>=2",\n    "rich>=')
    edit(rendered / "pyproject.toml.jinja", '    "mypy>=', '    "theirs>=3",\n    "mypy>=')
    commit(releases, "v1.1.0")
    update(project)
    assert unmerged(project) == []
    assert (project / PACKAGE / "mine.py").exists()
    both = [
        ("Makefile", ["export MINE = 1", "this very list"]),
        (".gitignore", ["/mine/", "/newer/"]),
        ("pyproject.toml", ["mine-", "theirs>=1", "theirs>=2", "theirs>=3"]),
    ]
    for path, lines in both:
        text = (project / path).read_text()
        assert all(line in text for line in lines), path
    assert pyproject.read_text().count('"mine-') == 3


def test_clashing_edits_end_as_a_conflict(releases, tmp_path):
    """The same line changed on both sides is for a person to decide; git says so."""
    project = start(releases, tmp_path / "project")
    edit(project / "Makefile", "READY := .venv/.ready", "READY := .venv/.mine")
    commit(project)
    edit(releases / "template/Makefile.jinja", "READY := .venv/.ready", "READY := .venv/.theirs")
    commit(releases, "v1.1.0")
    update(project)
    assert unmerged(project) == ["Makefile"]
    text = (project / "Makefile").read_text()
    assert "READY := .venv/.mine" in text
    assert "READY := .venv/.theirs" in text


@pytest.mark.parametrize(
    ("question", "path"),
    [("serving_format", f"{PACKAGE}/predictor.py"), ("env_manager", "env.mk")],
)
def test_an_edited_seam_meets_a_switch_as_a_conflict(question, path, repository, tmp_path):
    first, second, *_ = choices(question)
    project = start(repository, tmp_path / "project", **{question: first})
    mine = "# mine\n" + (project / path).read_text().replace("\n\n", "\n# mine\n\n")
    (project / path).write_text(mine)
    commit(project)
    switch(project, **{question: second})
    assert unmerged(project) == [path]
    assert "# mine" in (project / path).read_text()


def test_no_file_of_ours_is_binary(renders):
    for folder in renders.values():
        for path, content in files(folder).items():
            assert is_yours(path) or b"\0" not in content, path
