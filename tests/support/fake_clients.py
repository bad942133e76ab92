"""Stands in for gh, glab and az: keeps what it is told in the file STATE, and a log of its calls.

Each answers as the real client would to the calls that scripts/provider.py makes, and to no others.
It imports little, since it is started some hundred times.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EMPTY: dict[str, Any] = {
    "values": {}, "environments": {}, "pipelines": {}, "approvals": [], "requests": [],
    "issues": [], "log": [], "known": [], "refuse": "",
    "branch": "main",
}  # fmt: skip


class No(Exception):
    """What the client says as it fails."""


def after(words: list[str], flag: str, default: str = "") -> str:
    return words[words.index(flag) + 1] if flag in words else default


def gh(state: dict[str, Any], words: list[str], stdin: str) -> Any:
    values, environments = state["values"], state["environments"]
    match words:
        case ["variable" | "secret" as kind, "set", name]:
            values[name] = {"secret": kind == "secret", "value": stdin}
        case ["pr", "list", *_]:
            return "".join(state["requests"])
        case ["pr", "create", *_]:
            state["requests"].append(after(words, "--head"))
        case ["issue", "list", *_]:
            return "".join(state["issues"])
        case ["issue", "create", *_]:
            state["issues"].append(after(words, "--title"))
            state["body"] = stdin
        case ["api", "--paginate", path, "--jq", _]:
            if "organization" in path:
                raise No("gh: Not Found (HTTP 404)")
            secret = "secrets" in path
            return "\n".join(n for n, v in values.items() if v["secret"] == secret)
        case ["api", "--method", method, path, *_]:
            assert path.startswith(("repos/{owner}/{repo}", "user")), path
            match (method, *path.removeprefix("repos/{owner}/{repo}").strip("/").split("/")):
                case ("GET", ""):
                    return {"default_branch": state["branch"]}
                case ("GET", "user"):
                    return {"id": 1, "login": "ada"}
                case ("GET", "users", name) if name in ("ada", "bo"):
                    return {"id": len(name), "login": name}
                case ("GET", "environments?per_page=100"):
                    return {"environments": [{"name": name} for name in environments]}
                case ("GET", "environments", name) if name in environments:
                    return {"name": name, "protection_rules": environments[name]}
                case ("PUT", "environments", name):
                    people = json.loads(stdin).get("reviewers")
                    rule = {"type": "required_reviewers", "reviewers": people}
                    environments[name] = [rule] if people else []
                    return {"name": name}
                case ("GET", "actions", "workflows", name) if name in state["known"]:
                    active = state["pipelines"].get(name)
                    return {"state": "active" if active else "disabled_inactivity"}
                case ("PUT", "actions", "workflows", name, "enable"):
                    state["pipelines"][name] = True
                case ("GET", "actions", "runs", "11", "approvals"):
                    return [
                        {
                            "state": "approved",
                            "user": {"login": who},
                            "environments": [{"name": "production"}],
                        }
                        for who in state["approvals"]
                    ] + [{"state": "rejected", "user": {"login": "eve"}, "environments": []}]
                case _:
                    raise No("gh: Not Found (HTTP 404)")
        case _:
            raise No(f"unknown command {words}")
    return None


def glab(state: dict[str, Any], words: list[str], stdin: str) -> Any:
    values, environments, pipelines = state["values"], state["environments"], state["pipelines"]
    if words[:2] == ["variable", "set"]:
        values[words[2]] = {"secret": "--masked" in words, "value": stdin}
        return ""
    assert words[0] == "api", words
    path, _, query = words[1].partition("?")
    method, body = after(words, "--method", "GET"), json.loads(stdin or "null")
    match (method, *path.removeprefix("projects/").split("/")[path.startswith("projects/") :]):
        case ("GET",):
            space = {"kind": "group", "full_path": "a/b"}
            return {"default_branch": state["branch"], "namespace": space}
        case ("GET", "users"):
            return [{"id": 2}] if query in ("username=ada", "username=bo") else []
        case ("GET", "variables"):
            return [{"key": name} for name in values]
        case ("GET", "groups", "a", "variables"):
            raise No("glab: 403 Forbidden (HTTP 403)")
        case ("GET", "groups", "a%2Fb", "variables"):
            return [{"key": "DATA_URI"}]
        case ("GET", "environments"):
            return [{"name": name} for name in environments]
        case ("POST", "environments"):
            environments[body["name"]] = []
        case ("GET", "protected_environments", name) if environments.get(name):
            return {"name": name, "deploy_access_levels": environments[name]}
        case ("POST", "protected_environments"):
            environments[body["name"]] = body["deploy_access_levels"]
            return {"name": body["name"]}
        case ("GET", "pipeline_schedules"):
            return [{"id": name} for name in pipelines]
        case ("GET", "pipeline_schedules", name):
            return {"id": name, "variables": pipelines[name]}
        case ("POST", "pipeline_schedules"):
            number = str(len(pipelines) + 1)
            pipelines[number] = []
            return {"id": number}
        case ("POST", "pipeline_schedules", name, "variables"):
            pipelines[name].append(body)
        case ("GET", "deployments"):
            return [{"id": 5, "deployable": {"id": 10}}, {"id": 6, "deployable": {"id": 11}}]
        case ("GET", "deployments", "6"):
            users = [{"status": "approved", "user": {"username": n}} for n in state["approvals"]]
            return {"approvals": users}
        case ("GET", "merge_requests"):
            return state["requests"]
        case ("POST", "merge_requests"):
            state["requests"].append(body["source_branch"])
        case ("GET", "issues"):
            return [
                {"title": title} for title in state["issues"] if title in query.replace("%20", " ")
            ]
        case ("POST", "issues"):
            state["issues"].append(body["title"])
            state["body"] = body["description"]
        case _:
            raise No("glab: 404 Not Found (HTTP 404)")
    return None


def az(state: dict[str, Any], words: list[str], stdin: str) -> Any:
    values, environments = state["values"], state["environments"]
    assert after(words, "--org") == "https://dev.azure.com/org", words
    where = " ".join(words[: words.index("--org")])
    body = json.loads(stdin or "null")
    if words[:2] == ["devops", "invoke"]:
        route = f"{after(words, '--area')}/{after(words, '--resource')}"
        match route:
            case "distributedtask/environments" if body:
                environments[body["name"]] = []
            case "distributedtask/environments":
                return {"value": [{"name": n, "id": i} for i, n in enumerate(environments)]}
            case "pipelinesChecks/configurations" if body:
                environments[body["resource"]["name"]].append(body)
            case "pipelinesChecks/configurations":
                number = int(words[words.index("resourceType=environment") + 1].split("=")[1])
                return {"value": list(environments.values())[number]}
            case "Location/ConnectionData":
                return {"authenticatedUser": {"id": "me"}}
            case "build/definitions":
                return {
                    "value": [
                        {
                            "process": {"yamlFilename": f"/{file}"},
                            "queueStatus": "enabled",
                            "repository": {"name": "it"},
                        }
                        for file in state["pipelines"]
                    ]
                }
            case "build/timeline":
                assert "buildId=11" in words
                return {
                    "records": [
                        {"id": "a", "type": "Stage", "identifier": "production"},
                        {"id": "b", "type": "Checkpoint", "parentId": "a"},
                        {"id": "c", "type": "Checkpoint.Approval", "parentId": "b"},
                        {"id": "d", "type": "Stage", "identifier": "staging"},
                        {"id": "e", "type": "Checkpoint", "parentId": "d"},
                        {"id": "f", "type": "Checkpoint.Approval", "parentId": "e"},
                    ]
                }
            case "approval/approvals" if "approvalId=c" in words:
                users = [
                    {"status": "approved", "actualApprover": {"uniqueName": name}}
                    for name in state["approvals"]
                ]
                return {"steps": users}
            case _:
                raise No(f"unknown route {route}")
        return {}
    known = [{"name": "ciclo", "id": 3, "variables": values}] if values else []
    match words[:4]:
        case ["repos", "show", "--repository", "it"]:
            return {"defaultBranch": state["branch"] and f"refs/heads/{state['branch']}"}
        case ["pipelines", "variable-group", "list", _]:
            return known
        case ["pipelines", "variable-group", "create", _]:
            values["MADE_BY"] = {"secret": False, "value": "ciclo"}
            return {"name": "ciclo", "id": 3}
        case ["pipelines", "variable-group", "variable", "create"]:
            name = after(words, "--name")
            secret = os.environ.get(f"AZURE_DEVOPS_EXT_PIPELINE_VAR_{name}", "")
            values[name] = {"secret": "--secret" in words, "value": after(words, "--value", secret)}
        case ["pipelines", "create", *_]:
            state["pipelines"][after(words, "--yml-path")] = True
        case ["devops", "user", "show", _]:
            return {"id": after(words, "--user")}
        case ["repos", "pr", "list", _]:
            return state["requests"]
        case ["repos", "pr", "create", _]:
            state["requests"].append(after(words, "--source-branch"))
        case ["boards", "query", *_]:
            return [title for title in state["issues"] if title in where]
        case ["boards", "work-item", "create", _]:
            state["issues"].append(after(words, "--title"))
            state["body"] = after(words, "--description")
        case _:
            raise No(f"unknown command {words}")
    return {}


def main() -> None:
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    kept = Path(os.environ["STATE"])
    state = EMPTY | json.loads(kept.read_text())
    stdin = sys.stdin.read()
    tokens = ("GH_TOKEN", "GITLAB_TOKEN", "AZURE_DEVOPS_EXT_PAT")
    token = next((os.environ[t] for t in tokens if t in os.environ), "")
    state["log"].append({"token": token, "words": words})
    code = 0
    try:
        if state["refuse"] and state["refuse"] in " ".join(words):
            raise No(state["says"])
        said = {"gh": gh, "glab": glab, "az": az}[name](state, words, stdin)
        print(said if isinstance(said, str) else json.dumps(said))
    except No as error:
        print(error, file=sys.stderr)
        code = 1
    kept.write_text(json.dumps(state))
    sys.exit(code)
