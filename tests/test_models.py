"""docs/models.md says which common models are served, and in which format.

`python tests/test_models.py --write FORMAT OUT.json` takes over what tests/engine/models.py found.
"""

import json
import re
import sys
from pathlib import Path

import pytest
from harness import ROOT
from running_project import project
from variants import choices

PAGE = ROOT / "docs" / "models.md"
SCRIPT = ROOT / "tests" / "engine" / "models.py"
FORMATS = ("onnx", "skops")
HEAD = "| model | ONNX | skops |\n| --- | --- | --- |\n"


def table() -> dict[str, dict[str, str]]:
    """What the page says: by model and format."""
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: dict(zip(FORMATS, told, strict=True)) for name, *told in rows[2:]}


def write(format: str, found: dict[str, str]) -> None:
    """Puts what was found into the page; a model that was not tried keeps its row."""
    known = table()
    for name, said in found.items():
        known.setdefault(name, dict.fromkeys(FORMATS, "not tried"))[format] = said
    lines = [f"| {name} | {told['onnx']} | {told['skops']} |\n" for name, told in known.items()]
    before, _, after = PAGE.read_text().partition(HEAD)
    rest = re.sub(r"\A(\|.*\n)*", "", after)
    PAGE.write_text(before + HEAD + "".join(lines) + rest)


def test_the_page_names_each_format():
    assert set(FORMATS) == set(choices("serving_format"))
    assert table()
    assert not [name for name, told in table().items() if "FAILED" in "".join(told.values())]


@pytest.mark.heavy(3)
@pytest.mark.xdist_group("engine")
@pytest.mark.parametrize("format", FORMATS)
def test_each_model_is_served_as_trained_or_refused_in_a_line(engine, format):
    made = project(engine.folder.parent / f"models-{format}", serving_format=format)
    made.run(f"{engine.folder}/.venv/bin/python {SCRIPT} models.json")
    found = json.loads((made.folder / "models.json").read_text())
    assert len(found) > 40
    assert {name: table().get(name, {}).get(format) for name in found} == found, (
        f"python tests/test_models.py --write {format} {made.folder}/models.json"
    )


if __name__ == "__main__":
    _, _, format, out = sys.argv
    write(format, json.loads(Path(out).read_text()))
