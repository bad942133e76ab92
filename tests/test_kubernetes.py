"""Law 8 for Kubernetes: manifests that the schemas take, and a rollout that goes back when it must.

`make deploy` runs against a stand-in for kubectl, which renders by the real one.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from harness import copy
from manifests import IMAGE, real_kubectl, written
from variants import CYCLED

NAMESPACE = "flight-delays-staging"
DEPLOYMENT = "deployment/flight-delays-serve"
STAND_IN = '''#!{python} -SE
"""kubectl with a state in a file; what it does not know it refuses, except to render."""
import http.server, json, os, pathlib, sys
state = pathlib.Path({state!r})
known = json.loads(state.read_text())
words = [w for w in sys.argv[1:] if not w.startswith("--request-timeout")]
if words[0] == "kustomize":
    os.execv({real!r}, ["kubectl", *words])
if words[:2] == ["config", "current-context"]:
    sys.exit(print("here") if known["context"] else "error: current-context is not set")
context, namespace, words = words[1], words[3], words[4:]
known["calls"].append(" ".join([context, *words[:3]]))
state.write_text(json.dumps(known))
def keep(**new):
    state.write_text(json.dumps(known | new))
if namespace != {namespace!r}:
    sys.exit('namespaces "%s" not found' % namespace)
match words:
    case ["version"]:
        sys.exit(None if known["answers"] else "Unable to connect: connection refused")
    case ["auth", "can-i", verb, what]:
        print("no" if what in known["forbidden"] else "yes")
        sys.exit(what in known["forbidden"])
    case ["get", "secret", "flight-delays", *_]:
        print(json.dumps({{"data": known["secret"]}}) if known["secret"] is not None else "")
    case ["get", "job", _, *_]:
        kind = "Failed" if known["fails"] == "migration" else "Complete"
        status = {{"conditions": [{{"type": kind, "status": "True"}}]}}
        print(json.dumps({{"status": status if known["job"] else {{}}}}))
    case ["get", {deployment!r}, *_]:
        if known["revision"]:
            notes = {{"deployment.kubernetes.io/revision": str(known["revision"])}}
            print(json.dumps({{"metadata": {{"annotations": notes}}}}))
    case ["get", "pods", "--selector", labels, *_]:
        waiting = {{"reason": "ImagePullBackOff", "message": "not found"}}
        how = {{"waiting": waiting}} if known["fails"] == "pull" else {{"running": {{}}}}
        pod = {{"metadata": {{"name": "p"}}, "status": {{"containerStatuses": [{{"state": how}}]}}}}
        print(json.dumps({{"items": [pod]}}))
    case ["delete", "job", _, *_]:
        keep(job=False)
    case ["delete", {deployment!r}]:
        keep(revision=0)
    case ["apply", "--server-side", "--force-conflicts", *files]:
        if "--dry-run=server" in files:
            sys.exit("error: quota exceeded" if known["fails"] == "quota" else None)
        names = [pathlib.Path(f).stem for f in files if f.endswith(".yaml")]
        if any("_job_" in name for name in names):
            keep(job=True)
        if any("_deployment_" in name for name in names):
            keep(revision=known["revision"] + 1, applied=[*known["applied"], *names])
        if any("_cronjob_" in name for name in names):
            keep(applied=[*known["applied"], *names])
    case ["rollout", "status", {deployment!r}, _]:
        if known["fails"] in ("pull", "ready") and not known["undone"]:
            sys.exit("error: deployment exceeded its progress deadline")
    case ["rollout", "undo", {deployment!r}, to]:
        keep(undone=to, revision=known["revision"] + 1)
    case ["logs", _, "--tail=1"]:
        print("error: journal: connection refused")
    case ["port-forward", "pod/p", ":8000"]:
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                digest = "ffff" if known["fails"] == "other" else {bundle!r}
                self.send_response(200 if self.path == "/version" else 404)
                self.end_headers()
                self.wfile.write(json.dumps({{"version": "3", "digest": digest}}).encode())
        server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
        print("Forwarding from 127.0.0.1:%d -> 8000" % server.server_port, flush=True)
        server.handle_request()
    case _:
        sys.exit("unknown command: %s" % words)
'''


@pytest.fixture(scope="module")
def rendered(template, tmp_path_factory) -> Path:
    """A project for Kubernetes."""
    return copy(template, tmp_path_factory.mktemp("kubernetes") / "it", deployment="kubernetes")


@pytest.fixture
def project(rendered, tmp_path) -> Path:
    """The same, of which an image was pushed."""
    made = shutil.copytree(rendered, tmp_path / "it")
    (made / "reports").mkdir()
    (made / "reports" / "image.json").write_text(json.dumps(IMAGE))
    return made


@pytest.fixture
def deploy(project, tmp_path):
    """Runs the script in a cluster where all is well but what is told; returns it and the state."""
    tools, state = tmp_path / "bin", tmp_path / "state"
    tools.mkdir()
    own = {"python": sys.executable, "state": str(state), "real": real_kubectl()}
    own |= {"namespace": NAMESPACE, "deployment": DEPLOYMENT, "bundle": IMAGE["bundle"]}
    (tools / "kubectl").write_text(STAND_IN.format(**own))
    (tools / "kubectl").chmod(0o755)

    def run(*arguments: str, path: str = str(tools), **known: Any):
        secret = {"JOURNAL_URL": base64_of("postgresql+psycopg://me:secret@db/journal")}
        well = {"context": True, "answers": True, "forbidden": [], "secret": secret, "fails": ""}
        well |= {"job": False, "revision": 7, "undone": "", "applied": [], "calls": []}
        state.write_text(json.dumps(well | known))
        done = subprocess.run(
            [sys.executable, "scripts/deploy.py", *(arguments or ("staging", "--yes"))],
            cwd=project, env={"PATH": path}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert "secret@" not in done.stdout + done.stderr
        return done, json.loads(state.read_text())

    return run


def base64_of(text: str) -> str:
    """As a secret keeps a text."""
    return base64.b64encode(text.encode()).decode()


def objects(folder: Path) -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]


@pytest.fixture(scope="module", params=CYCLED["name"])
def manifests(request, template, tmp_path_factory) -> dict[str, Path]:
    """The folders of what each environment is made of, for each form of a name."""
    home = tmp_path_factory.mktemp("manifests")
    made = copy(template, home / "it", deployment="kubernetes", name=request.param)
    overlay = made / "deploy/kubernetes/overlays/production/kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("# - ../../comp", "- ../../comp"))
    return written(made)


def test_the_schemas_take_every_object(manifests):
    for folder in manifests.values():
        for made in objects(folder):
            if not made["apiVersion"].startswith("monitoring."):
                kubernetes_validate.validate(made, "1.37", strict=True)


def test_each_environment_has_what_it_needs_and_no_more(manifests):
    kinds = {
        environment: sorted({made["kind"] for made in objects(folder)})
        for environment, folder in manifests.items()
    }
    assert kinds["test"] == kinds["staging"]
    more = {"CronJob", "PrometheusRule", "ServiceMonitor"}
    assert {*kinds["production"]} - {*kinds["test"]} == more
    for environment, folder in manifests.items():
        for made in objects(folder):
            assert made["metadata"]["namespace"].endswith(f"-{environment}")
            assert made["metadata"]["labels"]["app.kubernetes.io/version"] == IMAGE["version"]
        (serve,) = (made for made in objects(folder) if made["kind"] == "Deployment")
        (container,) = serve["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["serve", "--no-follow", "--env", environment]
        assert "version" not in str(serve["spec"]["selector"]), "it cannot be changed later"


def pods(folder: Path) -> list[dict[str, Any]]:
    """The specification of each pod."""
    found = []
    for made in objects(folder):
        spec = made.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found.append(spec["template"]["spec"])
    return found


def test_pods_are_restricted_and_any_user_may_be_chosen(manifests):
    for folder in manifests.values():
        assert len(pods(folder)) >= 2
        for pod in pods(folder):
            assert pod["securityContext"] == {
                "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"},
            }  # fmt: skip
            assert pod["automountServiceAccountToken"] is False
            assert pod["enableServiceLinks"] is False
            for container in pod["containers"]:
                assert re.fullmatch(r"[^@]+@sha256:[0-9a-f]{64}", container["image"])
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }  # fmt: skip
                assert "memory" in container["resources"]["limits"]


def test_the_alerts_are_those_of_the_service(manifests, rendered):
    (rule,) = (m for m in objects(manifests["production"]) if m["kind"] == "PrometheusRule")
    alerts = yaml.safe_load((rendered / "deploy/prometheus/alerts.yml").read_text())
    assert rule["spec"]["groups"] == [g for g in alerts["groups"] if g["name"] == "service"]


def test_a_version_is_rolled_out_after_the_migration_and_checked(deploy):
    done, state = deploy()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"context here, namespace {NAMESPACE}: version 3, {IMAGE['model']}",
        f"context here, namespace {NAMESPACE}: serves version 3",
    ]
    assert (state["revision"], state["undone"]) == (8, "")
    verbs = "get apply delete apply get get apply rollout get port-forward"
    assert [call.split()[1] for call in state["calls"]] == [
        "version",
        *["auth"] * 6,
        *verbs.split(),
    ]
    assert not any("_job_" in name for name in state["applied"])


def test_the_context_can_be_chosen(deploy):
    done, state = deploy("staging", "--yes", "--context", "there")
    assert done.returncode == 0
    assert all(call.startswith("there ") for call in state["calls"])


def gone(url: str) -> dict[str, str]:
    return {"JOURNAL_URL": base64_of(url)}


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"context": False}, "current-context is not set; log in to a cluster, or set KUBECONFIG"),
        ({"answers": False}, "the cluster of context here does not answer: Unable to connect"),
        ({"forbidden": ["jobs.batch"]}, f"you may not create jobs.batch in {NAMESPACE} (no)"),
        ({"secret": None}, f"namespace {NAMESPACE} is not there or has no secret flight-delays"),
        ({"secret": {}}, "JOURNAL_URL says nothing, and pods need postgresql"),
        ({"secret": gone("sqlite:///var/journal.db")}, "JOURNAL_URL says sqlite, and pods need"),
        ({"fails": "quota"}, "the cluster would refuse it: quota exceeded; nothing was changed"),
        ({"fails": "migration"}, "migration of the journal failed: error: journal: connection ref"),
    ],
)
def test_what_is_missing_is_one_line_and_the_old_one_serves_on(known, said, deploy):
    done, state = deploy(**known)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert (state["revision"], state["applied"]) == (7, [])


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("pull", "progress deadline: ImagePullBackOff: not found; undone"),
        ("ready", "progress deadline: error: journal: connection refused; undone"),
        ("other", f"p serves bundle ffff, not {IMAGE['bundle']}; undone: what was there before"),
    ],
)
def test_what_does_not_come_up_is_undone(fails, said, deploy):
    done, state = deploy(fails=fails)
    assert done.returncode == 1
    assert said in done.stderr
    assert state["undone"] == "--to-revision=7"
    done, state = deploy("production", "--yes", fails=fails)
    assert "namespaces" in done.stderr


def test_a_first_rollout_that_fails_leaves_nothing(deploy):
    done, state = deploy(fails="ready", revision=0)
    assert "it was the first, and is deleted" in done.stderr
    assert state["revision"] == 0


def test_nothing_is_changed_before_the_cluster_is_confirmed(deploy, tmp_path):
    done, state = deploy("staging")
    assert done.returncode == 1
    assert "nothing was changed; add YES=1" in done.stderr
    assert state["calls"] == []
    done, _ = deploy("staging", "--check")
    assert done.stdout == f"context here, namespace {NAMESPACE}: all is there\n"
    assert "add YES=1" in deploy("staging", "--check", "--ask")[0].stderr
    done, _ = deploy(path=str(tmp_path / "empty"))
    assert done.stderr == "error: kubectl is not there; install it\n"


def test_manifests_are_written_without_a_cluster(deploy, project):
    (project / "out").mkdir()
    (project / "out" / "own.yaml").touch()
    (project / "out" / "v1_service_old.yaml").touch()
    done, state = deploy("staging", "--render", "out", answers=False, context=False)
    assert "manifests of version 3 are in out" in done.stdout
    assert state["calls"] == []
    assert (project / "out" / "own.yaml").exists()
    assert not (project / "out" / "v1_service_old.yaml").exists()
    with (project / "deploy/kubernetes/overlays/staging/settings.env").open("a") as settings:
        settings.write("JOURNAL_URL=sqlite:///var/journal.db\n")
    done, _ = deploy("staging", "--render", "out")
    assert "settings.env: JOURNAL_URL says sqlite" in done.stderr
    done, _ = deploy("nowhere", "--render", "out")
    assert "ENV=nowhere: deploy/kubernetes/overlays/nowhere is not there" in done.stderr
