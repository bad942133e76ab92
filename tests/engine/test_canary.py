"""A canary: which requests it answers, and that it ends with what ended it; how both are begun."""

import logging
import os
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from flight_delays import bundle as bundles_module
from flight_delays.errors import UserError
from flight_delays.registry.base import Move
from flight_delays.serving import follow as following
from flight_delays.serving import run as running
from flight_delays.serving.journal.store import Journal
from flight_delays.settings import load

from ..helpers import own_settings, wait_for
from .test_shadow import Start, meters, soon  # noqa: F401 every test is as quick

CANARY = {"canary": 0.3}


def lease(folder: Path, version: str = "2", age: float = 0) -> None:
    """Lets a version answer, as the follower does, so many seconds ago."""
    (folder / "canary").write_text(version)
    os.utime(folder / "canary", (time.time() - age,) * 2)


def share(client: TestClient) -> float:
    """The share that is answered by a canary."""
    return meters(client)["canary_share"]


def canary(start: Start, folder: Path, **more: Any) -> TestClient:
    """A server whose canary answers."""
    lease(folder)
    client = start(serving=CANARY | more)
    wait_for(lambda: share(client) == 0.3)
    return client


def asked(client: TestClient, example: Any, *keys: str | None) -> list[str]:
    """The versions that answered one row of each key."""
    rows = [{"features": example["features"], "key": key} for key in keys]
    return [client.post("/predictions", json=row).json()["version"] for row in rows]


KEYS = [f"person {n}" for n in range(200)]


@pytest.mark.problem
@pytest.mark.format
def test_a_key_has_one_version_and_a_share_of_keys_has_the_canarys(
    start: Start,
    staging: Path,
    examples: list[Any],
    journal_url: str,
) -> None:
    client = canary(start, staging)
    answered = asked(client, examples[0], *KEYS)
    assert 30 < Counter(answered)["2"] < 90
    answered += asked(client, examples[1], *KEYS[:50])
    assert answered[:50] == answered[200:]
    counted = f'predictions_total{{version="2"}} {answered.count("2")}.0'
    assert counted in client.get("/metrics").text
    journal = Journal(journal_url)
    wait_for(lambda: journal.count() == len(answered))
    assert Counter(row.version for row in journal.rows()) == Counter(answered)
    journal.close()


def test_without_a_key_the_requests_id_decides(
    start: Start,
    staging: Path,
    examples: list[Any],
) -> None:
    client = canary(start, staging)
    assert {*asked(client, examples[0], *[None] * 60)} == {"1", "2"}
    client.headers["x-request-id"] = "one"
    assert len({*asked(client, examples[0], *[None] * 20)}) == 1


def test_a_batch_is_answered_by_one_version_and_a_load_test_by_what_is_served(
    start: Start,
    staging: Path,
    examples: list[Any],
) -> None:
    client = canary(start, staging)
    seen = set()
    for n in range(30):
        rows = [{"features": examples[0]["features"], "key": key} for key in KEYS[n : n + 5]]
        answers = client.post("/predictions/batch", json={"rows": rows}).json()["predictions"]
        (version,) = {answer["version"] for answer in answers}
        assert [version] == asked(client, examples[0], KEYS[n]), "that of its first row"
        seen.add(version)
    assert seen == {"1", "2"}
    client.headers["x-load-test"] = "1"
    assert {*asked(client, examples[0], *KEYS[:50])} == {"1"}


def test_it_ends_with_its_lease_and_when_its_version_is_what_is_served(
    start: Start,
    staging: Path,
    bundles: Path,
    examples: list[Any],
) -> None:
    client = canary(start, staging)
    for version, age in (("", 0), ("2", 3600), ("3", 0)):
        lease(staging, version, age)
        wait_for(lambda: share(client) == 0)
        assert {*asked(client, examples[0], *KEYS[:50])} == {"1"}
        lease(staging)
        wait_for(lambda: share(client) == 0.3)
    (staging / "canary").unlink()
    wait_for(lambda: share(client) == 0)
    lease(staging)
    wait_for(lambda: share(client) == 0.3)
    shutil.copytree(staging / "2", bundles / "2")
    (bundles / "current").write_text("2")  # promoted
    wait_for(lambda: share(client) == 0)
    assert {*asked(client, examples[0], *KEYS[:50])} == {"2"}
    lease(staging)  # as if nobody had told the follower yet that it was taken back
    (bundles / "current").write_text("1")
    wait_for(lambda: client.get("/version").json()["version"] == "1")
    time.sleep(0.1)
    assert {*asked(client, examples[0], *KEYS[:50])} == {"1"}


def test_what_it_has_no_answer_for_is_answered_by_what_is_served(
    start: Start,
    staging: Path,
    examples: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = canary(start, staging)
    plain = bundles_module.Bundle.scores_of

    def scores(bundle: Any, derived: Any) -> Any:
        if bundle.version == "2":
            raise ValueError("no")
        return plain(bundle, derived)

    monkeypatch.setattr(bundles_module.Bundle, "scores_of", scores)
    assert {*asked(client, examples[0], *KEYS[:50])} == {"1"}
    rows = [{"features": examples[0]["features"], "key": key} for key in KEYS[:3]]
    for n in range(3):
        assert client.post("/predictions/batch", json={"rows": rows[n:]}).status_code == 200
    assert meters(client)["canary_failed_total"] > 5


def test_what_the_canary_answered_is_not_shown_to_the_shadow(
    start: Start,
    staging: Path,
    examples: list[Any],
) -> None:
    client = canary(start, staging, shadow="staging")
    answered = asked(client, examples[0], *KEYS[:50])
    name = 'shadow_predictions_total{version="2"}'
    wait_for(lambda: meters(client).get(name) == answered.count("1"))


def test_a_canary_of_another_contract_answers_nothing(
    start: Start,
    staging: Path,
    examples: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    manifest = staging / "2" / "manifest.json"
    read = bundles_module.Manifest.model_validate_json(manifest.read_text())
    manifest.write_text(read.model_copy(update={"contract": "another"}).model_dump_json())
    lease(staging)
    client = start(serving=CANARY)
    wait_for(lambda: meters(client)["candidate_refused"] == 1)
    assert {*asked(client, examples[0], *KEYS[:50])} == {"1"}
    assert len([r for r in caplog.records if "follows contract" in r.getMessage()]) == 1


# How both begin


@pytest.mark.parametrize("value", [1, 1.5, -0.1, "nan", "much", True])
def test_a_share_that_is_none_is_refused_in_a_line(value: Any) -> None:
    with pytest.raises(UserError, match=r"^settings: serving\.canary = [^\n]+$"):
        load(serving={"canary": value})


@pytest.mark.parametrize(
    ("env", "given", "said"),
    [
        (
            "staging",
            {"shadow": "staging"},
            r"staging is served here; unset.*SERVING_SHADOW=",
        ),
        ("test", {"canary": 0.1}, r"test is served here; unset.*SERVING_CANARY=0"),
        ("production", {"canary": 0.1}, r"serving\.canary: .*names one version.*CANARY=0"),
        ("production", {"shadow": "staging"}, r"serving\.shadow: .*names one version"),
    ],
)
def test_a_candidate_that_cannot_be_is_refused_in_a_line(
    tmp_path: Path, env: str, given: dict[str, Any], said: str
) -> None:
    (tmp_path / "current").write_text("1")  # as in the image of a version
    with pytest.raises(UserError, match=said):
        running.serve(env, load(serving=given | {"bundles": tmp_path}), follow=False)


def test_a_shadow_needs_a_journal(tmp_path: Path) -> None:
    settings = load(serving={"shadow": "staging", "bundles": tmp_path}, journal={"url": ""})
    with pytest.raises(UserError, match=r"kept in the journal, and there is none"):
        running.serve("production", settings)


def test_no_environment_but_staging_has_a_shadow() -> None:
    with pytest.raises(UserError, match=r"serving\.shadow = 'nowhere'.*'staging'"):
        load(serving={"shadow": "nowhere"})


class Registry:
    """A registry of what each environment holds, and production's moves."""

    def __init__(self, bundle: Path, **holds: str) -> None:
        self.bundle, self.holds = bundle, holds
        self.history: list[Move] = []

    def __call__(self, _: Any) -> "Registry":
        return self

    def alias(self, environment: str) -> str | None:
        return self.holds.get(environment)

    def pull(self, version: str, to: Path, _: str) -> Path:
        shutil.copytree(self.bundle, to / version, dirs_exist_ok=True)
        return to / version

    def moves(self, environment: str, closed: bool = True) -> list[Move]:
        assert environment == "production"
        return self.history if closed else []

    def move(self, kind: str, to: str) -> None:
        move = Move("production", kind, to, self.holds.get("production", ""), "me", "")
        self.history.append(move)
        self.holds["production"] = to


@pytest.fixture
def registry(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Production holds version 4, and staging 5."""
    monkeypatch.chdir(tmp_path)
    for name in own_settings():
        monkeypatch.delenv(name)
    made = Registry(bundle_dir, staging="5")
    made.move("promote", "4")
    monkeypatch.setattr("flight_delays.registry.store.connect", made)
    return made


def test_a_promotion_and_a_rollback_end_the_canary(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    follower = following.CandidateFollower(load(serving=CANARY | {"bundles": tmp_path}))

    def leased() -> str:
        follower.look()
        return (tmp_path / "staging" / "canary").read_text()

    assert leased() == "5"
    registry.move("promote", "5")
    assert leased() == ""
    registry.move("rollback", "4")
    assert [leased(), leased()] == ["", ""], "it was taken back"
    registry.holds["staging"] = "6"
    assert leased() == "6"
    registry.holds["staging"] = "3"
    assert leased() == "", "staging went back, to what is older"
    said = [r.getMessage() for r in caplog.records if "no canary" in r.getMessage()]
    assert len(said) == 2, "once each"
    registry.holds = {"staging": "7"}
    assert leased() == "", "nothing is served"


@pytest.mark.parametrize("lacks", ["", "staging"])
def test_both_environments_are_followed(
    registry: Registry, tmp_path: Path, lacks: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    registry.holds.pop(lacks, None)
    settings = load(serving=CANARY | {"bundles": tmp_path, "poll": 0.01})
    stop = threading.Event()
    thread = threading.Thread(target=following.follow, args=("production", settings, False, stop))
    thread.start()
    try:
        for environment in {"production", "staging"} - {lacks}:
            wait_for((tmp_path / environment / "current").exists)
        if lacks:
            wait_for(lambda: "staging holds no version" in caplog.text)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
