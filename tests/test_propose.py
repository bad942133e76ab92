"""What becomes of an update in a pipeline, for each provider over a stand-in of its client."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from fake_provider import RUN, FakeProvider

RUNS = RUN | {"azure": {**RUN["azure"], "SYSTEM_ACCESSTOKEN": "$(System.AccessToken)"}}
PLACE = {
    "SYSTEM_COLLECTIONURI": "https://dev.azure.com/org",
    "SYSTEM_TEAMPROJECT": "project",
    "BUILD_REPOSITORY_NAME": "it",
}
JOB = {"github": {"GH_TOKEN": "job"}, "gitlab": {"CI_TOKEN": "job"}}
JOB["azure"] = {"SYSTEM_ACCESSTOKEN": "job"}
TITLE = "Update from ciclo v1.0.0 to v1.1.0"
Proposing = Callable[..., tuple[int, str]]


@pytest.fixture
def proposing(provider: FakeProvider, tmp_path) -> Proposing:
    """A project with a remote and an update in its tree; what `propose` does with it."""
    made, remote = provider.project, tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    subprocess.run(["git", "-C", made, "remote", "set-url", "origin", remote], check=True)

    def run(report: Any = (), **environment: str) -> tuple[int, str]:
        found = {"from": "v1.0.0", "to": "v1.1.0", "changed": 1, "conflicts": [], "kept": []}
        (made / "reports").mkdir(exist_ok=True)
        (made / "reports/update.json").write_text(json.dumps(found | dict(report)))
        (made / "Makefile").write_text((made / "Makefile").read_text() + "# newer\n")
        (made / "new.txt").write_text("a new file\n")
        own = {**RUNS[provider.ci], **PLACE, "CI_PROJECT_URL": str(tmp_path / "remote")}
        return provider("propose", **own | environment)

    return run


def asked(provider: FakeProvider) -> list[str]:
    """The calls that made something, each after the token that made it."""
    making = ("create", "POST")
    return [
        f"{call['token']}: {' '.join(call['words'])}"
        for call in provider.client()["log"]
        if any(word in call["words"] for word in making)
    ]


def test_with_a_token_a_branch_is_pushed_and_a_request_opened(provider, proposing, tmp_path):
    for _ in range(2):  # the second time as after a run that was killed
        provider.client(requests=[], log=[])
        code, said = proposing(UPDATE_TOKEN="team", **JOB[provider.ci])
        assert (code, "ciclo-v1.1.0 is proposed" in said) == (0, True), said
        (made,) = asked(provider)
        assert made.startswith("team: ")
        assert provider.client()["requests"] == ["ciclo-v1.1.0"]
        assert provider.client()["issues"] == []
    shown = ["git", "-C", tmp_path / "remote.git", "show", "ciclo-v1.1.0:Makefile"]
    assert "# newer" in subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    code, said = proposing(UPDATE_TOKEN="team")
    assert (code, "was proposed already" in said) == (0, True)
    assert len(asked(provider)) == 1


@pytest.mark.parametrize(
    ("token", "report", "refuse", "told"),
    [
        ("", {}, "", "had the pipeline the secret UPDATE_TOKEN"),
        ("team", {"conflicts": ["Makefile"]}, "", "for a person to look at: Makefile"),
        ("team", {"kept": ["deploy.mk"]}, "", "for a person to look at: deploy.mk"),
        ("team", {}, "ciclo-v1.1.0", "No request to merge could be opened: `"),
    ],
    ids=["no-token", "conflict", "kept", "refused"],
)
def test_else_an_issue_shows_the_diff(provider, proposing, token, report, refuse, told):
    job = JOB[provider.ci]
    if provider.ci == "azure" and not token:
        pytest.skip("the job's own token may push there")
    provider.client(refuse=refuse, says="HTTP 422: no")
    for _ in range(2):
        code, said = proposing(report, UPDATE_TOKEN=token, **job)
        assert code == 0, said
    assert "an open issue says so already" in said
    assert provider.client()["issues"] == [TITLE]
    body = provider.client()["body"]
    assert told in body
    if not refuse:
        assert "+# newer" in body
        assert "+a new file" in body


def test_the_job_s_own_token_proposes_on_azure(provider, proposing):
    code, said = proposing(**JOB[provider.ci])
    assert code == 0, said
    state = provider.client()
    assert bool(state["requests"]) == (provider.ci == "azure")
    assert bool(state["issues"]) == (provider.ci != "azure")
    assert asked(provider)[0].startswith("job: ")


def test_without_any_token_the_end_is_clear(provider, proposing):
    if provider.ci == "github":
        pytest.skip("gh says so itself")
    code, said = proposing()
    assert (code, said.count("\n")) == (1, 1)
    assert "error: the update could not be proposed; " in said
    assert "UPDATE_TOKEN" in said
    assert provider.client()["log"] == []


def test_a_token_that_may_not_speak_is_told_so(provider, proposing):
    provider.client(refuse="issues --method", says="403 Forbidden (HTTP 403)")
    code, said = proposing(**JOB[provider.ci])
    if provider.ci == "gitlab":
        assert (code, said.count("\n")) == (1, 1)
        assert "HTTP 403" in said
        assert "UPDATE_TOKEN" in said


def test_nothing_newer_proposes_nothing(provider, proposing):
    code, said = proposing({"changed": 0}, UPDATE_TOKEN="team")
    assert (code, "nothing to propose" in said) == (0, True)
    assert provider.client()["log"] == []


def test_git_takes_the_token_from_the_environment(provider):
    """As git asks for a login: the token is in no address, no argument, and no output."""
    text = (provider.project / "scripts/propose.py").read_text()
    helper = next(line for line in text.splitlines() if line.startswith("HELPER"))
    scope: dict[str, str] = {}
    exec(helper, scope)
    filled = subprocess.run(
        ["git", "-c", "credential.helper=", "-c", f"credential.helper={scope['HELPER']}",
         "credential", "fill"],
        input="protocol=https\nhost=git.example\n\n", text=True, capture_output=True, check=True,
        env={"PATH": "/usr/bin:/bin", "AS": "oauth2", "TOKEN": "team", "GIT_TERMINAL_PROMPT": "0"},
    )  # fmt: skip
    assert "username=oauth2\npassword=team" in filled.stdout
