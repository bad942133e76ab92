"""The pages of commands and settings, read from the files of a project."""

import ast
import json
import re
from collections.abc import Iterator

MAKEFILES = ("Makefile", "registry.mk", "image.mk", "deploy.mk", "ci.mk")
"""In the order in which `make help` reads them."""


def commands(files: dict[str, str]) -> str:
    """A table for each part of `make help`."""
    page = ["# Commands", "", "What `make help` shows in a project with the default answers."]
    page += ["The Makefile says how each works."]
    for name in MAKEFILES:
        for line in files[name].splitlines():
            if line.startswith("##@ "):
                page += ["", f"## {line[4:]}", "", "| command | what it does |", "| --- | --- |"]
            elif found := re.match(r"([a-z-]+):.*?## (.*)", line):
                page.append(f"| `make {found[1]}` | {_cell(found[2])} |")
    return "\n".join(page) + "\n"


def settings(files: dict[str, str]) -> str:
    """A table for each section of settings.toml."""
    code = next(text for path, text in files.items() if path.endswith("/settings.py"))
    page = [
        "# Settings",
        "",
        "`settings.toml` replaces a default, an environment variable that, and a flag both.",
        "`port` of `[serving]` in the file is `SERVING_PORT` in the environment.",
    ]
    for section in ast.parse(code).body:
        if not isinstance(section, ast.ClassDef):
            continue
        if found := re.match(r"\[(\w+)\]: (.*)", ast.get_docstring(section) or "", re.DOTALL):
            page += ["", f"## [{found[1]}]", "", _sentence(found[2]), ""]
            page += ["| setting | default | |", "| --- | --- | --- |"]
            page += [f"| `{n}` | {d} | {_cell(why)} |" for n, d, why in _fields(section)]
    return "\n".join(page) + "\n"


def _fields(section: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Each field of a class: its name, its default, and the text below it."""
    for line, below in zip(section.body, [*section.body[1:], None], strict=True):
        if not isinstance(line, ast.AnnAssign):
            continue
        text = ast.literal_eval(below.value) if isinstance(below, ast.Expr) else ""
        yield ast.unparse(line.target), _default(line.value), text


def _default(value: ast.expr | None) -> str:
    """As it would stand in settings.toml; empty for none."""
    assert value, "every setting has a default"
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("Field", "Path"):
        value = value.args[0]
    try:
        literal = ast.literal_eval(value)
    except ValueError:
        return "computed"
    return "" if literal is None else f"`{json.dumps(literal)}`"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
