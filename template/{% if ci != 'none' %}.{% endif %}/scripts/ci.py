"""What of the pipelines lies outside the files: made, read back, and asked before a promotion.

usage: ci.py setup | check | promote ENVIRONMENT | deploy ENVIRONMENT | rollback ENVIRONMENT
"""

import base64
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import deployment
import provider as _provider
import registry
from client import Failed, Provider, Stop

provider: Provider = _provider
SETTINGS = Path("settings.toml")
DEPLOYED = ("staging", "production")
"""The environments that the pipelines promote to, and deploy."""
TARGETS = {f"DEPLOY_{name.upper()}": name for name in DEPLOYED}
"""The variables that say where."""
FILES = {f"{deployment.FILE}_{name.upper()}": name for name in DEPLOYED}
"""The secrets that hold a file in base64; `make ci-setup` is told its path."""
VARIABLES = {
    registry.SWITCH: "without it nothing is registered, watched or promoted",
    **registry.VARIABLES,
    "DATA_URI": "where the data is, if not in the repository",
    "DATA_STORE": "the store of snapshots",
    "AWS_DEFAULT_REGION": "the region of an object store",
    "AWS_ENDPOINT_URL": "an object store that is not Amazon's",
    "MODEL_TRUSTED_KEY": "the public key of MODEL_SIGNING_KEY; unsigned bundles are refused",
    "RUNNER": "your own runners",
    **{
        variable: f"without it {name} is not deployed; {deployment.TARGET}"
        for variable, name in TARGETS.items()
    },
}
STORE = {
    "AWS_ACCESS_KEY_ID": "the login of an object store that speaks S3",
    "AWS_SECRET_ACCESS_KEY": "the login of an object store that speaks S3",
    "AZURE_STORAGE_CONNECTION_STRING": "the login of Azure's object store",
}
SECRETS = {
    "JOURNAL_URL": "without it the monitor takes the verdict that `make monitor` noted elsewhere",
    "EVENTS_WEBHOOK": "the webhook for promotions and verdicts",
    "EVENTS_SECRET": "the key that signs events",
    "MODEL_SIGNING_KEY": "the key that signs bundles",
    **{name: "one login of the registry" for login in registry.LOGINS for name in sorted(login)},
    **STORE,
    **provider.TOKENS,
    **dict.fromkeys(FILES, f"{deployment.CONTENT}; say the path of the file"),
}

KEYS = {"MODEL_SIGNING_KEY", "MODEL_TRUSTED_KEY"}
"""Those that may be the path of a key, too; it is stored in base64, in one line."""
OPTIONAL = {*VARIABLES, *STORE, *KEYS, "EVENTS_WEBHOOK", "EVENTS_SECRET"}
OPTIONAL -= {registry.SWITCH, *TARGETS}
"""Those that are listed only if they are set."""


@dataclass(frozen=True)
class Promise:
    """What the pipelines rely on; `make` is None where only a person can do `by_hand`, or else
    give the value."""

    what: str
    held: bool
    make: Callable[[], None] | None = None
    why: str = ""
    required: bool = True
    by_hand: str = ""

    @property
    def how(self) -> str:
        """What to do for it."""
        return self.by_hand or ("" if self.make else f"{self.what}=... ") + "make ci-setup"


def approval() -> str:
    """`gates.approval`: the environment wins over settings.toml, as everywhere in the project."""
    try:
        gates = tomllib.loads(SETTINGS.read_text()).get("gates", {}) if SETTINGS.exists() else {}
    except tomllib.TOMLDecodeError as error:
        raise Stop(f"{SETTINGS}: {error}") from None
    found = os.environ.get("GATES_APPROVAL") or gates.get("approval", "ci")
    if found not in ("ci", "name", "none"):
        raise Stop(f"settings: gates.approval = {found!r}; use ci, name or none")
    return str(found)


def encoded(name: str, path: str) -> str:
    """The file in one line, as secrets can hold it; of KEYS the text may be given instead."""
    if name in KEYS and path.startswith("LS0tLS1CRUdJ"):  # it is in base64
        return path
    try:
        text = name in KEYS and "-----BEGIN " in path
        found = path.encode() if text else Path(path).expanduser().read_bytes()
    except OSError as error:
        given = name if name in KEYS else f"{name}={path}"  # what is no path may be a key
        raise Stop(f"{given}: {error.strerror}; say the path of a file") from None
    return base64.b64encode(found).decode()


def promises() -> Iterator[Promise]:
    """Everything, as the provider has it now."""
    known = provider.names()
    deployed = [name for told, name in TARGETS.items() if told in known or os.environ.get(told)]
    logged_in = any(login <= known for login in registry.LOGINS)
    for name, why in (VARIABLES | SECRETS).items():
        value = os.environ.get(name, "")
        optional = name in OPTIONAL
        optional |= logged_in and any(name in login for login in registry.LOGINS)
        optional |= name in FILES and FILES[name] not in deployed
        if name in known or value or not optional:
            if value and name in {*FILES, *KEYS}:
                value = encoded(name, value)
            put = provider.set_variable if name in VARIABLES else provider.set_secret
            make = partial(put, name, value) if value else None
            yield Promise(name, name in known, make, why, name == registry.SWITCH)
    if provider.BRANCH:
        default = provider.default_branch()
        yield Promise(
            f"branch {provider.BRANCH}",
            default == provider.BRANCH,
            why=f"the pipelines run there, and the default branch is {default or 'not there yet'}",
            by_hand=f"git branch -m {provider.BRANCH}, push it, and make it {provider.NAME}'s "
            "default branch",
        )
    there = provider.environments()
    for name in (*DEPLOYED, *(f"deploy-{name}" for name in deployed)):
        yield Promise(f"environment {name}", name in there, partial(provider.create, name))
    if approval() == "none":
        yield Promise("production asks nobody, as gates.approval says", True)
    else:
        reviewers = os.environ.get("REVIEWERS", "").replace(",", " ").split()
        protect = partial(provider.protect, "production", reviewers)
        held = provider.protected("production")
        why = "whatever is pushed could reach it; or say so: [gates] approval = 'none'"
        yield Promise("a person approves production", held, protect, why)
    for name in provider.PIPELINES:
        start = partial(provider.schedule, name)
        yield Promise(f"pipeline {name}", provider.scheduled(name), start)


def setup() -> int:
    """Makes what is missing, a line each; returns 1 when something could not be made."""
    bad = 0
    for promise in promises():
        try:
            if promise.held:
                print(f"found    {promise.what}")
            elif promise.make:
                promise.make()
                print(f"made     {promise.what}")
            else:
                print(f"missing  {promise.what}: {promise.why}; {promise.how}")
        except Failed as error:
            print(f"failed   {promise.what}: {error}")
            bad = 1
    return bad


def check() -> int:
    """Says which promise holds; returns 1 when one does not that must."""
    bad = 0
    for promise in promises():
        why = f" ({promise.why})" if promise.why else ""
        if promise.held:
            print(f"ok        {promise.what}")
        elif promise.required:
            print(f"not held  {promise.what}{why}; make it so: {promise.how}")
            bad = 1
        else:
            print(f"hint      {promise.what} is not set{why}; {promise.how}")
    return bad


def plain(name: str) -> str:
    """A name without what a shell could read as more."""
    return re.sub(r"[^\w@.+, -]", "_", name)


def person(environment: str) -> str:
    """Who approved this run; raises Stop where nobody had to, or did."""
    if approval() == "none":
        by = provider.starter()
    elif not provider.protected(environment):
        raise Stop(
            f"{environment} stays as it is: {provider.NAME} lets anything into the environment "
            "unasked; run `make ci-setup`, or set [gates] approval = 'none' in settings.toml"
        )
    else:
        by = provider.approver(environment)
        if not by:
            raise Stop(f"{environment} stays as it is: nobody approved this run there")
    return plain(by)


def in_pipeline(verb: str) -> None:
    """Raises Stop anywhere else, where nobody approves."""
    if not os.environ.get(provider.RUN):
        raise Stop(f"ci-{verb} is for pipelines; by hand: make {verb} ENV= BY=")


def call(verb: str, environment: str, *words: str, **more: str) -> int:
    """Calls a verb of the project; returns its exit code."""
    command = ["make", "--no-print-directory", verb, f"ENV={environment}", *words]
    return subprocess.run(command, check=False, env=os.environ | more).returncode


def promote(environment: str) -> int:
    """Promotes in the name of who approved this run; raises Stop where nobody had to, or did."""
    in_pipeline("promote")
    version = os.environ.get("VERSION", "")
    return call("promote", environment, f"VERSION={version}", f"BY={person(environment)}")


@contextmanager
def login(environment: str) -> Iterator[dict[str, str]]:
    """What leads the deployment to the secret's file, which is there, for this user, until the end.

    Nothing where the secret is not set: then what the runner itself has counts.
    """
    name = f"{deployment.FILE}_{environment.upper()}"
    try:
        content = base64.b64decode(os.environ.get(name, ""), validate=True)
    except ValueError:
        raise Stop(f"{name} is not base64; set it by {name}=<path> make ci-setup") from None
    if not content:
        yield {}
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a cancelled job leaves no file either
    with tempfile.TemporaryDirectory() as folder:  # nobody else may look into it
        file = Path(folder, "file")
        file.write_bytes(content)
        yield {deployment.PATH: str(file)}


def deploy(environment: str) -> int:
    """Deploys the environment, if a variable says where."""
    variable, secret = (f"{n}_{environment.upper()}" for n in ("DEPLOY", deployment.FILE))
    target = os.environ.get(variable)
    if not target:
        print(f"nothing is deployed to {environment}; the variable {variable} is not set")
        return 0
    with login(environment) as found:
        # What lies on a machine by chance is not what was meant.
        if not found and not os.environ.get(deployment.PATH):
            raise Stop(
                f"{environment} is not deployed: set the secret {secret} ({deployment.CONTENT}), "
                f"or on the runner the variable {deployment.PATH}"
            )
        return call("deploy", environment, f"CONTEXT={target}", "YES=1", **found)


def rollback(environment: str) -> int:
    """Rolls back, as promote does; for another environment than production nobody is asked."""
    in_pipeline("rollback")
    by = person(environment) if environment == "production" else plain(provider.starter())
    target = os.environ.get(f"DEPLOY_{environment.upper()}", "")
    with login(environment) as found:
        return call("rollback", environment, f"BY={by}", f"CONTEXT={target}", "YES=1", **found)


def main(*words: str) -> int:
    """Does what the first word says; returns the exit code."""
    match words:
        case ("setup",):
            return setup()
        case ("check",):
            return check()
        case ("promote", environment) if environment:
            return promote(environment)
        case ("deploy", environment) if environment in DEPLOYED:
            return deploy(environment)
        case ("rollback", environment) if environment in DEPLOYED:
            return rollback(environment)
        case ("promote" | "deploy" | "rollback" as verb, *_):
            raise Stop(f"say which environment: make ci-{verb} ENV=production")
    raise Stop("use setup, check, or promote, deploy or rollback ENVIRONMENT")


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Stop as error:
        sys.exit(f"error: {error}")
