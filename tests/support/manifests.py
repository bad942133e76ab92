"""The manifests of a rendered project for Kubernetes, as `make deploy RENDER=` writes them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from running_project import missing

DIGEST = "sha256:" + 64 * "a"
IMAGE = {
    "environment": "staging", "version": "3", "bundle": "0123456789ab",
    "model": f"registry.example:5000/team/serve@{DIGEST}",
    "job": f"registry.example:5000/team/job@{DIGEST}",
}  # fmt: skip
ENVIRONMENTS = ("test", "staging", "production")


def real_kubectl() -> str:
    """Where kubectl is: beside the tests' Python, or on this machine."""
    beside = Path(sys.executable).parent
    found = shutil.which("kubectl", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    if not found:
        missing("kubectl is not installed")
    return found


def written(made: Path) -> dict[str, Path]:
    """The folder of what each environment is made of; makes it look as if an image was pushed."""
    (made / "reports").mkdir()
    (made / "reports" / "image.json").write_text(json.dumps(IMAGE))
    path = f"{Path(real_kubectl()).parent}{os.pathsep}{os.environ['PATH']}"
    for environment in ENVIRONMENTS:
        subprocess.run(
            [sys.executable, "scripts/deploy.py", environment, "--render", environment],
            cwd=made, env=os.environ | {"PATH": path}, check=True,
        )  # fmt: skip
    return {environment: made / environment for environment in ENVIRONMENTS}
