"""Logs a container engine in to a registry: `login.py ENGINE HOST`.

It takes the first of these that is there, and leaves the engine as it is where none is:

- REGISTRY_USER and REGISTRY_PASSWORD;
- the pipeline's own token, for its own registry only: GITHUB_TOKEN at ghcr.io, GitLab's own;
- a role, for which the pipeline's identity is exchanged (OpenID Connect): no secret is kept.
  AWS_ROLE_ARN; GOOGLE_WORKLOAD_IDENTITY_PROVIDER and GOOGLE_SERVICE_ACCOUNT; AZURE_CLIENT_ID and
  AZURE_TENANT_ID. It takes that cloud's client: aws, gcloud or az.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

Login = tuple[str, str]
"""A user and a password."""


class Stop(Exception):
    """What happened, and what to do, in a line."""


def given(*names: str) -> list[str]:
    """The values of variables, if all are set."""
    found = [os.environ.get(name, "") for name in names]
    return found if all(found) else []


def run(*command: str, stdin: str = "", **environment: str) -> str:
    """What a command says; raises Stop when it is not there or fails."""
    try:
        done = subprocess.run(
            command,
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            env=os.environ | environment,
        )
    except FileNotFoundError:
        what = f"{command[0]} is not there; install it, or set REGISTRY_USER and REGISTRY_PASSWORD"
        raise Stop(what) from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:400]
        raise Stop(f"`{' '.join(command[:3])}` failed: {said}")
    return done.stdout.strip()


def identity(audience: str) -> str:
    """The token that says to `audience` which pipeline this is; raises Stop where there is none.

    Azure's always says `api://AzureADTokenExchange`: see "Oidctoken - Create" in the REST reference
    of Azure DevOps. It names the service connection whose id is AZURE_SERVICE_CONNECTION, whose
    branch control keeps other branches out; the pipeline's own name is the same on each branch.
    """
    if token := os.environ.get("OIDC_TOKEN"):
        return token
    if asked := given("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
        query = f"&audience={quote(audience, safe='')}"
        failed = f"GitHub gave no identity for {audience}"
        return ask(failed, asked[0] + query, asked[1], "value")
    if asked := given("SYSTEM_OIDCREQUESTURI", "SYSTEM_ACCESSTOKEN", "AZURE_SERVICE_CONNECTION"):
        query = f"?api-version=7.1&serviceConnectionId={quote(asked[2], safe='')}"
        failed = f"Azure Pipelines gave no identity for {audience}"
        return ask(failed, asked[0] + query, asked[1], "oidcToken", b"")
    raise Stop(
        "a role is set, but this pipeline has no identity: GitHub gives it with the permission "
        "`id-token: write`, GitLab with `id_tokens:` as OIDC_TOKEN, Azure Pipelines for "
        "AZURE_SERVICE_CONNECTION, the id of a service connection"
    )


def ask(failed: str, url: str, bearer: str, key: str, body: bytes | None = None) -> str:
    """What an address answers under `key`; raises Stop, which says what `failed`, without it."""
    head = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
    head["X-TFS-FedAuthRedirect"] = "Suppress"  # Azure would send a refused token to a sign-in
    try:
        request = urllib.request.Request(url, body, head)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(json.load(answer)[key])
    except (OSError, ValueError, KeyError) as error:
        raise Stop(f"{failed}: {error}") from None


def amazon(host: str, role: str) -> Login:
    """See "AssumeRoleWithWebIdentity" in the reference of AWS STS."""
    region = host.split(".")[3]
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder, "token")
        token.write_text(identity("sts.amazonaws.com"))
        password = run(
            *("aws", "ecr", "get-login-password", "--region", region),
            AWS_ROLE_ARN=role,
            AWS_ROLE_SESSION_NAME="push",
            AWS_WEB_IDENTITY_TOKEN_FILE=str(token),
        )
    return "AWS", password


def google(provider: str, account: str) -> Login:
    """See "Workload Identity Federation" in the documentation of Google Cloud's IAM."""
    audience = f"//iam.googleapis.com/{provider}"
    with tempfile.TemporaryDirectory() as folder:
        token, config = Path(folder, "token"), Path(folder, "config.json")
        token.write_text(identity(f"https:{audience}"))
        known = {
            "type": "external_account",
            "audience": audience,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {"file": str(token)},
            "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/"
            f"projects/-/serviceAccounts/{account}:generateAccessToken",
        }
        config.write_text(json.dumps(known))
        own = {"CLOUDSDK_CONFIG": folder}
        run("gcloud", "auth", "login", "--quiet", f"--cred-file={config}", **own)
        return "oauth2accesstoken", run("gcloud", "auth", "print-access-token", "--quiet", **own)


def azure(host: str, client: str, tenant: str) -> Login:
    """See "Workload identity federation" in the documentation of Microsoft Entra."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"AZURE_CONFIG_DIR": folder}
        token = identity("api://AzureADTokenExchange")
        who = ("--service-principal", "--username", client, "--tenant", tenant)
        run("az", "login", *who, "--federated-token", token, "--output", "none", **own)
        name = ("--name", host.partition(".")[0], "--expose-token")
        password = run("az", "acr", "login", *name, "--query", "accessToken", "-o", "tsv", **own)
    return "00000000-0000-0000-0000-000000000000", password


def login(host: str) -> Login | None:
    """How to log in at a registry; None where nothing says so."""
    own = "ghcr.io" if "GITHUB_ACTOR" in os.environ else os.environ.get("CI_REGISTRY", "")
    ecr = re.fullmatch(r"\d+\.dkr\.ecr\.[\w-]+\.amazonaws\.com(\.cn)?", host)
    gar = host == "gcr.io" or host.endswith((".gcr.io", "-docker.pkg.dev"))
    acr = host.endswith(".azurecr.io")
    if found := given("REGISTRY_USER", "REGISTRY_PASSWORD"):
        return found[0], found[1]
    if host == own and (found := given("GITHUB_ACTOR", "GITHUB_TOKEN")):
        return found[0], found[1]
    if host == own and (found := given("CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD")):
        return found[0], found[1]
    if ecr and (found := given("AWS_ROLE_ARN")):
        return amazon(host, *found)
    if gar and (found := given("GOOGLE_WORKLOAD_IDENTITY_PROVIDER", "GOOGLE_SERVICE_ACCOUNT")):
        return google(*found)
    if acr and (found := given("AZURE_CLIENT_ID", "AZURE_TENANT_ID")):
        return azure(host, *found)
    return None


def main(engine: str, host: str) -> None:
    """Logs the engine in, where a login for the host is known."""
    if found := login(host):
        user, password = found
        run(engine, "login", "--username", user, "--password-stdin", host, stdin=password)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Stop as error:
        sys.exit(f"error: no login at {sys.argv[2]}: {error}")
