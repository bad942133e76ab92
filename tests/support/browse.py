# /// script
# dependencies = ["playwright==1.65.2"]
# ///
"""Uses the site in a browser, by keyboard, or makes the picture of the docs.

usage: uv run --script browse.py BROWSER SITE [PICTURE]
"""

import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def choose(page: Page, question: str, answer: str) -> None:
    """Goes to a question with Tab, and types the beginning of an answer."""
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == f"answers-{question}":
            page.keyboard.type(answer)
            return
    raise AssertionError(f"Tab does not reach {question}")


def explore(page: Page, site: str) -> None:
    """Answers, reads the command, opens a file, meets a refusal, compares, and shares."""
    page.goto(f"{site}/explorer/index.html")
    expect(page.get_by_role("combobox", name="Where do the pipelines run?")).to_be_visible()
    choose(page, "ci", "GitLab")
    command = page.locator("#command")
    expect(command).to_contain_text("--data ci=gitlab")
    expect(page.get_by_role("treeitem", name=".gitlab-ci.yml")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("files")

    page.get_by_role("tree").locator("[tabindex='0']").focus()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")  # opens the first folder
    expect(page.get_by_role("treeitem", expanded=True)).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("treeitem", selected=True)).to_be_focused()
    expect(page.locator("#path")).to_have_text(".devcontainer/devcontainer.json")
    expect(page.locator("#content")).to_contain_text("image")

    page.reload()
    choose(page, "docker_base", "micromamba")
    expect(page.get_by_role("alert")).to_contain_text("micromamba is for env_manager conda")
    expect(command).to_be_hidden()
    page.wait_for_timeout(1500)  # until what is typed is a new word
    page.keyboard.type("Slim")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(command).to_be_visible()

    page.get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    other = page.get_by_role("combobox", name="Where do the pipelines run? The other answers")
    other.focus()
    page.keyboard.type("Nowhere")
    expect(page.get_by_role("status")).to_contain_text("Files that differ")
    expect(page.get_by_role("columnheader", name="The other answers")).to_be_visible()
    assert page.locator("ins, del").count() > 0

    shown = page.locator("#made").inner_text()
    shared = page.context.new_page()
    shared.goto(page.url)
    assert shared.locator("#made").inner_text() == shown, "the address holds what is shown"


def search(page: Page, site: str) -> None:
    """Finds a page from the disk."""
    page.goto(f"{site}/index.html")
    page.keyboard.press("Control+k")
    page.wait_for_timeout(500)
    page.keyboard.type("kubernetes")
    expect(page.get_by_role("option").filter(has_text="Kubernetes").first).to_be_visible()


def photograph(page: Page, site: str, picture: str) -> None:
    """Shows what two answers change."""
    page.set_viewport_size({"width": 1280, "height": 720})
    others = "other.ci=gitlab&other.docker_base=distroless"
    page.goto(f"{site}/explorer/index.html#compare=1&{others}&file=Dockerfile")
    page.screenshot(path=picture)


def main(browser: str, folder: str, picture: str = "") -> None:
    """Fails where something is not as it should be, or is asked of another machine."""
    site = Path(folder).resolve().as_uri()
    wrong: list[str] = []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        page = opened.new_context().new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith("file:") else wrong.append(r.url))
        if picture:
            photograph(page, site, picture)
        else:
            explore(page, site)
            search(page, site)
        opened.close()
    assert not wrong, wrong


if __name__ == "__main__":
    main(*sys.argv[1:])
