"""A project whose provider is a stand-in."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_clients import EMPTY

CLIENTS = {"github": "gh", "gitlab": "glab", "azure": "az"}
RUN = {  # what each provider says of a run
    "github": {"GITHUB_RUN_ID": "11", "GITHUB_TRIGGERING_ACTOR": "ann"},
    "gitlab": {"CI_JOB_ID": "11", "CI_PROJECT_ID": "7", "GITLAB_USER_LOGIN": "ann"},
    "azure": {"BUILD_BUILDID": "11", "SYSTEM_STAGENAME": "production", "BUILD_REQUESTEDFOR": "ann"},
}
ORIGIN = "https://org@dev.azure.com/org/project/_git/it"
CLIENT = f"#!{sys.executable} -SE\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
CLIENT += "import fake_clients\nfake_clients.main()\n"
MAKE = '#!/bin/sh\necho "$*" >>"$MADE"\n'


@dataclass
class FakeProvider:
    """A project whose provider is a stand-in."""

    ci: str
    project: Path
    tools: Path

    def client(self, **more: Any) -> dict[str, Any]:
        """What the provider knows; `more` is put in."""
        file = self.tools.parent / "state"
        state = EMPTY | json.loads(file.read_text()) | more
        file.write_text(json.dumps(state))
        return state

    def __call__(self, script: str, *words: str, **environment: str) -> tuple[int, str]:
        """How a script ended, and what it said."""
        own = {"PATH": str(self.tools), "STATE": str(self.tools.parent / "state")}
        own |= {"HOME": str(self.tools), "MADE": str(self.tools.parent / "made")}
        own |= {k: v for k, v in os.environ.items() if k.startswith("GIT_CONFIG")}
        done = subprocess.run(
            # Without packages: the scripts need Python alone.
            [sys.executable, "-S", f"scripts/{script}.py", *words], cwd=self.project,
            env=own | environment, capture_output=True, text=True,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def promoted(self) -> str:
        """What make was asked to do."""
        made = self.tools.parent / "made"
        return made.read_text() if made.exists() else ""
