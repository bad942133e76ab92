"""How images reach a registry: who logs in, with what, and that no secret is shown."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from harness import ROOT, copy

STAND_IN = """#!{python}
import json, os, pathlib, sys
kept = ("AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "CLOUDSDK_CONFIG", "AZURE_CONFIG_DIR")
own = {{name: os.environ.get(name) for name in kept}}
call = {{"name": {name!r}, "arguments": sys.argv[1:], "own": own}}
if token := os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
    call["token"] = pathlib.Path(token).read_text()
for word in sys.argv[1:]:
    if word.startswith("--cred-file="):
        config = json.loads(pathlib.Path(word.partition("=")[2]).read_text())
        call["config"] = config
        call["token"] = pathlib.Path(config["credential_source"]["file"]).read_text()
if "--password-stdin" in sys.argv:
    call["stdin"] = sys.stdin.read()
with open({log!r}, "a") as log:
    log.write(json.dumps(call) + "\\n")
if {name!r} in os.environ.get("FAILS", ""):
    sys.exit("denied: who are you?")
if "get-login-password" in sys.argv or "print-access-token" in sys.argv or "acr" in sys.argv:
    print("short-lived")
"""
ROLE = {
    "AWS_ROLE_ARN": "arn:aws:iam::1:role/push",
    "GOOGLE_WORKLOAD_IDENTITY_PROVIDER": "projects/1/locations/global/workloadIdentityPools/p/x",
    "GOOGLE_SERVICE_ACCOUNT": "push@it.iam.gserviceaccount.com",
    "AZURE_CLIENT_ID": "client",
    "AZURE_TENANT_ID": "tenant",
}
HIDDEN = {"REGISTRY_USER", "REGISTRY_PASSWORD", "OIDC_TOKEN", *ROLE}
HIDDEN |= {"GITHUB_ACTOR", "GITHUB_TOKEN", "CI_REGISTRY", "SYSTEM_ACCESSTOKEN"}
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.fixture
def login(tmp_path):
    """Runs the script with clients that write down how they are called."""
    home = tmp_path / "bin"
    home.mkdir()
    log = tmp_path / "log"

    def run(host: str, clients: str = "docker aws gcloud az", **own: str):
        log.write_text("")
        for name in clients.split():
            text = STAND_IN.format(python=sys.executable, name=name, log=str(log))
            (home / name).write_text(text)
            (home / name).chmod(0o755)
        kept = {k: v for k, v in os.environ.items() if k not in HIDDEN} | own
        done = subprocess.run(
            [sys.executable, str(ROOT / "template/scripts/login.py"), "docker", host],
            env=kept | {"PATH": str(home)}, capture_output=True, text=True,
        )  # fmt: skip
        return done, [json.loads(line) for line in log.read_text().splitlines()]

    return run


@pytest.fixture
def provider() -> Iterator[str]:
    """The address where a provider says who a job is: GitHub when it is asked, Azure when told."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self, key: str = "value") -> None:
            known = self.headers["Authorization"] == "Bearer asking"
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(json.dumps({key: f"I am {self.path}"}).encode())

        def do_POST(self) -> None:
            self.do_GET("oidcToken")

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/id"
    server.shutdown()
    server.server_close()


@pytest.fixture
def github(provider) -> dict[str, str]:
    return {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{provider}?v=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "asking",
    }


def told(calls: list[dict], name: str) -> dict:
    (found,) = [call for call in calls if call["name"] == name and "login" in call["arguments"]]
    return found


OWN = {"REGISTRY_USER": "ada", "REGISTRY_PASSWORD": "it's $ecret"}
HUB = {"GITHUB_ACTOR": "bo", "GITHUB_TOKEN": "token"}
LAB = {"CI_REGISTRY": "r.gitlab.example", "CI_REGISTRY_USER": "job", "CI_REGISTRY_PASSWORD": "own"}


@pytest.mark.parametrize(
    ("host", "own", "user", "password"),
    [
        ("registry.example:5000", OWN, "ada", "it's $ecret"),
        ("ghcr.io", HUB, "bo", "token"),
        ("ghcr.io", HUB | OWN, "ada", "it's $ecret"),
        ("r.gitlab.example", LAB, "job", "own"),
    ],
    ids=["own", "github", "own first", "gitlab"],
)
def test_a_user_and_a_password(login, host, own, user, password):
    done, calls = login(host, **own)
    assert done.returncode == 0, done.stderr
    assert told(calls, "docker")["arguments"] == [
        "login",
        "--username",
        user,
        "--password-stdin",
        host,
    ]
    assert told(calls, "docker")["stdin"] == password
    assert password not in done.stdout + done.stderr


@pytest.mark.parametrize("own", [HUB, LAB, ROLE, {}], ids=["github", "gitlab", "roles", "nothing"])
def test_a_stranger_is_given_nothing(login, own):
    """A pipeline's own token or a cloud's role is for no other registry."""
    done, calls = login("registry.example", **own)
    assert (done.returncode, calls) == (0, []), done.stderr


def test_a_role_of_amazon(login, github):
    done, calls = login(ECR, **ROLE, **github)
    assert done.returncode == 0, done.stderr
    asked = next(call for call in calls if call["name"] == "aws")
    assert asked["arguments"] == ["ecr", "get-login-password", "--region", "eu-central-1"]
    assert asked["token"] == "I am /id?v=1&audience=sts.amazonaws.com"
    assert asked["own"]["AWS_ROLE_ARN"] == ROLE["AWS_ROLE_ARN"]
    assert (told(calls, "docker")["stdin"], told(calls, "docker")["arguments"][2]) == (
        "short-lived", "AWS",
    )  # fmt: skip


def test_a_role_of_google(login):
    done, calls = login("europe-docker.pkg.dev", **ROLE, OIDC_TOKEN="I am a job")
    assert done.returncode == 0, done.stderr
    asked = told(calls, "gcloud")
    assert asked["token"] == "I am a job"
    assert asked["config"]["audience"].endswith(ROLE["GOOGLE_WORKLOAD_IDENTITY_PROVIDER"])
    assert ROLE["GOOGLE_SERVICE_ACCOUNT"] in asked["config"]["service_account_impersonation_url"]
    assert not Path(asked["own"]["CLOUDSDK_CONFIG"]).exists(), "nothing is left on the machine"
    assert told(calls, "docker")["arguments"][2] == "oauth2accesstoken"


def test_a_role_of_azure(login, github):
    done, calls = login("acme.azurecr.io", **ROLE, **github)
    assert done.returncode == 0, done.stderr
    signed, shown = [call["arguments"] for call in calls if call["name"] == "az"]
    assert signed[:2] == ["login", "--service-principal"]
    assert signed[signed.index("--federated-token") + 1].endswith(
        "api%3A%2F%2FAzureADTokenExchange"
    )
    assert shown[:4] == ["acr", "login", "--name", "acme"]
    assert told([c for c in calls if c["name"] == "docker"], "docker")["stdin"] == "short-lived"


def test_the_identity_of_azure_pipelines(login, provider):
    own = {"SYSTEM_OIDCREQUESTURI": provider, "SYSTEM_ACCESSTOKEN": "asking"}
    done, calls = login("acme.azurecr.io", **ROLE, **own)
    assert (done.returncode, calls) == (1, []), "the pipeline's own name says no branch"
    assert "AZURE_SERVICE_CONNECTION" in done.stderr
    done, calls = login("acme.azurecr.io", **ROLE, **own, AZURE_SERVICE_CONNECTION="a b")
    assert done.returncode == 0, done.stderr
    signed = next(call["arguments"] for call in calls if call["name"] == "az")
    told_token = signed[signed.index("--federated-token") + 1]
    assert told_token == "I am /id?api-version=7.1&serviceConnectionId=a%20b"


@pytest.mark.parametrize(
    ("own", "clients", "says"),
    [
        (ROLE, "docker aws", "this pipeline has no identity"),
        (ROLE | {"OIDC_TOKEN": "t"}, "docker", "aws is not there; install it"),
        (ROLE | {"OIDC_TOKEN": "t", "FAILS": "aws"}, "docker aws", "`aws ecr get-login-password`"),
        (OWN | {"FAILS": "docker"}, "docker", "denied: who are you?"),
        (OWN, "", "docker is not there"),
    ],
    ids=["identity", "client", "refused", "denied", "engine"],
)
def test_what_fails_is_said_in_a_line(login, own, clients, says):
    done, _ = login(ECR, clients, **own)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: no login at {ECR}: ")
    assert says in line
    assert "$ecret" not in line


def test_github_says_no(login, github):
    own = github | {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "wrong"}
    done, calls = login(ECR, **ROLE, **own)
    assert (done.returncode, calls) == (1, [])
    assert "GitHub gave no identity for sts.amazonaws.com: HTTP Error 401" in done.stderr


ENGINE = """#!/bin/sh
printf '%s\\n' "$*" >>'{log}'
case "$*" in "image inspect "*) echo "[\\"${{5%:*}}@sha256:1\\"]" ;; esac
exit {code}
"""


@pytest.mark.parametrize(
    ("registry", "own", "to"),
    [
        ("ghcr.io", {"GITHUB_REPOSITORY": "Acme/Flights"}, "ghcr.io/acme/flights"),
        ("registry.example:5000/team/it", {}, "registry.example:5000/team/it"),
        ("registry.example", {"CI_PROJECT_PATH": "g/it"}, "registry.example/g/it"),
    ],
)
def test_images_are_pushed_where_the_answer_says(registry, own, to, template, tmp_path):
    made, log = copy(template, tmp_path / "it", image_registry=registry), tmp_path / "log"
    (made / "locks").mkdir()
    (made / ".venv" / "bin").mkdir(parents=True)
    for name in ("locks/dev.txt", ".venv/.ready"):
        (made / name).touch()
    (made / ".venv/bin/python").symlink_to(sys.executable)
    engine = tmp_path / "docker"
    hidden = HIDDEN | {"GITHUB_REPOSITORY", "CI_PROJECT_PATH", "BUILD_REPOSITORY_NAME"}
    kept = {k: v for k, v in os.environ.items() if k not in hidden} | own | OWN

    def push(code: int, *more: str) -> subprocess.CompletedProcess[str]:
        engine.write_text(ENGINE.format(log=log, code=code))
        engine.chmod(0o755)
        command = ["make", "push", f"ENGINE={engine}", "TAG=t1", *more]
        return subprocess.run(command, cwd=made, env=kept, capture_output=True, text=True)

    done = push(0)
    assert done.returncode == 0, done.stderr
    asked = log.read_text()
    assert f"login --username ada --password-stdin {registry.partition('/')[0]}" in asked
    for kind in ("serve", "job"):
        assert f"push --quiet {to}/{kind}:t1" in asked
        assert f"pushed {to}/{kind}:t1" in done.stdout
    done = push(1)
    assert (done.returncode != 0, f"pushed {to}" in done.stdout) == (True, False)
    done = push(0, "REGISTRY=")
    assert (done.returncode, "nothing is pushed" in done.stdout) == (0, True)


PUSHING = """#!/bin/sh
case "$*" in
"push --help") echo "{option}" ;;
"tag "*) [ "$2" != gone:tried ] || {{ echo "no such image" >&2; exit 1; }} ;;
"push --quiet --digestfile "*) echo sha256:1 >"$4" ;;
"push --quiet "*) ;;
"image inspect"*) echo '["o/serve@sha256:0", "{team}/serve@sha256:1", "{team}/job@sha256:1"]' ;;
*) exit 9 ;;
esac
"""


@pytest.mark.parametrize("option", ["--digestfile", ""], ids=["podman", "docker"])
def test_the_digests_that_were_pushed_are_written_down(option, tmp_path):
    engine = tmp_path / "engine"
    engine.write_text(PUSHING.format(option=option, team="r.example:5/team"))
    engine.chmod(0o755)
    (tmp_path / "build/model").mkdir(parents=True)
    (tmp_path / "build/model/current").write_text("3")

    def push(image: str) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / "template/scripts/push.py")
        command = [sys.executable, script, str(engine), "r.example:5/team", image, "tried"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = push("flights")
    assert done.returncode == 0, done.stderr
    assert "pushed r.example:5/team/serve:tried-v3" in done.stdout
    assert json.loads((tmp_path / "reports/push.json").read_text()) == {
        "serve": "r.example:5/team/serve@sha256:1", "job": "r.example:5/team/job@sha256:1",
        "model": "r.example:5/team/serve@sha256:1",
    }  # fmt: skip
    signed = (tmp_path / "reports/push.sha256").read_text().splitlines()
    assert signed == [f"1  r.example:5/team/{name}" for name in ("serve", "job", "serve")]
    failed = push("gone")
    assert failed.returncode == 1
    assert failed.stderr.endswith("failed: no such image\n")
