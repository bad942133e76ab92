"""Calls a client such as gh, and says what each provider's `scripts/provider.py` has to offer."""

import os
import re
import subprocess
from dataclasses import dataclass
from typing import Protocol

STRANGER = re.compile(r"auth login|az login|devops login|HTTP 401|TF400813")
"""What the clients say to somebody they do not know."""


class Stop(Exception):
    """What happened, and what to do, in a line."""


class Failed(Stop):
    """The client was there, and said no."""


@dataclass(frozen=True)
class Client:
    """A command; called with arguments it returns what the command says."""

    name: str
    install: str
    """Where it comes from."""
    login: str = ""
    """How it gets to know the user."""

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        """Secrets go through `stdin` or the environment, where no list of processes shows them.

        Raises Stop when the command is not there or does not know the user, Failed when it fails.
        """
        try:
            done = subprocess.run(
                [self.name, *arguments],
                check=False,
                input=stdin,
                capture_output=True,
                text=True,
                env=os.environ | environment,
            )
        except FileNotFoundError:
            raise Stop(f"{self.name} is not installed; see {self.install}") from None
        if done.returncode == 0:
            return done.stdout.strip()
        if self.login and STRANGER.search(done.stderr):
            raise Stop(f"{self.name} is not logged in; {self.login}")
        said = " ".join((done.stderr.strip() or done.stdout.strip()).split())[:400]
        raise Failed(f"`{' '.join([self.name, *arguments[:2]])}` failed: {said or done.returncode}")


git = Client("git", "https://git-scm.com")


class Provider(Protocol):
    """What scripts/provider.py has to offer, as a module."""

    NAME: str
    PIPELINES: tuple[str, ...]
    """The pipelines that must be known to the provider before they run, such as `cycle`."""
    BRANCH: str
    """The branch that the pipelines run on; empty where it is the default one, of any name."""
    RUN: str
    """The variable that names the run, in a pipeline."""
    TOKENS: dict[str, str]
    """The secrets that are tokens of this provider, and what each is for."""
    USER: str
    """Whom a token pushes as."""

    def default_branch(self) -> str:
        """What new clones are on; empty if nothing was pushed yet."""

    def names(self) -> set[str]:
        """The variables and secrets that are set."""

    def set_variable(self, name: str, value: str) -> None:
        """Sets a variable that anyone may read."""

    def set_secret(self, name: str, value: str) -> None:
        """Sets a secret, without showing it."""

    def environments(self) -> set[str]:
        """The environments that are there."""

    def create(self, environment: str) -> None:
        """Makes an environment."""

    def protected(self, environment: str) -> bool:
        """Whether nothing reaches the environment unless a person lets it."""

    def protect(self, environment: str, reviewers: list[str]) -> None:
        """Asks these for approval; without names, whoever calls this or may maintain."""

    def scheduled(self, pipeline: str) -> bool:
        """Whether the provider knows the pipeline, and will start it."""

    def schedule(self, pipeline: str) -> None:
        """Makes the provider start the pipeline by its schedule."""

    def approver(self, environment: str) -> str:
        """Who approved this run in the environment; empty if nobody did."""

    def starter(self) -> str:
        """Who started this run."""

    def remote(self) -> str:
        """Where a branch is pushed."""

    def token(self) -> str:
        """The token that may push; empty if there is none."""

    def proposed(self, branch: str) -> bool:
        """Whether there is or was a request to merge the branch."""

    def propose(self, branch: str, title: str, body: str) -> None:
        """Asks to merge the branch."""

    def has_issue(self, title: str) -> bool:
        """Whether an open issue says so."""

    def open_issue(self, title: str, body: str) -> None:
        """Opens an issue."""
