"""A stand-in for a W&B server, for tests: on loopback, in memory, as far as our registry asks.

The client sends GraphQL through a process of its own, so nothing inside Python's HTTP sees it: this
is a real server. It reads each query, walks it over the objects below, and answers only the fields
they have; what is unknown is refused and kept in `refused`, for a test to fail on. `met` is which
operations real clients sent. It knows two users, by key: ADMIN, an admin of the registry, and
MEMBER, who may not change an alias that is protected. By itself: `python wandb_server.py PORT`.
"""

import base64
import copy
import hashlib
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import unquote

ADMIN, MEMBER = "a" * 40, "b" * 40
TEAM, ORGANIZATION, ORG_ENTITY = "team", "Organization", "organization-entity"
REGISTRY = "wandb-registry-model"
FEATURES = [
    "ARTIFACT_TAGS",
    "CLIENT_IDS",
    "ARTIFACT_REGISTRY_SEARCH",
    "ARTIFACT_COLLECTION_MEMBERSHIP_FILES",
    "INCLUDE_ARTIFACT_TYPES_IN_REGISTRY_CREATION",
    "PROJECT_ARTIFACT_COLLECTION_MEMBERSHIP",
    "ARTIFACT_MEMBERSHIP_IN_LINK_ARTIFACT_RESPONSE",
    "TOTAL_COUNT_IN_FILE_CONNECTION",
    "ARTIFACT_DIGEST_ALGORITHM",
]
NOW = count(1)


class Refused(Exception):
    """What the server does not do, or does not let this user do; `status` is HTTP's."""

    def __init__(self, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.status = status


# QUERIES: read into trees, then walked

TOKEN = re.compile(r'\s+|,|#[^\n]*|(\.\.\.|[!$():=@\[\]{}|]|"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|\w+)')


class Reader:
    """One GraphQL document: its operation, its variables' defaults, and its fragments."""

    def __init__(self, text: str) -> None:
        self.tokens = [t for t in TOKEN.findall(text) if t] + [""]
        self.at = 0
        self.defaults: dict[str, Any] = {}
        self.fragments: dict[str, list[Any]] = {}
        self.operation, self.kind, self.fields = "", "", []
        while word := self.take():
            if word == "fragment":
                name = self.take()
                self.expect("on")
                self.take()
                self.fragments[name] = self.selection()
            else:
                self.kind, self.operation = word, self.take()
                if self.peek() == "(":
                    self.variables()
                self.fields = self.selection()

    def peek(self) -> str:
        return self.tokens[self.at]

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, token: str) -> None:
        if (found := self.take()) != token:
            raise Refused(f"query: {token} expected, not {found}", 400)

    def variables(self) -> None:
        self.expect("(")
        while self.peek() != ")":
            self.expect("$")
            name = self.take()
            self.expect(":")
            while self.peek() not in {"$", ")", "="}:
                self.take()
            if self.peek() == "=":
                self.take()
                self.defaults[name] = self.value()
        self.take()

    def value(self) -> Any:
        """A literal, or a function of the variables."""
        token = self.take()
        if token == "$":
            name = self.take()
            return lambda given: given.get(name)
        if token == "[":
            items = []
            while self.peek() != "]":
                items.append(self.value())
            self.take()
            return items
        if token == "{":
            made = {}
            while self.peek() != "}":
                key = self.take()
                self.expect(":")
                made[key] = self.value()
            self.take()
            return made
        try:
            return json.loads(token)
        except ValueError:
            return token  # an enum

    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.peek() == "(":
            self.take()
            while self.peek() != ")":
                name = self.take()
                self.expect(":")
                found[name] = self.value()
            self.take()
        return found

    def selection(self) -> list[Any]:
        """Fields, each (key, name, arguments, included, fields); key "" is a part to merge."""
        self.expect("{")
        found: list[Any] = []
        while self.peek() != "}":
            name = self.take()
            if name == "...":
                kind = ""
                if self.peek() == "on":
                    self.take()
                    kind = self.take()
                    found.append(("", kind, {}, True, self.selection()))
                else:
                    found.append(("", "", {}, True, self.take()))
                continue
            key = name
            if self.peek() == ":":
                self.take()
                name = self.take()
            arguments, included = self.arguments(), True
            while self.peek() == "@":
                self.take()
                self.expect("include")
                included = self.arguments()["if"]
            found.append(
                (key, name, arguments, included, self.selection() if self.peek() == "{" else None)
            )
        self.take()
        return found


def filled(value: Any, given: dict[str, Any]) -> Any:
    """A value with the variables in it."""
    if callable(value):
        return value(given)
    if isinstance(value, dict):
        return {key: filled(inner, given) for key, inner in value.items()}
    return [filled(inner, given) for inner in value] if isinstance(value, list) else value


def walk(thing: Any, fields: list[Any] | None, reader: Reader, given: dict[str, Any]) -> Any:
    """What a query's fields are of a thing: an object, a dictionary, a list, or a value."""
    if fields is None or thing is None:
        return thing
    if isinstance(thing, list):
        return [walk(item, fields, reader, given) for item in thing]
    found: dict[str, Any] = {}
    for key, name, arguments, included, inner in fields:
        if not filled(included, given):
            continue
        if not key:
            if not name or name == type(thing).__name__:
                part = reader.fragments[inner] if isinstance(inner, str) else inner
                found |= walk(thing, part, reader, given)
            continue
        if name == "__typename":
            found[key] = (
                type(thing).__name__ if not isinstance(thing, dict) else thing.get(name, "")
            )
            continue
        of = "query" if isinstance(thing, Server) else type(thing).__name__
        missing = Refused(f"unknown field {name} of {of}, asked by {reader.operation}", 400)
        if isinstance(thing, dict):
            if name not in thing:
                raise missing
            value = thing[name]
        else:
            if name.startswith("_") or not hasattr(thing, name):
                raise missing
            value = getattr(thing, name)
        if callable(value):
            value = value(**filled(arguments, given))
        found[key] = walk(value, inner, reader, given)
    return found


def pages(items: list[Any], first: int | None, after: str | None, **more: Any) -> dict[str, Any]:
    """A page of what is asked for, as connections are."""
    start = int(after or 0)
    end = start + (first or 50)
    return {
        "totalCount": len(items),
        "edges": [{"node": item, "cursor": str(start + i + 1)} | (
            {"version": f"v{more['version'](item)}"} if "version" in more else {}
        ) for i, item in enumerate(items[start:end])],
        "pageInfo": {"__typename": "PageInfo", "endCursor": str(min(end, len(items))),
                     "hasNextPage": end < len(items)},
    }  # fmt: skip


def stamp() -> str:
    """The time, such that no two are the same."""
    return datetime.now(UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{next(NOW) % 10**6:06}Z")


def coded(text: str) -> str:
    """An id, as this server's look."""
    return base64.b64encode(text.encode()).decode()


# OBJECTS: their attributes and methods are the fields that a query may ask for


class Project:
    """A project of an entity; a registry is one of the organization's."""

    def __init__(self, entity: str, name: str) -> None:
        self.name, self.entityName = name, entity
        self.internalId = str(next(NOW))
        self.id = coded(f"Project:{self.internalId}")
        self.description, self.access = "", "RESTRICTED"
        self.createdAt = self.updatedAt = stamp()
        self.allowAllArtifactTypesInRegistry = True
        self.entity = {"id": coded(entity), "name": entity, "organization": organization()}
        self._runs: dict[str, Run] = {}
        self._collections: dict[str, ArtifactCollection] = {}
        self._server: Server

    def readOnly(self) -> bool:
        return self.name in self._server.read_only and not self._server.user()["admin"]

    def run(self, name: str) -> "Run | None":
        return self._runs.get(name)

    bucket = run

    def artifactTypes(self, includeAll: bool) -> dict[str, Any]:
        return {"edges": [{"node": {"name": "model"}}]}

    def runCount(self, filters: str | None = None) -> int:
        return len(self._found(filters))

    def runs(
        self, filters: str | None, after: str | None, first: int | None, order: str | None
    ) -> dict[str, Any]:
        if order not in {None, "+created_at"}:
            raise Refused(f"unknown order {order}", 400)
        return pages(self._found(filters), first, after)

    def _found(self, filters: str | None) -> list["Run"]:
        wanted = json.loads(filters or "{}")
        for path in wanted:
            if not re.fullmatch(r"config\.\w+\.value", path):
                raise Refused(f"unknown filter {path}", 400)
        return [
            run
            for run in self._server.settled(list(self._runs.values()))
            if all(
                json.loads(run.config).get(path.split(".")[1], {}).get("value") == value
                for path, value in wanted.items()
            )
        ]

    def artifactType(self, name: str) -> dict[str, Any]:
        def collection(name: str) -> ArtifactCollection | None:
            return self._collections.get(name)

        return {"name": name, "artifactCollection": collection}

    def artifactCollection(self, name: str) -> "ArtifactCollection | None":
        return self._collections.get(name)

    def artifact(self, name: str) -> "Artifact | None":
        member = self.artifactCollectionMembership(name)
        return member.artifact if member else None

    def artifactCollectionMembership(self, name: str) -> "ArtifactCollectionMembership | None":
        collection, _, alias = name.partition(":")
        found = self._collections.get(collection)
        return found.artifactMembership(alias or "latest") if found else None


class Run:
    """A run, whose config and summary are JSON."""

    def __init__(self, project: Project, name: str) -> None:
        self.project, self.name = project, name
        self.projectId = project.internalId
        self.id = coded(f"Run:v1:{name}:{project.name}:{project.entityName}")
        self.displayName, self.state = name, "running"
        self.config = self.summaryMetrics = self.systemMetrics = "{}"
        self.description = self.notes = self.jobType = self.group = self.commit = None
        self.sweepName = None
        self.tags: list[str] = []
        self.createdAt = self.heartbeatAt = stamp()
        self.historyLineCount = 0
        self.historyKeys = None
        self.readOnly = False
        self.user = {"name": "me", "username": "me"}
        self._at = time.monotonic()
        self._files: dict[str, bytes] = {}


class ArtifactCollection:
    """Versions under a name: a sequence where runs log them, a portfolio where they are linked."""

    def __init__(self, project: Project, name: str, kind: str) -> None:
        self.id = coded(f"ArtifactCollection:{next(NOW)}")
        self.project, self.name, self.description = project, name, None
        self.createdAt = self.updatedAt = stamp()
        self.defaultArtifactType = {"name": kind}
        self.digestAlgorithm = "MANIFEST_MD5"
        self.tags: dict[str, Any] = {"edges": []}
        self._members: list[ArtifactCollectionMembership] = []
        self._next = 0

    def artifacts(
        self, after: str | None, first: int | None, order: str | None, filters: str | None
    ) -> dict[str, Any]:
        if order is not None or json.loads(filters or "{}") != {"state": "COMMITTED"}:
            raise Refused(f"unknown order {order} or filter {filters}", 400)
        members = self.project._server.settled(self._members)
        index = {id(member.artifact): member.versionIndex for member in members}
        newest = [member.artifact for member in reversed(members)]
        return pages(newest, first, after, version=lambda artifact: index[id(artifact)])

    def artifactMembership(self, aliasName: str) -> "ArtifactCollectionMembership | None":
        for member in self._members:
            if aliasName in {f"v{member.versionIndex}", *member._aliases}:
                return member
        return None

    def latestArtifact(self) -> "Artifact | None":
        return self._members[-1].artifact if self._members else None

    def _join(self, artifact: "Artifact") -> "ArtifactCollectionMembership":
        for member in self._members:
            if member.artifact is artifact:
                return member
        made = ArtifactCollectionMembership(self, artifact, self._next)
        self._next += 1
        self._members.append(made)
        artifact._memberships.append(made)
        self._move("latest", made)
        return made

    def _move(self, alias: str, to: "ArtifactCollectionMembership") -> None:
        """An alias is of one version only: it moves."""
        for member in self._members:
            member._aliases.discard(alias)
        to._aliases.add(alias)

    def _leave(self, artifact: "Artifact") -> None:
        self._members = [member for member in self._members if member.artifact is not artifact]


class ArtifactSequence(ArtifactCollection):
    """Where a run logs versions."""


class ArtifactPortfolio(ArtifactCollection):
    """Where versions are linked."""


class ArtifactCollectionMembership:
    """A version in a collection, with its number and its aliases there."""

    def __init__(self, collection: ArtifactCollection, artifact: "Artifact", index: int) -> None:
        self.id = coded(f"ArtifactCollectionMembership:{next(NOW)}")
        self.artifactCollection, self.artifact, self.versionIndex = collection, artifact, index
        self.createdAt = stamp()
        self._at = time.monotonic()
        self._aliases: set[str] = set()

    def aliases(self) -> list[dict[str, Any]]:
        home = self.artifactCollection
        return [
            {"__typename": "ArtifactAlias", "id": coded(f"{home.id}:{alias}"), "alias": alias,
             "artifactCollection": home}
            for alias in sorted(self._aliases)
        ]  # fmt: skip

    def files(self, after: str | None, first: int | None) -> dict[str, Any]:
        return pages(self.artifact._listed(), first, after)


class Artifact:
    """A version's content, which nothing changes once it is committed."""

    def __init__(self, sequence: ArtifactSequence, given: dict[str, Any], server: "Server") -> None:
        self.id = coded(f"Artifact:{next(NOW)}")
        self.artifactSequence, self.artifactType = sequence, sequence.defaultArtifactType
        self.description, self.metadata = given.get("description"), given.get("metadata")
        self.ttlDurationSeconds, self.ttlIsInherited = -1, True
        self.state, self.digest = "PENDING", given["digest"]
        self.digestAlgorithm = given.get("digestAlgorithm") or "MANIFEST_MD5"
        self.commitHash, self.historyStep = None, None
        self.createdAt = self.updatedAt = stamp()
        self.tags: list[Any] = []
        self._server, self._memberships = server, list[ArtifactCollectionMembership]()
        self._given = [alias["alias"] for alias in given.get("aliases") or ()]
        self._files: dict[str, str] = {}
        """The stored name of each manifest that was made for it."""

    @property
    def versionIndex(self) -> int:
        own = [m for m in self._memberships if m.artifactCollection is self.artifactSequence]
        return own[0].versionIndex if own else 0

    @property
    def aliases(self) -> list[dict[str, Any]]:
        return [alias for member in self._memberships for alias in member.aliases()]

    @property
    def size(self) -> int:
        return sum(entry.get("size", 0) for entry in self._entries().values())

    @property
    def fileCount(self) -> int:
        return len(self._entries())

    def currentManifest(self) -> dict[str, Any]:
        return {"file": {"directUrl": self._server.where("manifest", self.id)}}

    def _entries(self) -> dict[str, dict[str, Any]]:
        kept = self._server.stored.get(f"manifest/{self.id}")
        found: dict[str, dict[str, Any]] = json.loads(kept)["contents"] if kept else {}
        return found

    def _listed(self) -> list[dict[str, Any]]:
        def where(name: str, entry: dict[str, Any]) -> str:
            home = self.artifactSequence.id
            return self._server.where("file", f"{home}/{name}/{entry['digest']}")

        return [
            {"__typename": "File", "name": name, "directUrl": where(name, entry)}
            for name, entry in self._entries().items()
        ]


def organization() -> dict[str, Any]:
    return {
        "id": coded("Organization"),
        "name": ORGANIZATION,
        "coreWeaveOrganizationId": None,
        "orgEntity": {
            "__typename": "Entity",
            "id": coded(ORG_ENTITY),
            "name": ORG_ENTITY,
            "entityType": "organization",
        },
    }


# THE SERVER: what queries and mutations begin with, by their names in W&B's schema


class Server:
    """All state, and the fields that a query or a mutation begins with."""

    def __init__(self) -> None:
        self.projects: dict[tuple[str, str], Project] = {}
        self.stored: dict[str, bytes] = {}
        self.protected: set[str] = set()
        """Aliases in the registry that an admin alone may change."""
        self.read_only: set[str] = set()
        """Projects that an admin alone may write to."""
        self.lag = 0.0
        """Seconds until a list shows what was made."""
        self.failing: tuple[int, str] | None = None
        """The status that every question is answered with, and what is said."""
        self.met: Counter[str] = Counter()
        self.refused: list[str] = []
        self.url = ""
        self._artifacts: dict[str, Artifact] = {}
        self._clients: dict[str, str] = {}
        self._users: dict[str, dict[str, Any]] = {
            key: {
                "id": coded(f"User:{name}"), "name": name, "username": name, "entity": TEAM,
                "email": f"{name}@example.com", "flags": "{}", "admin": admin, "deletedAt": None,
                "teams": {"edges": [{"node": {"name": TEAM}}]}, "apiKeys": {"edges": []},
            }
            for key, name, admin in ((ADMIN, "admin", True), (MEMBER, "member", False))
        }  # fmt: skip
        self._here = threading.local()
        self._lock = threading.RLock()
        self._project(ORG_ENTITY, REGISTRY)

    def saved(self) -> tuple[Any, ...]:
        """All that is kept, as it is now; `restore` brings it back."""
        kept = (self.projects, self.stored, self._artifacts, self._clients)
        return copy.deepcopy(kept, {id(self): self})

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Brings back what `saved` gave, with nothing protected and nothing that fails."""
        kept = copy.deepcopy(saved, {id(self): self})
        self.projects, self.stored, self._artifacts, self._clients = kept
        self.protected, self.read_only, self.failing, self.lag = set(), set(), None, 0.0

    def answer(self, key: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of an answer; raises Refused."""
        reader = Reader(query)
        self.met[reader.operation] += 1
        if self.failing:
            raise Refused(self.failing[1], self.failing[0])
        self._here.key = key
        given = reader.defaults | {k: v for k, v in variables.items() if v is not None}
        with self._lock:
            if reader.kind == "mutation" and not self.user():
                raise Refused("permission denied", 403)
            return dict(walk(self, reader.fields, reader, given))

    def user(self) -> dict[str, Any]:
        """Who asks."""
        return self._users[self._here.key]

    def where(self, kind: str, name: str) -> str:
        """The address of something stored."""
        return f"{self.url}/storage/{kind}/{name}"

    def settled(self, items: list[Any]) -> list[Any]:
        """What a list shows by now."""
        return [item for item in items if time.monotonic() - item._at >= self.lag]

    def _project(self, entity: str, name: str) -> Project:
        if (entity, name) not in self.projects:
            made = self.projects[entity, name] = Project(entity, name)
            made._server = self
        return self.projects[entity, name]

    def _may_write(self, project: Project) -> None:
        if project.readOnly():
            raise Refused(f"permission denied: {project.name} is restricted", 403)

    def _may_move(self, project: str, aliases: list[str]) -> None:
        moved = self.protected & set(aliases) if project.startswith("wandb-registry-") else None
        if moved and not self.user()["admin"]:
            raise Refused(f"permission denied: {moved} is protected", 403)

    # queries

    def viewer(self) -> dict[str, Any]:
        return self.user()

    def serverInfo(self) -> dict[str, Any]:
        return {"features": [{"name": name, "isEnabled": True} for name in FEATURES]}

    def entity(self, name: str) -> dict[str, Any] | None:
        alone: dict[str, Any] = {"organizations": []}
        people = {user["name"]: alone for user in self._users.values()}
        if name not in {TEAM, ORG_ENTITY, *people}:
            return None

        def project(name_: str = name, **asked: Any) -> Project | None:
            return self.projects.get((name_, asked["name"]))

        return {
            "name": name,
            "organization": None if name in people else organization(),
            "user": people.get(name),
            "xxhashDigestsEnabled": False,
            "project": project,
        }

    def organization(self, name: str) -> dict[str, Any] | None:
        return organization() if name == ORGANIZATION else None

    def project(self, name: str, entityName: str) -> Project | None:
        return self.projects.get((entityName, name))

    def model(self, name: str, entityName: str) -> Any:
        project = self.projects.get((entityName, name))
        if project is None:
            return None

        def bucket(name: str, missingOk: bool) -> Run | None:
            return project.run(name)

        return {"id": project.id, "name": name, "entity": project.entity, "bucket": bucket}

    def artifact(self, id: str) -> Artifact | None:
        return self._artifacts.get(id)

    def clientIDMapping(self, clientID: str) -> dict[str, Any] | None:
        found = self._clients.get(clientID)
        return {"serverID": found} if found else None

    # mutations

    def upsertBucket(self, input: dict[str, Any]) -> dict[str, Any]:
        if input.get("id"):
            kept = [r for p in self.projects.values() for r in p._runs.values()]
            (run,) = [r for r in kept if r.id == input["id"]]
            inserted = False
        else:
            project = self._project(input.get("entityName") or TEAM, input["modelName"])
            self._may_write(project)
            inserted = input["name"] not in project._runs
            run = project._runs.setdefault(input["name"], Run(project, input["name"]))
        self._may_write(run.project)
        for name in ("config", "summaryMetrics", "displayName", "tags", "notes", "jobType"):
            if input.get(name) is not None:
                setattr(run, name, input[name])
        run.group = input.get("groupName") or run.group
        return {"bucket": run, "inserted": inserted}

    def upsertModel(self, input: dict[str, Any]) -> dict[str, Any]:
        if not self.user()["admin"]:
            raise Refused("permission denied", 403)
        entity, name = input["entityName"], input["name"]
        inserted = (entity, name) not in self.projects
        return {"project": self._project(entity, name), "inserted": inserted}

    def createRunFiles(self, input: dict[str, Any]) -> dict[str, Any]:
        at = f"{input['entityName']}/{input['projectName']}/{input['runName']}"
        return {
            "runID": at,
            "uploadHeaders": [],
            "files": [
                {"name": name, "uploadUrl": self.where("run", f"{at}/{name}")}
                for name in input["files"]
            ],
        }

    def createArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        project = self._project(input["entityName"], input["projectName"])
        self._may_write(project)
        name = input["artifactCollectionName"]
        sequence = project._collections.setdefault(
            name, ArtifactSequence(project, name, input["artifactTypeName"])
        )
        assert isinstance(sequence, ArtifactSequence)
        same = [m.artifact for m in sequence._members if m.artifact.digest == input["digest"]]
        made = same[0] if same else Artifact(sequence, input, self)
        self._artifacts[made.id] = made
        for client in (input.get("clientID"), input.get("sequenceClientID")):
            if client:
                self._clients[client] = made.id
        return {"artifact": made}

    def createArtifactManifest(self, input: dict[str, Any]) -> dict[str, Any]:
        file = {"id": input["artifactID"], "uploadHeaders": []}
        file["uploadUrl"] = self.where("manifest", input["artifactID"])
        return {"artifactManifest": {"id": input["artifactID"], "file": file}}

    def updateArtifactManifest(self, input: dict[str, Any]) -> dict[str, Any]:
        return self.createArtifactManifest({"artifactID": input["artifactManifestID"]})

    def createArtifactFiles(self, input: dict[str, Any]) -> dict[str, Any]:
        def made(wanted: dict[str, Any]) -> dict[str, Any]:
            artifact = self._artifacts[wanted["artifactID"]]
            path = f"{artifact.artifactSequence.id}/{wanted['name']}/{wanted['md5']}"
            return {
                "storagePath": path,
                "uploadUrl": self.where("file", path),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": artifact,
            }

        return {
            "files": {"edges": [{"node": made(wanted)} for wanted in input["artifactFiles"]]},
        }

    def commitArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifacts[input["artifactID"]]
        entries = artifact._entries()
        for file in artifact._listed():
            if file["directUrl"].removeprefix(f"{self.url}/storage/") not in self.stored:
                raise Refused(f"{file['name']} was not uploaded", 400)
        assert entries, "a manifest comes first"
        artifact.state = "COMMITTED"
        member = artifact.artifactSequence._join(artifact)
        for alias in artifact._given:
            artifact.artifactSequence._move(alias, member)
        return {"artifact": artifact}

    def useArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        return {"artifact": self._artifacts[input["artifactID"]]}

    def updateArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifacts[input["artifactID"]]
        self._may_write(artifact.artifactSequence.project)
        artifact.description = input.get("description")
        artifact.metadata = input.get("metadata") or artifact.metadata
        artifact.updatedAt = stamp()
        gone = {tag["tagName"] for tag in input.get("tagsToDelete") or ()}
        added = [tag["tagName"] for tag in input.get("tagsToAdd") or ()]
        names = [t["name"] for t in artifact.tags if t["name"] not in gone] + added
        artifact.tags = [{"id": coded(name), "name": name} for name in names]
        return {"artifact": artifact}

    def linkArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifacts[input["artifactID"]]
        project = self.projects.get((input["entityName"], input["projectName"]))
        if project is None:
            raise Refused(f"project {input['projectName']} not found", 404)
        self._may_write(project)
        aliases = [alias["alias"] for alias in input.get("aliases") or ()]
        self._may_move(project.name, aliases)
        name = input["artifactPortfolioName"]
        kind = artifact.artifactType["name"]
        portfolio = project._collections.setdefault(name, ArtifactPortfolio(project, name, kind))
        member = portfolio._join(artifact)
        for alias in aliases:
            portfolio._move(alias, member)
        return {"versionIndex": member.versionIndex, "artifactMembership": member}

    def unlinkArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifacts[input["artifactID"]]
        for member in artifact._memberships:
            if member.artifactCollection.id == input["artifactPortfolioID"]:
                member.artifactCollection._leave(artifact)
        return {"success": True}

    def addAliases(self, input: dict[str, Any]) -> dict[str, Any]:
        for member, alias in self._aliased(input):
            member.artifactCollection._move(alias, member)
        return {"success": True}

    def deleteAliases(self, input: dict[str, Any]) -> dict[str, Any]:
        for member, alias in self._aliased(input):
            member._aliases.discard(alias)
        return {"success": True}

    def _aliased(self, input: dict[str, Any]) -> Iterator[tuple[ArtifactCollectionMembership, str]]:
        artifact = self._artifacts[input["artifactID"]]
        for wanted in input["aliases"]:
            project = self.projects[wanted["entityName"], wanted["projectName"]]
            self._may_write(project)
            self._may_move(project.name, [wanted["alias"]])
            home = project._collections[wanted["artifactCollectionName"]]
            (member,) = [m for m in home._members if m.artifact is artifact]
            yield member, wanted["alias"]


def handler_of(state: Server) -> type[BaseHTTPRequestHandler]:
    """What answers HTTP from that state."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.body()
            key = self.key()
            if self.path.startswith("/sdk/otel/"):
                state.met["telemetry"] += 1
                self.say(200, {})
            elif self.path != "/graphql" and not self.path.endswith("/file_stream"):
                self.refuse(f"unknown path POST {self.path}", 404)
            elif key not in state._users:
                self.say(401, {"errors": [{"message": "invalid API key"}]})
            elif self.path == "/graphql":
                asked = json.loads(body)
                try:
                    data = state.answer(key, asked["query"], asked.get("variables") or {})
                except Refused as error:
                    if error.status == 400:
                        state.refused.append(str(error))
                    self.say(error.status, {"data": None, "errors": [{"message": str(error)}]})
                except Exception as error:
                    self.refuse(f"{type(error).__name__}: {error} in {asked['query'][:200]}", 400)
                else:
                    self.say(200, {"data": data})
            else:
                self.stream(json.loads(body))

        def stream(self, sent: dict[str, Any]) -> None:
            """Lines of a run's files; the last ones say how it ended."""
            state.met["file_stream"] += 1
            _, _, entity, project, name, _ = self.path.split("/")
            with state._lock:
                run = state.projects[entity, project]._runs[name]
                summary = sent.get("files", {}).get("wandb-summary.json", {}).get("content")
                if summary:
                    run.summaryMetrics = summary[-1]
                if sent.get("complete"):
                    run.state = "failed" if sent.get("exitcode") else "finished"
            self.say(200, {})

        def do_PUT(self) -> None:
            state.met["PUT a file"] += 1
            state.stored[unquote(self.path.removeprefix("/storage/"))] = self.body()
            self.say(200, {})

        def do_GET(self) -> None:
            state.met["GET a file"] += 1
            found = state.stored.get(unquote(self.path.removeprefix("/storage/")))
            if found is None:
                self.refuse(f"unknown path GET {self.path}", 404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def key(self) -> str:
            scheme, _, given = self.headers.get("Authorization", "").partition(" ")
            if scheme == "Basic":
                return base64.b64decode(given).decode().partition(":")[2]
            return given

        def refuse(self, text: str, status: int) -> None:
            state.refused.append(text)
            self.say(status, {"errors": [{"message": text}]})

        def say(self, status: int, answer: dict[str, Any]) -> None:
            text = json.dumps(answer).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "3600")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class Quiet(ThreadingHTTPServer):
    """One that says nothing of clients that were killed."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def running(port: int = 0) -> Iterator[Server]:
    """A server on loopback, for as long as a test takes."""
    state = Server()
    with Quiet(("127.0.0.1", port), handler_of(state)) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield state
        finally:
            http.shutdown()
            thread.join()


def md5(content: bytes) -> str:
    """A file's digest, as a manifest says it."""
    return base64.b64encode(hashlib.md5(content).digest()).decode()


if __name__ == "__main__":
    with running(int(sys.argv[1])) as server:
        print(server.url, flush=True)
        threading.Event().wait()
