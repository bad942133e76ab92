"""What of the pipelines lies outside the files: made, read back, and asked before a promotion.

usage: ci.py setup | check | promote ENVIRONMENT
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import provider as _provider
import registry
from client import Failed, Provider, Stop

provider: Provider = _provider
SETTINGS = Path("settings.toml")
VARIABLES = {
    registry.SWITCH: "without it nothing is registered, watched or promoted",
    **registry.VARIABLES,
    "DATA_URI": "where the data is, if not in the repository",
    "DATA_STORE": "the store of snapshots",
    "AWS_DEFAULT_REGION": "the region of an object store",
    "AWS_ENDPOINT_URL": "an object store that is not Amazon's",
    "RUNNER": "your own runners",
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
    **{name: "one login of the registry" for login in registry.LOGINS for name in sorted(login)},
    **STORE,
    **provider.TOKENS,
}

OPTIONAL = {*VARIABLES, *STORE, "EVENTS_WEBHOOK", "EVENTS_SECRET"} - {registry.SWITCH}
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


def promises() -> Iterator[Promise]:
    """Everything, as the provider has it now."""
    known = provider.names()
    logged_in = any(login <= known for login in registry.LOGINS)
    for name, why in (VARIABLES | SECRETS).items():
        value = os.environ.get(name, "")
        optional = name in OPTIONAL
        optional |= logged_in and any(name in login for login in registry.LOGINS)
        if name in known or value or not optional:
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
    for name in ("staging", "production"):
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


def promote(environment: str) -> int:
    """Promotes in the name of who approved this run; raises Stop where nobody had to, or did."""
    if not os.environ.get(provider.RUN):
        raise Stop("ci-promote is for pipelines; by hand: make promote ENV= BY=")
    if approval() == "none":
        by = provider.starter()
    elif not provider.protected(environment):
        raise Stop(
            f"{environment} is not promoted to: {provider.NAME} lets anything into the environment "
            "unasked; run `make ci-setup`, or set [gates] approval = 'none' in settings.toml"
        )
    else:
        by = provider.approver(environment)
        if not by:
            raise Stop(f"{environment} is not promoted to: nobody approved this run there")
    by = re.sub(r"[^\w@.+, -]", "_", by)
    version = os.environ.get("VERSION", "")
    command = ["make", "--no-print-directory", "promote", f"ENV={environment}"]
    command += [f"VERSION={version}", f"BY={by}"]
    return subprocess.run(command, check=False).returncode


def main(*words: str) -> int:
    """Does what the first word says; returns the exit code."""
    match words:
        case ("setup",):
            return setup()
        case ("check",):
            return check()
        case ("promote", environment) if environment:
            return promote(environment)
        case ("promote", *_):
            raise Stop("say which environment: make ci-promote ENV=production")
    raise Stop("use setup, check, or promote ENVIRONMENT")


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Stop as error:
        sys.exit(f"error: {error}")
