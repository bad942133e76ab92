"""Bad answers: refused with what is allowed and an example, and nothing is written."""

import itertools
import subprocess
import sys
import tomllib

import pytest
from harness import ROOT, copy, script
from variants import AXES, QUESTIONS, main, refusal, variants

LONG = "a" * 200
BAD = {
    "name": ["", " ", "Flight", "flight delays", "1st", "a--b", "a-", "../x", "a/b", "🛫", LONG],
    "package": ["", "a-b", "Class", "class", "_x", "json", "numpy", "sklearn", "tests", "data"],
    "description": ["", "a\nb", LONG + "a", "a\x00b", "a\x7fb", "a\u2028b"],
    "author": ["", "a\nb", LONG + "a", "\x1b[31m"],
    "license": ["GPL", ""],
    "python": ["3.10", "2.7", "3"],
    "problem": ["ranking"],
    "env_manager": ["poetry"],
    "ci": ["travis"],
    "docker_base": ["alpine"],
    "image_registry": [
        "https://ghcr.io",
        "GHCR.io/x",
        "a b",
        "../x",
        "ghcr.io/",
        "a\nb",
        "a'b",
        LONG + "a",
    ],
    "serving_format": ["pickle"],
}
BAD["name"] += ["a\nb", "a\n", 'a"b', "{{ 1 }}", "numpy", "mlflow-skinny", "json"]
BAD["package"] += ["a.b", "../x", "🛫", LONG, "a" * 41, "x\n", "match", "mlflow"]


@pytest.mark.parametrize(
    ("question", "answer"), [(name, answer) for name, bad in BAD.items() for answer in bad]
)
def test_refused_with_an_example(question, answer, template, tmp_path):
    with pytest.raises(ValueError, match=question) as refused:
        copy(template, tmp_path / "project", **{question: answer})
    assert not (tmp_path / "project").exists()
    if "choices" not in QUESTIONS[question]:
        assert ", e.g. " in str(refused.value)


@pytest.mark.parametrize("name", ["x", "a1", "a-b-c", "a" * 40])
def test_taken(name, template, tmp_path):
    copy(template, tmp_path / "project", name=name)
    assert (tmp_path / "project/src" / name.replace("-", "_")).is_dir()


@pytest.mark.parametrize(
    "text", ["{{ 1 }}", "{% if %}", "'''", '"""', "\\", "$(x) `x` ${HOME}", "<b>", "# x", "x" * 200]
)
def test_hostile_texts_arrive_as_they_are(text, template, tmp_path):
    copy(template, tmp_path / "project", description=text, author=text)
    told = tomllib.loads((tmp_path / "project/pyproject.toml").read_text())["project"]
    assert told["description"] == text
    assert told["authors"] == [{"name": text}]


def test_the_names_that_are_taken_are_made_anew():
    """Python's modules and keywords, the dependencies, and the folders of a project."""
    made = script("taken", ROOT / "scripts")
    assert made.TAKEN.read_text() == made.taken(), "run .venv/bin/python scripts/taken.py"
    names = set(made.taken().split())
    assert names > {"idlelib", "imp", "annotationlib", "type", "match", "scikit_learn", "sklearn"}
    assert names > {"scripts", "loadtest", "tests", "data"}
    assert not names & {"x", "flights", "", "{{"}


def test_the_command_line_refuses_too(template, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "copier", "copy", "--defaults", "--data", "package=class",
         str(template), str(tmp_path / "project")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "e.g. flight_delays" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "project").exists()


IMPOSSIBLE = {
    "micromamba": {"docker_base": "micromamba", "env_manager": "uv"},
    "distroless": {"docker_base": "distroless", "python": "3.12"},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_pairs_are_refused_with_the_reason(name, template, tmp_path):
    with pytest.raises(ValueError, match=rf"(?s)docker_base.*{name}.* Use ") as refused:
        copy(template, tmp_path / "project", **IMPOSSIBLE[name])
    assert not (tmp_path / "project").exists()
    assert refusal({"env_manager": "conda", "python": "3.13"} | IMPOSSIBLE[name]) in str(
        refused.value
    )


def test_the_walk_leaves_out_what_copier_refuses_and_no_more(template, tmp_path):
    kept = {tuple(v[name] for name in AXES) for v in variants()}
    left = [values for values in itertools.product(*AXES.values()) if values not in kept]
    refused = [dict(zip(AXES, values, strict=True)) for values in left]
    assert {answers["docker_base"] for answers in refused} == {"micromamba"}
    with pytest.raises(ValueError, match="micromamba is for env_manager conda"):
        copy(template, tmp_path / "project", **dict(zip(AXES, left[0], strict=True)))
    for python, base in itertools.product(QUESTIONS["python"]["choices"], AXES["docker_base"]):
        found = [v for v in variants() if (v["python"], v["docker_base"]) == (python, base)]
        assert bool(found) == (base != "distroless" or python == "3.13")


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ("name: my-flights\nci: gitlab\n", "a project can be made of it"),
        ("env_manger: uv\n", "env_manger is not a question; is env_manager meant?"),
        ("ci: jenkins\n", "ci: 'jenkins' is not offered; choose one of github, "),
        ("docker_base: micromamba\n", "micromamba is for env_manager conda"),
        ("name: class\n", "name: class is a name that"),
        ("- ci\n", "is no list of `question: answer`"),
        ("a: [\n", "cannot be read"),
        (None, "cannot be read"),
    ],
    ids=["good", "key", "value", "pair", "rule", "list", "yaml", "none"],
)
def test_an_answers_file_is_checked(answers, told, tmp_path, capsys):
    path = tmp_path / "answers.yml"
    if answers is not None:
        path.write_text(answers)
    code, shown = main(["--check", str(path)]), capsys.readouterr()
    good = told.startswith("a project")
    said = shown.out if good else shown.err
    assert (code, len(said.splitlines())) == (0 if good else 1, 1), shown.err
    assert told in said
