"""Laws 6 and 9: projects live through the whole cycle, by the words of their own README."""

import random
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
from engine.wandb_server import ADMIN, TEAM, running
from harness import ROOT
from running_project import Project, blocks, needs, on_a_slice, project, turn, walk
from variants import choices, covering, name, projects

OWN = "## Use your own data"


@pytest.mark.heavy(5)
@pytest.mark.parametrize(
    "answers",
    [pytest.param(a, marks=[] if a in covering() else [pytest.mark.full]) for a in projects()],
    ids=name,
)
def test_a_project_lives_by_its_readme(answers, disk):
    needs(answers["env_manager"], answers.get("python", "3.13"))
    made = project(disk / "it", **answers)
    with account(made) if answers in at_wandb() else nullcontext():
        lives(made, answers)


def lives(made, answers) -> None:
    """Walks the README, and turns the cycle once."""
    first, _, rest = (made.folder / "README.md").read_text().partition(OWN)
    assert rest
    if answers != covering()[0]:  # the first is a newcomer's, on all the data
        on_a_slice(made)
    walk(made, first)
    versions = made.run("make status")
    assert "production" in versions
    if answers == covering()[0]:
        made.environment["PYTEST_XDIST_AUTO_NUM_WORKERS"] = "2"
    # The environment's manager changes no code, so its tests run once for each distinct code.
    if answers in distinct():
        walk(made, (made.folder / "AGENTS.md").read_text())  # make check, in the end
    else:
        made.run("make lint")
    assert not made.run("git status --porcelain --untracked-files=all -- . ':!locks'").strip()
    if answers == covering()[0]:
        said = made.run(
            "make capacity WORKERS=2 "
            "LOAD_CAPACITY_START=4 LOAD_CAPACITY_SECONDS=2 LOAD_CAPACITY_STEPS=2"
        )
        assert made.report("capacity")["rate"] > 0, said
        doctor(made)
        installed(made)
    if answers in distinct() and answers != covering()[0]:  # tests/engine has the first's
        assert "was made again: the same" in made.run("make reproduce VERSION=1")
        assert "0 snapshots here" in made.run("make prune")

    turn(made)


def at_wandb() -> list[dict[str, str]]:
    """Of the projects with W&B those that have an account; the one other has WANDB_MODE=offline."""
    offline = next(answers for answers in covering() if answers["problem"] == "regression")
    wandb = [answers for answers in projects() if answers.get("model_registry") == "wandb"]
    return [answers for answers in wandb if answers != offline]


@contextmanager
def account(made) -> Iterator[None]:
    """Lets a project work with a stand-in W&B, which must have known all that it was asked."""
    with running() as server:
        made.environment |= {"WANDB_MODE": "online", "WANDB_BASE_URL": server.url}
        made.environment |= {"WANDB_API_KEY": ADMIN, "WANDB_ENTITY": TEAM}
        yield
    assert not server.refused, server.refused
    assert server.met["LinkArtifact"] > 1


def distinct() -> list[dict[str, str]]:
    """The first project of each problem; between them they have each registry and each format."""
    several = [*reversed(projects()), *reversed(covering())]
    return [*{answers["problem"]: answers for answers in several}.values()]


def test_the_checked_projects_have_each_registry_and_each_format():
    for question, default in (("model_registry", "mlflow"), ("serving_format", "")):
        assert {made.get(question, default) for made in distinct()} == {*choices(question)}


def doctor(made) -> None:
    """It is content with a project that works, and names what does not."""
    assert "registry" in made.run("make doctor")
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    away |= {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    away |= {"WANDB_API_KEY": "a" * 40, "WANDB__GRAPHQL_RETRY_MAX": "1"}
    before = dict(made.environment)
    made.environment |= away
    said = made.run("make doctor", fails=True)
    assert "http://127.0.0.1:9" in said
    made.environment = before


def installed(made) -> None:
    """No project may have the name of a module that it installs: scripts/taken.py knows it."""
    code = "import importlib.metadata as m; print(*m.packages_distributions())"
    found = made.run(f".venv/bin/python -c {shlex.quote(code)}").split()
    names = {name for name in found if re.fullmatch("[a-z][a-z0-9_]*", name)}
    taken = set((ROOT / "parts" / "taken.txt").read_text().split())
    assert "sklearn" in names
    assert names - taken <= {"flight_delays"}


@pytest.mark.full
@pytest.mark.heavy(5)
@pytest.mark.parametrize(
    ("serving_format", "registry"), [("onnx", "mlflow"), ("skops", "mlflow"), ("onnx", "wandb")]
)
def test_version_1_is_made_again_elsewhere_after_ten_more(serving_format, registry, disk):
    """In a fresh clone at another path, though code, settings and the lock changed since then."""
    made = project(disk / "it", serving_format=serving_format, model_registry=registry)
    on_a_slice(made)
    made.environment |= {"DATA_STORE": str(disk / "store")}
    made.environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{disk}/mlflow.db"}
    model = made.folder / "src/flight_delays/project/model.py"
    trees = model.read_text().replace("n_estimators=100", "n_estimators=10")
    with account(made) if registry == "wandb" else nullcontext():
        for number in range(1, 12):
            leaf = f"min_samples_leaf={10 + number // 4}"
            model.write_text(trees.replace("min_samples_leaf=10", leaf))
            (made.folder / "settings.toml").write_text(f"[train]\nseed = {number // 3}\n")
            more = (("src/flight_delays/training/train.py", 5), ("locks/dev.txt", 7))
            for path in [path for path, when in more if when == number]:
                with (made.folder / path).open("a") as file:
                    file.write("# changed\n")
            made.run(f"git add --all && git commit --allow-empty --message {number}")
            made.run("make train")
        made.run(f"git clone . '{disk}/else where'")
        clone = Project(disk / "else where")
        clone.environment |= made.environment
        said = clone.run("make reproduce VERSION=1")
    assert "fetched snapshot" in said
    assert "version 1 was made again: the same" in said
    report = clone.report("reproduce")
    assert (report["bytes"], report["differs"]) == (serving_format == "onnx", [])
    assert not clone.run("git status --porcelain")


@pytest.mark.heavy(5)
def test_own_data_of_another_shape(disk):
    """Three columns, three classes, no time: the README's `make own`, and the cycle with it."""
    made = project(disk / "it", env_manager="uv", name="iris", serving_format="onnx")
    _, _, chapter = (made.folder / "README.md").read_text().partition(OWN)
    chapter = chapter.partition("\n## ")[0]
    page = (ROOT / "docs" / "own-data.md").read_text()
    (routes,) = [code for code in blocks(page, "python") if "project/routes.py" in code]
    (made.folder / "src" / "iris" / "project" / "routes.py").write_text(routes)
    rows = flowers(900)
    lines = [f"{r['petal_length']},{r['colour'] or ''},{r['species']}" for r in rows]
    (made.folder / "data" / "iris.csv").write_text(
        "\n".join(["petal_length,colour,species", *lines, ""])
    )
    made.environment["PYTEST_ADDOPTS"] = "tests/project"  # the others are run by the READMEs
    walk(made, chapter)
    assert "accuracy" in made.report("train")["metrics"]
    made.environment["GATES_MIN_ROWS"] = "100"
    for command in ("promote ENV=staging", "load ENV=staging", "promote ENV=production"):
        made.run(f"make {command}")
    features = [{k: r[k] for k in ("petal_length", "colour")} for r in flowers(600, seed=1)]
    species = [r["species"] for r in flowers(600, seed=1)]
    with made.running("make serve ENV=production"):
        made.traffic(features, species)
        known, new = made.ask("POST", "/what-if", features[:1] * 2)
        assert known == new
        assert known["prediction"] in species
    made.run("make cycle")
    assert made.report("monitor")["verdict"] in ("ok", "warn")
    renamed = {"setosa": "virginica", "virginica": "versicolor", "versicolor": "setosa"}
    with made.running("make serve ENV=production"):  # every name now means another species
        for _ in range(2):
            made.traffic(features, [renamed[name] for name in species])
    made.environment["TRAIN_WINDOW"] = "1200"
    made.run("make cycle")
    assert made.report("monitor")["verdict"] == "retrain"
    assert made.report("cycle")["promoted"] == ["test", "staging"]
    assert made.report("cycle")["version"] == "2"


def flowers(n: int, seed: int = 0) -> list[dict]:
    """Flowers of three species that overlap; a colour is missing now and then."""
    draw = random.Random(seed)
    kinds = {"setosa": (1.5, "white"), "versicolor": (4.3, "blue"), "virginica": (5.6, "blue")}
    found = []
    for _ in range(n):
        species = draw.choice(list(kinds))
        length, colour = kinds[species]
        found.append(
            {
                "petal_length": round(draw.gauss(length, 0.5), 2),
                "colour": colour if draw.random() < 0.8 else None,
                "species": species,
            }
        )
    return found
