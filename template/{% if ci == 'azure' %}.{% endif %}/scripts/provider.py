"""Azure DevOps, over its client az; what each function is for stands in client.py."""

import html
import json
import os
import re
from typing import Any
from urllib.parse import unquote

from client import Client, Failed, Stop, git

NAME = "Azure DevOps"
PIPELINES: tuple[str, ...] = ("ci", "cycle", "update", "rollback")
FILES = {"ci": "azure-pipelines.yml"} | {n: f".azure/{n}.yml" for n in PIPELINES[1:]}
BRANCH = "main"
RUN = "BUILD_BUILDID"
USER = "ciclo"
TOKENS = {"UPDATE_TOKEN": "pushes updates, where the build service may not contribute"}
GROUP = "ciclo"
"""The variable group that the pipelines read."""
APPROVAL = {"id": "8c6f20a7-a545-4486-9777-f762fafe0d4d", "name": "Approval"}
LOCK = {"id": "2ef31ad6-baa0-403a-8b45-2cbc9b4e5563", "name": "ExclusiveLock"}
ORIGIN = re.compile(
    r"(?:https://(?:[^@/]+@)?dev\.azure\.com/|git@ssh\.dev\.azure\.com:v3/)"
    r"(?P<org>[^/]+)/(?:(?!_git/)(?P<project>[^/]+)/)?(?:_git/)?(?P<repository>[^/]+)$"
)
az = Client("az", "https://aka.ms/azure-cli", "run `az login`, or set AZURE_DEVOPS_EXT_PAT")


def _place() -> tuple[str, str, str]:
    """The address of the organization, the project, and the repository."""
    names = ("SYSTEM_COLLECTIONURI", "SYSTEM_TEAMPROJECT", "BUILD_REPOSITORY_NAME")
    org, project, repository = (os.environ.get(name, "") for name in names)
    if org and project and repository:
        return org, project, repository
    found = ORIGIN.search(git("remote", "get-url", "origin"))
    if not found:
        raise Stop("git's remote `origin` is no repository at dev.azure.com; set it to one")
    repository = unquote(found["repository"])
    project = unquote(found["project"] or repository)
    return f"https://dev.azure.com/{found['org']}", project, repository


def _az(*command: str, stdin: str = "", **environment: str) -> Any:
    """What a command of the extension azure-devops says."""
    own = {"AZURE_DEVOPS_EXT_PAT": token()} if token() and RUN in os.environ else {}
    where = ("--org", _place()[0], "--output", "json")
    return json.loads(az(*command, *where, stdin=stdin, **own, **environment) or "null")


def _here(*command: str, **environment: str) -> Any:
    """The same, of this project."""
    return _az(*command, "--project", _place()[1], **environment)


def api(area: str, resource: str, *query: str, body: Any = None, **route: str) -> Any:
    """What a REST address answers, by the names that `az devops invoke` has for it."""
    route = {"project": _place()[1], **route}
    command = ["--area", area, "--resource", resource, "--route-parameters"]
    command += [f"{name}={value}" for name, value in route.items()]
    command += ["--query-parameters", *query] if query else []
    command += ["--http-method", "POST", "--in-file", "/dev/stdin"] if body is not None else []
    version = ("--api-version", "7.1-preview")
    return _az("devops", "invoke", *command, *version, stdin=json.dumps(body))


def _group() -> dict[str, Any]:
    """The variable group, or nothing."""
    found = _here("pipelines", "variable-group", "list", "--group-name", GROUP)
    return next((group for group in found or [] if group["name"] == GROUP), {})


def default_branch() -> str:
    found = _here("repos", "show", "--repository", _place()[2]) or {}
    return str(found.get("defaultBranch") or "").removeprefix("refs/heads/")


def names() -> set[str]:
    return set(_group().get("variables", {}))


def _set(name: str, *more: str, **environment: str) -> None:
    group = ("pipelines", "variable-group")
    first = ("--name", GROUP, "--authorize", "true", "--variables", "MADE_BY=ciclo")
    known = _group() or _here(*group, "create", *first)  # it cannot be made empty
    where = ("--group-id", str(known["id"]), "--name", name)
    _here(*group, "variable", "create", *where, *more, **environment)


def set_variable(name: str, value: str) -> None:
    _set(name, "--value", value)


def set_secret(name: str, value: str) -> None:
    """The client takes a secret from the environment."""
    _set(name, "--secret", "true", **{f"AZURE_DEVOPS_EXT_PIPELINE_VAR_{name}": value})


def _environments() -> dict[str, int]:
    return {one["name"]: one["id"] for one in api("distributedtask", "environments")["value"]}


def environments() -> set[str]:
    return set(_environments())


def create(environment: str) -> None:
    """With the lock that `lockBehavior` in the pipelines relies on."""
    api("distributedtask", "environments", body={"name": environment})
    _check(environment, LOCK, {})


def _check(environment: str, kind: dict[str, str], settings: dict[str, Any]) -> None:
    """Adds a check to an environment; it waits up to 30 days."""
    number = str(_environments()[environment])
    resource = {"type": "environment", "id": number, "name": environment}
    check = {"type": kind, "settings": settings, "resource": resource, "timeout": 43200}
    api("pipelinesChecks", "configurations", body=check)


def protected(environment: str) -> bool:
    number = _environments().get(environment)
    if number is None:
        return False
    query = ("resourceType=environment", f"resourceId={number}")
    checks = api("pipelinesChecks", "configurations", *query)["value"]
    return any(c["type"]["name"] == "Approval" and not c.get("isDisabled") for c in checks)


def protect(environment: str, reviewers: list[str]) -> None:
    """Asks one of these, by their addresses; else the one who calls this."""
    people = [_az("devops", "user", "show", "--user", name)["id"] for name in reviewers]
    if not people:
        me = ("--area", "Location", "--resource", "ConnectionData", "--api-version", "5.0-preview")
        people.append(_az("devops", "invoke", *me)["authenticatedUser"]["id"])
    settings = {
        "approvers": [{"id": person} for person in people],
        "minRequiredApprovers": 1,
        "executionOrder": 1,
        "requesterCannotBeApprover": False,
        "blockedApprovers": [],
        "instructions": "Let this run change the environment?",
    }
    _check(environment, APPROVAL, settings)


def _pipeline(name: str) -> dict[str, Any]:
    """The pipeline of this repository that reads the file, or nothing."""
    for known in api("build", "definitions", "includeAllProperties=true")["value"]:
        file = known.get("process", {}).get("yamlFilename", "").lstrip("/")
        if file == FILES[name] and known.get("repository", {}).get("name") == _place()[2]:
            return dict(known)
    return {}


def scheduled(pipeline: str) -> bool:
    return bool(_pipeline(pipeline).get("queueStatus") == "enabled")


def schedule(pipeline: str) -> None:
    if _pipeline(pipeline):
        raise Failed("it is disabled; enable it in its settings")
    repository = _place()[2]
    name = repository if pipeline == "ci" else f"{repository}-{pipeline}"
    where = ("--repository", repository, "--repository-type", "tfsgit", "--branch", BRANCH)
    more = ("--yml-path", FILES[pipeline], "--skip-first-run", "true")
    _here("pipelines", "create", "--name", name, *where, *more)


def approver(environment: str) -> str:
    """Who approved the stage that this job is of."""
    records = api("build", "timeline", buildId=os.environ[RUN])["records"]
    stage = os.environ.get("SYSTEM_STAGENAME", environment)
    above = {r["id"] for r in records if r["type"] == "Stage" and r.get("identifier") == stage}
    above |= {r["id"] for r in records if r["type"] == "Checkpoint" and r["parentId"] in above}
    names = set()
    for record in records:
        if record["type"] == "Checkpoint.Approval" and record["parentId"] in above:
            found = api("approval", "approvals", "$expand=steps", approvalId=record["id"])
            approved = [s for s in found.get("steps", []) if s["status"] == "approved"]
            names |= {step["actualApprover"]["uniqueName"] for step in approved}
    return ", ".join(sorted(names))


def starter() -> str:
    return os.environ.get("BUILD_REQUESTEDFOREMAIL") or os.environ.get("BUILD_REQUESTEDFOR", "")


def remote() -> str:
    return "origin"


def token() -> str:
    """The team's, else the job's own, if the pipeline hands it in."""
    values = (os.environ.get(name, "") for name in ("UPDATE_TOKEN", "SYSTEM_ACCESSTOKEN"))
    # What is not set arrives as the text of its macro.
    return next((value for value in values if value and not value.startswith("$(")), "")


def proposed(branch: str) -> bool:
    where = ("--repository", _place()[2], "--source-branch", branch, "--status", "all")
    return bool(_here("repos", "pr", "list", *where))


def propose(branch: str, title: str, body: str) -> None:
    where = ("--repository", _place()[2], "--source-branch", branch)
    _here("repos", "pr", "create", *where, "--title", title, "--description", body)


def has_issue(title: str) -> bool:
    if not token():
        raise Stop(
            "the update could not be proposed; hand the pipeline SYSTEM_ACCESSTOKEN: "
            "$(System.AccessToken), or set the secret UPDATE_TOKEN"
        )
    quoted = title.replace("'", "''")
    wiql = (
        f"SELECT [System.Id] FROM WorkItems WHERE [System.Title] = '{quoted}' "
        "AND [System.State] NOT IN ('Done', 'Closed', 'Removed')"
    )
    return bool(_here("boards", "query", "--wiql", wiql))


def open_issue(title: str, body: str) -> None:
    """A Task, which every process has."""
    item = ("--type", "Task", "--title", title, "--description", f"<pre>{html.escape(body)}</pre>")
    _here("boards", "work-item", "create", *item)
