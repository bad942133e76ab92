"""GitHub, over its client gh; what each function is for stands in client.py."""

import json
import os
from typing import Any

from client import Client, Failed

NAME = "GitHub"
PIPELINES: tuple[str, ...] = ("ci", "cycle", "update", "rollback")
BRANCH = "main"
RUN = "GITHUB_RUN_ID"
USER = "x-access-token"
TOKENS = {
    "UPDATE_TOKEN": "may write contents, pull requests and workflows; without it updates are issues"
}
REPOSITORY = "repos/{owner}/{repo}"
"""gh fills these in from the repository it stands in."""
gh = Client("gh", "https://cli.github.com", "run `gh auth login`, or set GH_TOKEN")


def _server(token: str = "") -> dict[str, str]:
    """What gh must know on GitHub Enterprise Server, and the token it shall use."""
    found = {"GH_TOKEN": token} if token else {}
    host = os.environ.get("GITHUB_SERVER_URL", "https://github.com").partition("://")[2]
    if host != "github.com":
        own = token or os.environ.get("GH_TOKEN", "")
        found |= {"GH_HOST": host, "GH_ENTERPRISE_TOKEN": own}
    return found


def api(path: str, method: str = "GET", body: dict[str, Any] | None = None) -> Any:
    """What GitHub answers; None where nothing is to be got."""
    more = ("--input", "-") if body is not None else ()
    try:
        said = gh("api", "--method", method, path, *more, stdin=json.dumps(body), **_server())
    except Failed as error:
        if method == "GET" and "HTTP 404" in str(error):
            return None
        raise
    return json.loads(said or "null")


def default_branch() -> str:
    return str((api(REPOSITORY) or {}).get("default_branch", ""))


def names() -> set[str]:
    """Of the repository, and what its organization shares with it."""
    found: set[str] = set()
    for kind in ("variables", "secrets"):
        for path in (kind, f"organization-{kind}"):
            command = ("api", "--paginate", f"{REPOSITORY}/actions/{path}")
            try:
                found.update(gh(*command, "--jq", f".{kind}[].name", **_server()).split())
            except Failed:
                if path == kind:
                    raise
    return found


def set_variable(name: str, value: str) -> None:
    gh("variable", "set", name, stdin=value, **_server())


def set_secret(name: str, value: str) -> None:
    gh("secret", "set", name, stdin=value, **_server())


def environments() -> set[str]:
    answer = api(f"{REPOSITORY}/environments?per_page=100") or {}
    return {environment["name"] for environment in answer.get("environments", [])}


def create(environment: str) -> None:
    api(f"{REPOSITORY}/environments/{environment}", "PUT", {})


def _rules(environment: dict[str, Any]) -> dict[str, Any]:
    return {rule["type"]: rule for rule in environment.get("protection_rules", [])}


def protected(environment: str) -> bool:
    known = api(f"{REPOSITORY}/environments/{environment}") or {}
    return bool(_rules(known).get("required_reviewers", {}).get("reviewers"))


def protect(environment: str, reviewers: list[str]) -> None:
    """Other rules stay. A plan without required reviewers answers that it has none."""
    known = api(f"{REPOSITORY}/environments/{environment}") or {}
    people = []
    for path in [f"users/{name}" for name in reviewers] or ["user"]:
        person = api(path)
        if not person:
            raise Failed(f"REVIEWERS: GitHub knows no {path}")
        people.append({"type": "User", "id": person["id"]})
    rules = {
        "wait_timer": _rules(known).get("wait_timer", {}).get("wait_timer", 0),
        "deployment_branch_policy": known.get("deployment_branch_policy"),
        "reviewers": people,
    }
    api(f"{REPOSITORY}/environments/{environment}", "PUT", rules)


def scheduled(pipeline: str) -> bool:
    known = api(f"{REPOSITORY}/actions/workflows/{pipeline}.yml") or {}
    return bool(known.get("state") == "active")


def schedule(pipeline: str) -> None:
    path = f"{REPOSITORY}/actions/workflows/{pipeline}.yml"
    if api(path) is None:
        raise Failed(f"push .github/workflows/{pipeline}.yml to the default branch first")
    api(f"{path}/enable", "PUT", {})


def approver(environment: str) -> str:
    reviews = api(f"{REPOSITORY}/actions/runs/{os.environ[RUN]}/approvals") or []
    names = {
        review["user"]["login"]
        for review in reviews
        if review["state"] == "approved"
        and environment in {known["name"] for known in review["environments"]}
    }
    return ", ".join(sorted(names))


def starter() -> str:
    return os.environ.get("GITHUB_TRIGGERING_ACTOR", "")


def remote() -> str:
    return "origin"


def token() -> str:
    return os.environ.get("UPDATE_TOKEN", "")


def proposed(branch: str) -> bool:
    found = ("--head", branch, "--state", "all", "--json", "url", "--jq", ".[].url")
    return bool(gh("pr", "list", *found, **_server(token())))


def propose(branch: str, title: str, body: str) -> None:
    command = ("--head", branch, "--title", title, "--body", body)
    gh("pr", "create", *command, **_server(token()))


def has_issue(title: str) -> bool:
    search = ("--search", f'in:title "{title}"', "--state", "open")
    return bool(gh("issue", "list", *search, "--json", "url", "--jq", ".[].url", **_server()))


def open_issue(title: str, body: str) -> None:
    gh("issue", "create", "--title", title, "--body-file", "-", stdin=body, **_server())
