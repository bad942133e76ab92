"""What W&B alone does: lists that lag, rights that only the client warns of, no key, no network."""
# ruff: noqa: F811

import os
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import wandb

from flight_delays import bundle as bundles
from flight_delays import errors, settings
from flight_delays.registry import history, store
from flight_delays.registry.base import Registry
from flight_delays.registry.folder import FolderRegistry

from ..helpers import copied
from .servers import SOURCE
from .test_port import (  # noqa: F401
    known,
    made,
    opened,
    port,
    promoted,
    registered,
    three,
)

ACCOUNT = {
    name: os.environ[name]
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_ORGANIZATION")
    if name in os.environ
}
"""Of whoever runs the tests; they themselves have a stand-in's."""
server = pytest.mark.parametrize("opened", ["wandb"], indirect=True)


@server
def test_what_is_written_is_waited_for(port: Any, known: Registry, made: Any) -> None:
    port.server.lag = 0.7
    time.sleep(1)
    new = registered(known, made)
    assert known.numbers()[0] == new
    promoted(known, "staging", new)
    assert [m.to for m in port.connect().moves("staging")] == [new]


@server
def test_a_note_that_was_not_kept_is_said(
    port: Any, known: Registry, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known.tag(three[0], "load", "before")
    port.server.read_only = {known.name}
    with port.protected("none"):
        mine = port.connect()
        with pytest.raises(errors.NotPermitted, match=r"keeps no note of yours"):
            mine.tag(three[0], "load", "after")
        mine.set_alias("staging", three[0])
    assert port.connect().note(three[0], "load") == "before"
    assert port.connect().alias("staging") == three[0]


@server
@pytest.mark.parametrize("entity", ["nobody", "admin"])
def test_an_entity_that_is_no_team_is_said(
    port: Any, entity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not there, and a person's own, who is in no organization."""
    monkeypatch.setenv("WANDB_ENTITY", entity)
    for call in (lambda: port.connect().numbers(), lambda: port.connect().run("it").__enter__()):
        with pytest.raises(errors.UserError, match=rf"(?s)^(?!.*\n).*{entity}.*WANDB_ENTITY"):
            call()


@server
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_refuses_for_now_is_said_in_time(
    port: Any, three: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it names an hour to wait."""
    monkeypatch.setattr(store, "TIMEOUT", 2)
    port.server.failing = (status, "not now")
    for call in (lambda: port.connect().numbers(), lambda: port.connect().run("it").__enter__()):
        begun = time.monotonic()
        with pytest.raises(errors.RegistryUnavailable) as caught:
            call()
        assert time.monotonic() - begun < 20
        (line,) = str(caught.value).splitlines()
        assert "no good answer within 2 s; is it down, unreachable, or limiting requests?" in line
    port.server.failing = None
    assert port.connect().numbers() == three[::-1]


@server
def test_a_registry_that_is_not_there_is_named(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_REGISTRY", "nobody-s")
    with pytest.raises(errors.UserError, match=r"no registry nobody-s.*set MODEL_REGISTRY"):
        port.connect().run("train")


@server
def test_no_key_is_said_in_a_line(
    port: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(errors.UserError, match=r"set WANDB_API_KEY or .* WANDB_MODE=offline"):
        store.connect(settings.load())


@server
def test_a_wrong_key_is_said_in_a_line(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with port.protected("none"):
        monkeypatch.setenv("WANDB_API_KEY", "c" * 40)
        with pytest.raises(errors.RegistryUnavailable, match=r"invalid API key.*WANDB_BASE_URL"):
            port.connect().numbers()


@server
@pytest.mark.parametrize(
    ("name", "value"), [("WANDB_BASE_URL", "wandb.example"), ("WANDB_HTTP_TIMEOUT", "soon")]
)
def test_a_variable_that_the_client_refuses_is_named(
    port: Any, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    wandb.teardown()
    with pytest.raises(errors.UserError, match=rf"^WANDB_\w+={re.escape(value)}: Input should be"):
        store.connect(settings.load())


@server
def test_a_key_with_a_line_end_is_said_and_not_shown(
    port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40 + "\n")
    wandb.teardown()
    with pytest.raises(errors.UserError, match=r"^W&B's variables .* end with whitespace$"):
        store.connect(settings.load())


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    """A pipeline hands on what it does not have as an empty text."""
    code = "import flight_delays.registry.store as s; print(s.credentials())"
    told = {"WANDB_BASE_URL": "", "WANDB_MODE": "", "WANDB_API_KEY": "k" * 40}
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=own | told | {"PYTHONPATH": str(SOURCE)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "WANDB_API_KEY\n", done.stderr


@pytest.mark.skipif("WANDB_API_KEY" not in ACCOUNT, reason="WANDB_API_KEY names no account")
def test_a_real_server_does_as_the_stand_in(
    home: Path, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it makes stays there, under a new name: a collection, and two projects of runs."""
    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with copied(home, tmp_path):
        for name, value in {**ACCOUNT, "MODEL_NAME": f"ciclo-{uuid.uuid4().hex[:8]}"}.items():
            monkeypatch.setenv(name, value)
        known = store.connect(settings.load())
        first, second = (registered(known, made) for _ in range(2))
        assert known.numbers() == [second, first]
        promoted(known, "staging", first, second)
        known.tag(second, "load", "a note")
        other = store.connect(settings.load())
        assert (other.alias("staging"), other.note(second, "load")) == (second, "a note")
        assert bundles.load(other.pull(second, tmp_path / "to")).manifest.run
        assert history.rollback("staging", other).to == first
        assert known.alias("staging") == first
        assert [m.to for m in known.moves("staging")] == [first, second, first]
    wandb.teardown()


@server
def test_offline_nothing_is_sent(port: Any, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    before = port.server.met - Counter(telemetry=10**6)  # the client's own, of its sessions before
    local = store.connect(settings.load())
    assert isinstance(local, FolderRegistry)
    version = registered(local, made)
    promoted(local, "staging", version)
    assert local.alias("staging") == version
    assert port.server.met - Counter(telemetry=10**6) == before
