"""Proposes what `make update` did: a request to merge, or an issue with the diff.

UPDATE_TOKEN is a token of the team's that may push what the update changed, the pipelines too.
Without it, or where a person must look first, an issue is opened. make is not asked, since the
Makefile may hold a conflict.
"""

import json
import sys
from pathlib import Path
from typing import Any

import provider as _provider
from client import Failed, Provider, Stop, git

provider: Provider = _provider
REPORT = Path("reports/update.json")
MOST = 50_000
"""Characters of the diff: an issue holds 65,536 or more."""
HELPER = '!f() { test "$1" != get || printf "username=%s\\npassword=%s\\n" "$AS" "$TOKEN"; }; f'
"""git asks this for a login, so that the token stands in no address and no list of processes."""


def request(title: str, branch: str) -> None:
    """Pushes the update on a branch and asks to merge it, unless that was asked before."""
    if provider.proposed(branch):
        print(f"{branch} was proposed already")
        return
    git("switch", "--quiet", "--force-create", branch)
    git("add", "--all")
    who = ("-c", "user.name=ciclo", "-c", "user.email=ciclo@localhost")
    git(*who, "commit", "--quiet", "--message", title)
    git(
        *("-c", "credential.helper=", "-c", f"credential.helper={HELPER}"),
        *("push", "--quiet", "--force", provider.remote(), f"HEAD:refs/heads/{branch}"),
        AS=provider.USER,
        TOKEN=provider.token(),
        GIT_TERMINAL_PROMPT="0",
    )
    body = "`make update` made this. What is yours is as it was; the checks say whether all works."
    provider.propose(branch, title, body)
    print(f"{branch} is proposed")


def issue(title: str, report: dict[str, Any], why: str) -> None:
    """Opens an issue with the diff, unless one is open."""
    if provider.has_issue(title):
        print(f"an open issue says so already: {title}")
        return
    git("add", "--intent-to-add", "--all")
    names = [*report["conflicts"], *report["kept"]]
    lines = ["`make update` takes it in.", why, *(f"- for a person to look at: {n}" for n in names)]
    diff = git("diff", "HEAD")[:MOST]
    provider.open_issue(title, "\n".join([*lines, "", "~~~~~diff", diff, "~~~~~", ""]))
    print(f"an issue shows the diff: {title}")


def main() -> None:
    """Proposes what `make update` changed, as its report says."""
    try:
        report = json.loads(REPORT.read_text())
    except FileNotFoundError:
        raise Stop(f"{REPORT} is not there; run `make update` first") from None
    if not report["changed"]:
        print(f"{report['to']} is the newest version: there is nothing to propose")
        return
    title = f"Update from ciclo {report['from']} to {report['to']}"
    why = ""
    if not provider.token():
        why = "This would be a request to merge, had the pipeline the secret UPDATE_TOKEN."
    elif not (report["conflicts"] or report["kept"]):
        try:
            request(title, f"ciclo-{report['to']}")
            return
        except Failed as error:
            why = f"No request to merge could be opened: {error}"
            print(f"error: {why}", file=sys.stderr)
    issue(title, report, why)


if __name__ == "__main__":
    try:
        main()
    except Stop as error:
        sys.exit(f"error: {error}")
