"""What the explorer knows: every file of every variant, with each distinct content once.

A file depends on the answers to a few questions. So it is enough to render variants that hold,
between them, every combination of answers to three questions; a file that needs more is refused.
Each file then has a table: the content by the answers to the questions that it depends on.
"""

import functools
import hashlib
import itertools
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import copy, files, snapshot
from variants import QUESTIONS, choices, refusal

Answers = dict[str, str]
ASKED = [name for name in QUESTIONS if len(choices(name)) > 1]
"""The questions that offer answers, in the order in which Copier asks them."""
DEFAULT: Answers = {name: QUESTIONS[name]["default"] for name in ASKED}
ANSWERS_FILE = ".copier-answers.yml"
"""Holds all answers, and where the template was: it is described, not shown."""
STRENGTH = 3
MORE = [("license", "python", "serving_format", "model_registry")]
"""The questions on which files depend that need more: those of pyproject.toml."""


@functools.cache
def product() -> list[tuple[Answers, str]]:
    """Every set of answers, and why it is refused."""
    every = itertools.product(*map(choices, ASKED))
    sets = [dict(zip(ASKED, values, strict=True)) for values in every]
    return [(answers, refusal(answers)) for answers in sets]


def covering() -> list[Answers]:
    """Few sets that hold each combination of answers to three questions, or to MORE."""
    together = [*itertools.combinations(ASKED, STRENGTH), *MORE]
    every = [answers for answers, why in product() if not why]
    random.Random(0).shuffle(every)
    every.insert(0, DEFAULT)
    holds = [{(on, *(answers[name] for name in on)) for on in together} for answers in every]
    left = set[Any]().union(*holds)
    least, found = len(together), []
    while left:  # first those that add much
        for answers, combinations in zip(every, holds, strict=True):
            if len(new := combinations & left) >= least:
                found.append(answers)
                left -= new
        least = max(1, least // 2)
    return found


def render(variants: list[Answers]) -> Iterator[dict[str, bytes]]:
    """The files of each variant."""
    with tempfile.TemporaryDirectory() as home:
        template = snapshot(Path(home, "template"), data=True)
        for answers in variants:
            made = copy(template, Path(home, "it"), **answers)
            yield files(made)
            shutil.rmtree(made)


def table(values: list[Any], variants: list[Answers]) -> dict[str, Any]:
    """The questions that decide a value, as few as do, and the value by the answers to them.

    Where a value is None, the table has no row.
    """
    few = (itertools.combinations(ASKED, size) for size in range(STRENGTH + 1))
    for on in itertools.chain(*few, MORE):
        by: dict[str, Any] = {}
        for answers, value in zip(variants, values, strict=True):
            if by.setdefault(",".join(answers[name] for name in on), value) != value:
                break
        else:
            return {"on": on, "by": {k: v for k, v in by.items() if v is not None}}
    raise ValueError(f"depends on more than {STRENGTH} questions: name them in MORE")


def question(name: str) -> dict[str, Any]:
    """What a person is asked."""
    of = QUESTIONS[name]
    assert "when" not in of, f"{name}: the explorer asks every question"
    labels = of["choices"] if isinstance(of["choices"], dict) else choices(name)
    offered = list(zip(labels, choices(name), strict=True))
    return {"name": name, "help": of["help"], "default": of["default"], "choices": offered}


def shown(data: bytes) -> str | dict[str, Any]:
    """A text as it is; of what is no text, how it is recognised."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def known(variants: list[Answers]) -> dict[str, Any]:
    """All that the page is made of; of too few variants, it is wrong about others."""
    rendered = list(render(variants))
    contents: dict[bytes, int] = {}
    tables = {}
    for path in sorted(set().union(*rendered) - {ANSWERS_FILE}):
        values = [
            contents.setdefault(made[path], len(contents)) if path in made else None
            for made in rendered
        ]
        try:
            tables[path] = table(values, variants)
        except ValueError as error:
            raise SystemExit(f"error: website/explore.py: {path} {error}") from None
    return {
        "questions": [question(name) for name in ASKED],
        "refused": table([why or None for _, why in product()], [one for one, _ in product()]),
        "files": tables,
        "contents": [shown(data) for data in contents],
    }


def texts(known: dict[str, Any]) -> dict[str, str]:
    """The texts of the project with the default answers, by path."""
    found = {}
    for path, of in known["files"].items():
        content = of["by"].get(",".join(DEFAULT[name] for name in of["on"]))
        if content is not None and isinstance(text := known["contents"][content], str):
            found[path] = text
    return found


def write(known: dict[str, Any], to: Path) -> None:
    """As a script, since a page that is opened from the disk may read nothing else."""
    to.write_text(f"const KNOWN = {json.dumps(known, ensure_ascii=False)}\n")
