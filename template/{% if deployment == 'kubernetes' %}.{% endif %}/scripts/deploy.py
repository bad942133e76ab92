"""Rolls the image of an environment's version out to Kubernetes: `deploy.py ENV`.

reports/image.json, which `python -m <package> image` writes, says which image. With --render only
the manifests are written, for Argo CD or Flux; with --check nothing is changed.
"""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OVERLAYS = Path("deploy/kubernetes/overlays")
IMAGE = Path("reports/image.json")
RIGHTS = ("patch deployments.apps", "create jobs.batch", "delete jobs.batch", "get secrets",
          "get pods", "create pods/portforward")  # fmt: skip
BEFORE = ("serviceaccount", "configmap", "networkpolicy", "job")
"""What the migration needs; the rest follows when the tables are up to date."""
AFTER = ("cronjob",)
"""What runs the new code by itself: only once the new server has answered."""
MADE = "*_*_*.yaml"
"""As kustomize names files: group_version_kind_name."""
VERSION = "app.kubernetes.io/version"
COMPONENT = "app.kubernetes.io/component"


class Stop(Exception):
    """What happened, and what to do, in a line."""


def kubectl(*command: str) -> str:
    """What kubectl says; raises Stop with its last line when it is not there or fails."""
    try:
        done = subprocess.run(["kubectl", *command], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise Stop("kubectl is not there; install it") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise Stop(said.removeprefix("error: "))
    return done.stdout


class Manifests:
    """What an environment is made of: a folder with a file for each object, by kustomize."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob(MADE))
        self.deployment = self.name("deployment", "serve")
        self.migration = self.name("job", "migrate")
        text = self.text("deployment", "serve")
        self.namespace = _first(r"^  namespace: (\S+)", text)
        self.secret = _first(r"secretKeyRef:\n(?: +key: .*\n)? +name: (\S+)", text)

    def kinds(self, *kinds: str) -> list[Path]:
        """The files of some kinds."""
        return [file for file in self.files if file.stem.split("_")[-2] in kinds]

    def _file(self, kind: str, end: str) -> Path:
        found = [file for file in self.kinds(kind) if file.stem.endswith(end)]
        if len(found) != 1:
            raise Stop(f"{OVERLAYS}: renders {len(found)} objects {kind}/...{end}, not one")
        return found[0]

    def name(self, kind: str, end: str) -> str:
        """The name of the object of a kind whose name ends so."""
        return self._file(kind, end).stem.split("_")[-1]

    def text(self, kind: str, end: str) -> str:
        """The YAML of that object."""
        return self._file(kind, end).read_text()


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise Stop(f"{OVERLAYS}: the Deployment has nothing of the form {pattern}")
    return found[1].strip("\"'")


def render(env: str, image: dict[str, str], to: Path) -> Manifests:
    """Writes the manifests of an environment with its images by digest, a file for each object."""
    overlay = OVERLAYS / env
    if not overlay.is_dir():
        there = ", ".join(sorted(path.name for path in OVERLAYS.iterdir()))
        raise Stop(f"ENV={env}: {overlay} is not there; use {there}")
    names = {"serve": "model", "job": "job"}
    images = [
        dict(zip(("name", "newName", "digest"), (name, *image[of].split("@")), strict=True))
        for name, of in names.items()
        if of in image
    ]
    with tempfile.TemporaryDirectory(dir=".", prefix=".deploy-") as folder:
        told = {
            "resources": [os.path.relpath(overlay, folder)],
            "images": images,
            "labels": [{"pairs": {VERSION: image["version"]}, "includeTemplates": True}],
        }
        Path(folder, "kustomization.yaml").write_text(json.dumps(told))
        drafts = Path(folder, "made")
        drafts.mkdir()
        kubectl("kustomize", folder, "--output", str(drafts))
        for old in to.glob(MADE):
            old.unlink()
        shutil.copytree(drafts, to, dirs_exist_ok=True)
    made = Manifests(to)
    for file in made.kinds("configmap"):
        if url := re.search(r"^  JOURNAL_URL: (.*)", file.read_text(), re.MULTILINE):
            refuse_sqlite(url[1].strip("\"'"), f"{overlay}/settings.env")
    return made


def refuse_sqlite(url: str, where: str) -> None:
    """Raises Stop for a journal that is not PostgreSQL."""
    if not url.startswith("postgresql"):
        kind = url.partition(":")[0] or "nothing"
        raise Stop(
            f"{where}: JOURNAL_URL says {kind}, and pods need postgresql+psycopg://, since a file "
            "is each pod's own and goes with it"
        )


class Cluster:
    """A namespace of a cluster."""

    def __init__(self, context: str, namespace: str) -> None:
        self.where = ("--context", context, "--namespace", namespace)
        self.context, self.namespace = context, namespace

    def ask(self, *command: str) -> str:
        """What kubectl says of it; raises Stop when the cluster does not answer, or refuses."""
        return kubectl(*self.where, "--request-timeout=20s", *command)

    def read(self, *command: str) -> Any:
        """The same as JSON; None for what is not there."""
        said = self.ask("get", *command, "--ignore-not-found", "--output", "json")
        return json.loads(said) if said.strip() else None

    def apply(self, files: list[Path], *how: str) -> None:
        """Applies files in one call."""
        if files:
            names = [word for file in files for word in ("--filename", str(file))]
            self.ask("apply", "--server-side", "--force-conflicts", *how, *names)

    def require(self, made: Manifests) -> None:
        """Raises Stop for the first thing that is missing; changes nothing."""
        try:
            self.ask("version")
        except Stop as error:
            raise Stop(f"the cluster of context {self.context} does not answer: {error}") from None
        for right in RIGHTS:
            try:
                self.ask("auth", "can-i", *right.split())
            except Stop as error:
                raise Stop(
                    f"you may not {right} in {self.namespace} ({error}); ask for the role edit"
                ) from None
        secret = self.read("secret", made.secret)
        if secret is None:
            raise Stop(
                f"namespace {self.namespace} is not there or has no secret {made.secret} with "
                "JOURNAL_URL; create them: kubectl create namespace, kubectl create secret generic"
            )
        url = base64.b64decode(secret.get("data", {}).get("JOURNAL_URL", "")).decode()
        refuse_sqlite(url, f"secret {made.secret}")

    def rehearse(self, made: Manifests) -> None:
        """Lets the cluster judge every object without keeping any; a Job cannot be changed."""
        files = [file for file in made.files if file not in made.kinds("job")]
        try:
            self.apply(files, "--dry-run=server")
        except Stop as error:
            raise Stop(f"the cluster would refuse it: {error}; nothing was changed") from None

    def migrate(self, made: Manifests) -> None:
        """Runs the migration to its end; raises Stop if it fails."""
        self.ask("delete", "job", made.migration, "--ignore-not-found", "--wait")
        self.apply(made.kinds(*BEFORE))
        while True:
            status = (self.read("job", made.migration) or {}).get("status", {})
            ended = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
            if "Complete" in ended:
                return
            if "Failed" in ended:
                raise Stop(
                    f"the migration of the journal failed: {self.trouble('migrate')}; nothing was "
                    "rolled out"
                )
            time.sleep(1)

    def roll(self, made: Manifests, image: dict[str, str]) -> None:
        """Rolls out, and checks what answers; on failure goes back to what was there."""
        what = f"deployment/{made.deployment}"
        had = self.read(what)
        self.apply([f for f in made.files if f not in made.kinds(*BEFORE, *AFTER)])
        try:
            try:
                kubectl(*self.where, "rollout", "status", what, "--timeout=10m")
            except Stop as error:
                raise Stop(f"{error}: {self.trouble('serve', image['version'])}") from None
            self.check(image)
        except Stop as error:
            if had is None:
                self.ask("delete", what)
                raise Stop(f"{error}; it was the first, and is deleted") from None
            number = had["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
            self.ask("rollout", "undo", what, f"--to-revision={number}")
            kubectl(*self.where, "rollout", "status", what, "--timeout=10m")
            raise Stop(f"{error}; undone: what was there before serves on") from None

    def check(self, image: dict[str, str]) -> None:
        """Asks a new pod what it serves; raises Stop if that is another bundle."""
        pods = self.pods("serve", image["version"])
        if not pods:
            raise Stop(f"there is no pod of version {image['version']}")
        name = pods[0]["metadata"]["name"]
        with self.forwarded(name) as url:
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                    f"{url}/version", timeout=20
                ) as answer:
                    served = json.load(answer)
            except (OSError, ValueError) as error:
                raise Stop(f"{name}: /version does not answer: {error}") from None
        if served.get("digest") != image["bundle"]:
            raise Stop(f"{name} serves bundle {served.get('digest')}, not {image['bundle']}")

    @contextmanager
    def forwarded(self, pod: str) -> Iterator[str]:
        """The address on this machine of a pod's port."""
        command = ["kubectl", *self.where, "port-forward", f"pod/{pod}", ":8000"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout
            assert process.stderr
            found = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
            if not found:
                raise Stop(f"{pod} cannot be reached: {process.stderr.readline().strip()}")
            yield f"http://{found[0]}"
        finally:
            process.terminate()
            process.wait()

    def pods(self, component: str, version: str = "") -> list[Any]:
        """The pods that are not about to end."""
        labels = f"{COMPONENT}={component}" + (f",{VERSION}={version}" if version else "")
        found = self.read("pods", "--selector", labels) or {"items": []}
        return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]

    def trouble(self, component: str, version: str = "") -> str:
        """Why pods do not come up, in a line: what the first says that says anything."""
        for pod in self.pods(component, version):
            for status in pod["status"].get("containerStatuses", []):
                waiting = status["state"].get("waiting", {})
                if "Image" in waiting.get("reason", "") or "Config" in waiting.get("reason", ""):
                    return f"{waiting['reason']}: {waiting.get('message', '')}"
            said = self.ask("logs", pod["metadata"]["name"], "--tail=1").strip()
            if said:
                return said
        return "its pods say nothing; see kubectl get events"


def current_context() -> str:
    """The context that kubectl would use."""
    try:
        return kubectl("config", "current-context").strip()
    except Stop as error:
        hint = "" if "kubectl" in str(error) else "; log in to a cluster, or set KUBECONFIG"
        raise Stop(f"{error}{hint}") from None


def main(arguments: list[str]) -> None:
    """Deploys, renders or checks an environment; raises Stop with what is in the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env")
    parser.add_argument("--context", default="", help="instead of the one that is set")
    parser.add_argument("--render", type=Path, help="a folder: only write the manifests there")
    parser.add_argument("--check", action="store_true", help="only look for what is missing")
    parser.add_argument("--ask", action="store_true", help="whether that cluster is meant, too")
    parser.add_argument("--yes", action="store_true", help="that cluster is meant")
    given = parser.parse_args(arguments)
    image = {"version": "0"} if given.check else json.loads(IMAGE.read_text())
    made = render(given.env, image, given.render or Path("build/kubernetes") / given.env)
    if given.render:
        print(f"{len(made.files)} manifests of version {image['version']} are in {given.render}")
        return
    cluster = Cluster(given.context or current_context(), made.namespace)
    where = f"context {cluster.context}, namespace {cluster.namespace}"
    if not given.check:
        print(f"{where}: version {image['version']}, {image['model']}")
    if (given.ask or not given.check) and not (given.yes or os.environ.get("CI")):
        raise Stop(f"{where}: nothing was changed; add YES=1 if that is the cluster that is meant")
    cluster.require(made)
    if given.check:
        print(f"{where}: all is there")
        return
    cluster.rehearse(made)
    cluster.migrate(made)
    cluster.roll(made, image)
    cluster.apply(made.kinds(*AFTER))
    print(f"{where}: serves version {image['version']}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Stop as stop:
        sys.exit(f"error: {stop}")
