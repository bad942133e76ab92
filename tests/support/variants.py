"""The variants of the template, read from copier.yml.

usage: variants.py                  the whole product, as JSON
       variants.py --covering       the names of the projects that are run
       variants.py --projects       the names of all distinct projects
       variants.py --check FILE     whether a project can be made of an answers file
"""

import difflib
import functools
import itertools
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2_ansible_filters import AnsibleCoreFiltersExtension

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS: dict[str, dict[str, Any]] = {
    name: details
    for name, details in yaml.safe_load((ROOT / "copier.yml").read_text()).items()
    if not name.startswith("_")
}
REGISTRIES: dict[str, dict[str, Any]] = yaml.safe_load(QUESTIONS["model_registry_facts"]["default"])
"""What the template knows of each registry."""
STORE: dict[str, list[str]] = yaml.safe_load(QUESTIONS["store_facts"]["default"])
"""The variables and secrets of an object store."""
OBJECT_STORE = "moto[s3,server]==5.2.5"
"""What stands in for one."""
# These choose texts, not files: they are cycled through the variants.
CYCLED: dict[str, list[Any]] = {
    "license": [],
    "python": [],
    "name": ["flight-delays", "x", "on-time-arrivals-of-flights-out-of-nyc-0"],
    "description": ["Says \"late\" or 'on time'.", r"C:\new\table # 100 % {x} & <y>", "Até já 🛫"],
    "image_registry": ["", "ghcr.io", "registry.example:5000/team/flights"],
    "author": ['Ada "Countess" Lovelace', "O'Neill & Söhne", "Zoë"],
}


def choices(name: str, questions: dict[str, dict[str, Any]] = QUESTIONS) -> list[Any]:
    """The values of a question, in their order; none for a free text or no question."""
    offered = questions.get(name, {}).get("choices", [])
    values = offered.values() if isinstance(offered, dict) else offered
    return [value["value"] if isinstance(value, dict) else value for value in values]


AXES: dict[str, list[Any]] = {
    name: choices(name) for name in QUESTIONS if name not in CYCLED and len(choices(name)) > 1
}
CYCLED |= {name: values or choices(name) for name, values in CYCLED.items()}
FIXED = ("name", "package", "problem")
"""Decided at the copy, for good."""


ENVIRONMENT = jinja2.Environment(extensions=[AnsibleCoreFiltersExtension])


@functools.cache
def _rule(name: str) -> jinja2.Template:
    return ENVIRONMENT.from_string(QUESTIONS[name].get("validator", ""))


def refusal(answers: dict[str, Any]) -> str:
    """Why a choice does not go with the others, as its question's validator says; else nothing."""
    said = (_rule(name).render(answers).strip() for name in answers if name in AXES)
    return next(filter(None, said), "")


@functools.cache
def _variants() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for values in itertools.product(*AXES.values()):
        made = dict(zip(AXES, values, strict=True))
        # By chance, since a plain turn falls into step with the product.
        start = random.Random(len(found)).randrange(60)
        for turn in range(start, start + len(CYCLED["python"])):
            texts = {name: of[turn % len(of)] for name, of in CYCLED.items()}
            if not refusal(made | texts):
                found.append(made | texts)
                break
    return found


def variants() -> list[dict[str, Any]]:
    """The product of the questions that choose files, with texts cycled through it.

    What the questions refuse is left out.
    """
    return [dict(variant) for variant in _variants()]


def beside(question: str) -> dict[str, Any]:
    """The answers to the other questions in a variant that goes with each choice of one."""
    return next(
        {name: answer for name, answer in variant.items() if name != question}
        for variant in variants()
        if not any(refusal(variant | {question: choice}) for choice in choices(question))
    )


def key(answers: dict[str, Any]) -> str:
    """A short name of a variant, for test ids: its choices in the order of the questions."""
    return "-".join(str(answers[name]) for name in AXES)


RUNS = [name for name in ("problem", "env_manager", "serving_format") if name in AXES]
"""The questions whose answers matter when a project runs."""


LATEST = ("classification", "uv", "skops")
"""The project that runs on the newest Python, in the covering set too."""
BESIDES: dict[tuple[str, ...], dict[str, Any]] = {
    LATEST: {"python": choices("python")[0]},
    ("classification", "pip"): {"ci": "azure", "docker_base": "distroless"},
    ("classification", "conda"): {
        "ci": "none", "docker_base": "distroless", "model_registry": "wandb",
    },
    ("regression", "uv"): {"ci": "gitlab", "python": "3.11", "model_registry": "wandb"},
    ("regression", "pip"): {"ci": "none", "python": "3.12", "deployment": "kubernetes"},
    ("regression", "conda"): {"ci": "gitlab", "docker_base": "micromamba"},
}  # fmt: skip
"""What matters less when a project runs, but has its own chapters in the README."""


def projects() -> list[dict[str, Any]]:
    """Every distinct project: the product of RUNS."""
    return [
        dict(zip(RUNS, values, strict=True)) | BESIDES.get(values[:2], {}) | BESIDES.get(values, {})
        for values in itertools.product(*(AXES[name] for name in RUNS))
    ]


def covering() -> list[dict[str, Any]]:
    """Those of the projects that hold every pair of answers to two of RUNS, and LATEST.

    The third alternates with the other two. Conda, whose environments take longest, comes once.
    """
    first, second, third = (AXES[name] for name in RUNS)
    wanted = [
        (a, b, third[(i + j) % len(third)])
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if b != "conda" or a == first[-1]
    ]
    return [made for made in projects() if tuple(made[name] for name in RUNS) in [*wanted, LATEST]]


def name(answers: dict[str, Any]) -> str:
    """A short name of a project that is run."""
    return "-".join(answers.values())


def check(path: Path) -> str:
    """What is wrong with a file of answers, in a line; nothing where a project can be made."""
    import copier
    from harness import snapshot

    try:
        answers = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    if not isinstance(answers, dict):
        return "is no list of `question: answer`"
    asked = [name for name, of in QUESTIONS.items() if of.get("when") is not False]
    for name, value in answers.items():
        if str(name).startswith("_"):  # Copier's own, in a project's answers file
            continue
        if name not in asked:
            near = difflib.get_close_matches(str(name), asked, 1)
            return f"{name} is not a question{f'; is {near[0]} meant?' if near else ''}"
        if choices(name) and value not in choices(name):
            return f"{name}: {value!r} is not offered; choose one of {', '.join(choices(name))}"
    own = {name: value for name, value in answers.items() if not str(name).startswith("_")}
    with tempfile.TemporaryDirectory() as folder:
        try:
            template = snapshot(Path(folder, "template"))
            copier.run_copy(
                str(template), Path(folder, "it"), own, defaults=True, quiet=True, pretend=True
            )
        except ValueError as error:
            said = str(error).removeprefix("Validation error for question ")
            return " ".join(said.replace("'", "", 2).split())
    return ""


def main(arguments: list[str]) -> int:
    """Prints what was asked for; returns the exit code."""
    match arguments:
        case []:
            print(json.dumps(variants(), indent=2, ensure_ascii=False))
        case ["--covering"]:
            print(json.dumps([name(answers) for answers in covering()]))
        case ["--projects"]:
            print(json.dumps([name(answers) for answers in projects()]))
        case ["--check", path]:
            if wrong := check(Path(path)):
                print(f"error: {path}: {wrong}", file=sys.stderr)
                return 1
            print(f"{path}: a project can be made of it")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
