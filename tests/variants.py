"""The variants of the template, read from copier.yml: `python tests/variants.py` prints them."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS: dict[str, dict[str, Any]] = {
    name: details
    for name, details in yaml.safe_load((ROOT / "copier.yml").read_text()).items()
    if not name.startswith("_")
}
# These choose texts, not files: they are cycled through the variants.
CYCLED: dict[str, list[Any]] = {
    "license": [],
    "python": [],
    "name": ["flight-delays", "x", "on-time-arrivals-of-flights-out-of-nyc-0"],
    "description": ["Says \"late\" or 'on time'.", r"C:\new\table # 100 % {x} & <y>", "Até já 🛫"],
    "author": ['Ada "Countess" Lovelace', "O'Neill & Söhne", "Zoë"],
}


def choices(name: str) -> list[Any]:
    """The values of a question, in their order; none for a free text."""
    offered = QUESTIONS[name].get("choices", [])
    values = offered.values() if isinstance(offered, dict) else offered
    return [value["value"] if isinstance(value, dict) else value for value in values]


AXES: dict[str, list[Any]] = {
    name: choices(name) for name in QUESTIONS if name not in CYCLED and len(choices(name)) > 1
}
CYCLED |= {name: values or choices(name) for name, values in CYCLED.items()}
FIXED = ("name", "package", "problem")
"""Decided at the copy, for good."""


def variants() -> list[dict[str, Any]]:
    """The whole product of the questions that choose files, with texts cycled through it."""
    found = []
    for number, values in enumerate(itertools.product(*AXES.values())):
        texts = {name: of[number % len(of)] for name, of in CYCLED.items()}
        found.append(dict(zip(AXES, values, strict=True)) | texts)
    return found


def key(answers: dict[str, Any]) -> str:
    """A short name of a variant, for test ids: its choices in the order of the questions."""
    return "-".join(str(answers[name]) for name in AXES)


RUNS = [name for name in ("problem", "env_manager", "serving_format") if name in AXES]
"""The questions whose answers matter when a project runs."""


def covering() -> list[dict[str, Any]]:
    """Every pair of answers to two of RUNS, in four projects."""
    first, second, third = (AXES[name] for name in RUNS)
    return [
        dict(zip(RUNS, (first[i], second[j], third[i ^ j]), strict=True))
        for i in (0, 1)
        for j in (0, 1)
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["--covering"]:
        print(json.dumps(["-".join(answers.values()) for answers in covering()]))
    else:
        print(json.dumps(variants(), indent=2, ensure_ascii=False))
