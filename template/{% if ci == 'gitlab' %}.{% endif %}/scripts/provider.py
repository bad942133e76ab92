"""GitLab, over its client glab; what each function is for stands in client.py."""

import json
import os
from typing import Any
from urllib.parse import quote

from client import Client, Failed, Stop

NAME = "GitLab"
PIPELINES: tuple[str, ...] = ("cycle", "update")
BRANCH = ""
RUN = "CI_JOB_ID"
USER = "oauth2"
TOKENS = {
    "CI_TOKEN": "reads who may and did approve: a project access token, read_api, Maintainer",
    "UPDATE_TOKEN": "pushes updates: a project access token, api and write_repository",
}
ADVICE = (
    "set the CI/CD variable UPDATE_TOKEN to a project access token with the scopes api and "
    "write_repository"
)
CRON = {"cycle": "17 5 * * *", "update": "41 4 * * 1"}
PROJECT = f"projects/{os.environ.get('CI_PROJECT_ID', ':fullpath')}"
"""Outside pipelines glab fills this in from the repository it stands in."""
glab = Client(
    "glab", "https://gitlab.com/gitlab-org/cli", "run `glab auth login`, or set the token CI_TOKEN"
)


def _server(token: str = "") -> dict[str, str]:
    """What glab must know in a pipeline, and the token it shall use."""
    host = os.environ.get("CI_SERVER_HOST", "")
    own = token or (os.environ.get("CI_TOKEN", "") if RUN in os.environ else "")
    return ({"GITLAB_HOST": host} if host else {}) | ({"GITLAB_TOKEN": own} if own else {})


def api(path: str, body: dict[str, Any] | None = None, token: str = "") -> Any:
    """What GitLab answers; None where nothing is to be got. With a body it makes something."""
    head = ("--header", "Content-Type: application/json")
    more = ("--method", "POST", *head, "--input", "-") if body is not None else ()
    try:
        said = glab("api", path, *more, stdin=json.dumps(body), **_server(token))
    except Failed as error:
        if body is None and "HTTP 404" in str(error):
            return None
        raise
    return json.loads(said or "null")


def default_branch() -> str:
    return str((api(PROJECT) or {}).get("default_branch") or "")


def names() -> set[str]:
    """Of the project, and of the groups above it where this user may see them."""
    found = {one["key"] for one in api(f"{PROJECT}/variables?per_page=100") or []}
    space = (api(PROJECT) or {}).get("namespace", {})
    groups = space.get("full_path", "").split("/") if space.get("kind") == "group" else []
    for depth in range(len(groups)):
        group = quote("/".join(groups[: depth + 1]), safe="")
        try:
            found |= {one["key"] for one in api(f"groups/{group}/variables?per_page=100") or []}
        except Failed:
            continue
    return found


def set_variable(name: str, value: str) -> None:
    """Merge requests see the data and the runners, and nothing else."""
    more = () if name in ("DATA_URI", "RUNNER") else ("--protected",)
    glab("variable", "set", name, "--raw", *more, stdin=value, **_server())


def set_secret(name: str, value: str) -> None:
    """Masked in logs, and only seen by protected branches."""
    glab("variable", "set", name, "--raw", "--masked", "--protected", stdin=value, **_server())


def environments() -> set[str]:
    return {one["name"] for one in api(f"{PROJECT}/environments?per_page=100") or []}


def create(environment: str) -> None:
    api(f"{PROJECT}/environments", {"name": environment})


def protected(environment: str) -> bool:
    """Who may deploy is limited; the manual job that they start is their approval."""
    known = api(f"{PROJECT}/protected_environments/{environment}") or {}
    return bool(known.get("deploy_access_levels"))


def protect(environment: str, reviewers: list[str]) -> None:
    """Without names, Maintainers. A plan without protected environments answers 404."""
    levels: list[dict[str, Any]] = [] if reviewers else [{"access_level": 40}]
    for name in reviewers:
        people = api(f"users?username={quote(name)}")
        if not people:
            raise Failed(f"REVIEWERS: GitLab knows no user {name}")
        levels.append({"user_id": people[0]["id"]})
    body = {"name": environment, "deploy_access_levels": levels}
    try:
        api(f"{PROJECT}/protected_environments", body)
    except Failed as error:
        why = "; protected environments need Premium" if "HTTP 404" in str(error) else ""
        raise Failed(f"{error}{why}") from None


def scheduled(pipeline: str) -> bool:
    """Whether an active schedule has SCHEDULE=pipeline, which the jobs look at."""
    for known in api(f"{PROJECT}/pipeline_schedules?per_page=100&scope=active") or []:
        details = api(f"{PROJECT}/pipeline_schedules/{known['id']}") or {}
        variables = {v["key"]: v["value"] for v in details.get("variables", [])}
        if variables.get("SCHEDULE") == pipeline:
            return True
    return False


def schedule(pipeline: str) -> None:
    branch = default_branch() or "main"
    body = {"description": f"ciclo: {pipeline}", "ref": branch, "cron": CRON[pipeline]}
    made = api(f"{PROJECT}/pipeline_schedules", body)
    variable = {"key": "SCHEDULE", "value": pipeline}
    api(f"{PROJECT}/pipeline_schedules/{made['id']}/variables", variable)


def approver(environment: str) -> str:
    """Who approved the deployment of this job, else who started it, if by hand."""
    newest = f"deployments?environment={environment}&order_by=id&sort=desc&per_page=20"
    for known in api(f"{PROJECT}/{newest}") or []:
        if str((known.get("deployable") or {}).get("id")) == os.environ[RUN]:
            approvals = api(f"{PROJECT}/deployments/{known['id']}").get("approvals") or []
            names = {a["user"]["username"] for a in approvals if a["status"] == "approved"}
            if names:
                return ", ".join(sorted(names))
    return starter() if os.environ.get("CI_JOB_MANUAL") == "true" else ""


def starter() -> str:
    return os.environ.get("GITLAB_USER_LOGIN", "")


def remote() -> str:
    """Not the job's own origin, which has a token in it that may not push."""
    address = os.environ.get("CI_PROJECT_URL", "")
    return f"{address}.git" if address else "origin"


def token() -> str:
    return os.environ.get("UPDATE_TOKEN", "")


def proposed(branch: str) -> bool:
    return bool(api(f"{PROJECT}/merge_requests?state=all&source_branch={branch}", token=token()))


def propose(branch: str, title: str, body: str) -> None:
    into = os.environ.get("CI_DEFAULT_BRANCH", "main")
    request = {"source_branch": branch, "target_branch": into, "title": title, "description": body}
    api(f"{PROJECT}/merge_requests", request, token())


def _speaker() -> str:
    """The token that may open an issue; a job's own may not."""
    found = token() or os.environ.get("CI_TOKEN", "")
    if not found:
        raise Stop(f"the update could not be proposed; {ADVICE}")
    return found


def has_issue(title: str) -> bool:
    query = f"issues?state=opened&in=title&search={quote(title)}"
    found = api(f"{PROJECT}/{query}", token=_speaker()) or []
    return any(one["title"] == title for one in found)


def open_issue(title: str, body: str) -> None:
    try:
        api(f"{PROJECT}/issues", {"title": title, "description": body}, _speaker())
    except Failed as error:
        raise Stop(f"{error}; {ADVICE}") from None
