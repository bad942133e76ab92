"""Proposes what `make update` did, with GitHub's client: a pull request, or an issue with the diff.

UPDATE_TOKEN is a token of the team's that may write contents, pull requests and workflows: the
token of a workflow may not push workflow files. Without it, or where a person must look first, an
issue is opened with GH_TOKEN. make is not asked, since the Makefile may hold a conflict.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPORT = Path("reports/update.json")
BODY = Path("reports/update.md")
MOST = 50_000
"""Characters of the diff: an issue holds 65,536."""


def run(*command: str, token: str = "") -> str:
    """What a command says; raises CalledProcessError when it fails."""
    environment = os.environ | ({"GH_TOKEN": token} if token else {})
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout.strip()


def pull_request(title: str, branch: str, token: str) -> None:
    """Pushes the update on a branch and opens the request, unless there is or was one."""
    found = ("--head", branch, "--state", "all", "--json", "url", "--jq", ".[].url")
    if run("gh", "pr", "list", *found, token=token):
        print(f"{branch} was proposed already")
        return
    run("gh", "auth", "setup-git", token=token)
    run("git", "switch", "--quiet", "--force-create", branch)
    run("git", "add", "--all")
    who = ("-c", "user.name=ciclo", "-c", "user.email=ciclo@localhost")
    run("git", *who, "commit", "--quiet", "--message", title)
    run("git", "push", "--quiet", "--force", "origin", branch, token=token)
    body = "`make update` made this. What is yours is as it was; the checks say whether all works."
    run("gh", "pr", "create", "--head", branch, "--title", title, "--body", body, token=token)


def issue(title: str, report: dict[str, Any], why: str) -> None:
    """Opens an issue with the diff, unless one is open."""
    search = ("--search", f'in:title "{title}"', "--state", "open")
    if run("gh", "issue", "list", *search, "--json", "url", "--jq", ".[].url"):
        print(f"an open issue says so already: {title}")
        return
    run("git", "add", "--intent-to-add", "--all")
    names = [*report["conflicts"], *report["kept"]]
    lines = ["`make update` takes it in.", why, *(f"- for a person to look at: {n}" for n in names)]
    diff = run("git", "diff", "HEAD")[:MOST]
    BODY.write_text("\n".join([*lines, "", "~~~~~diff", diff, "~~~~~", ""]))
    run("gh", "issue", "create", "--title", title, "--body-file", str(BODY))


def main() -> None:
    try:
        report = json.loads(REPORT.read_text())
    except FileNotFoundError:
        sys.exit(f"error: {REPORT} is not there; run `make update` first")
    if not report["changed"]:
        print(f"{report['to']} is the newest version: there is nothing to propose")
        return
    title = f"Update from ciclo {report['from']} to {report['to']}"
    token, why = os.environ.get("UPDATE_TOKEN", ""), ""
    if not token:
        why = "This would be a pull request, had the workflow the secret UPDATE_TOKEN."
    elif not (report["conflicts"] or report["kept"]):
        try:
            pull_request(title, f"ciclo-{report['to']}", token)
            return
        except subprocess.CalledProcessError as error:
            why = f"No pull request could be opened: `{' '.join(error.cmd[:3])}` failed."
            print(f"error: {why}", file=sys.stderr)
    issue(title, report, why)


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename} is not installed; see https://cli.github.com for gh")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: `{' '.join(error.cmd[:3])}` failed")
