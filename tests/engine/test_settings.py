"""Settings: which source wins, and what is refused."""

from pathlib import Path

import pytest

from flight_delays import settings
from flight_delays.errors import UserError


@pytest.fixture(autouse=True)
def alone(project: Path) -> None:
    """A folder and an environment of the test's own."""


def test_flags_win_over_environment_over_file_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.load().serving.port == 8000
    Path("settings.toml").write_text("[serving]\nport = 8001\n[monitor]\nwindow = 77\n")
    assert settings.load().serving.port == 8001
    monkeypatch.setenv("SERVING_PORT", "8002")
    assert settings.load().serving.port == 8002
    assert settings.load(serving={"port": 8003}).serving.port == 8003
    assert settings.load(serving={"port": 8003}).monitor.window == 77


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serving]\nprot = 1\n", "serving.prot = 1"),
        ("[serving]\nport = 'many'\n", "serving.port = 'many'"),
        ("[serving]\nport = 70000\n", "serving.port = 70000"),
        ("[serving]\nlog_level = 'loud'\n", "serving.log_level = 'LOUD'"),
        ("[load]\np95_ms = nan\n", "load.p95_ms = nan"),
        ("[served]\nport = 1\n", "served"),
        ("[serving\n", "settings.toml"),
    ],
)
def test_what_does_not_fit_is_named(text: str, said: str) -> None:
    Path("settings.toml").write_text(text)
    with pytest.raises(UserError) as error:
        settings.load()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_level_may_be_written_in_small_letters() -> None:
    assert settings.load(serving={"log_level": "info"}).serving.log_level == "INFO"


def test_a_setting_of_several_kinds_is_one_error() -> None:
    said = r"^settings: monitor.window = 20: Input should be greater than or equal to 30 or 'day'"
    with pytest.raises(UserError, match=said) as error:
        settings.load(monitor={"window": 20})
    assert "constrained" not in str(error.value)
    with pytest.raises(UserError, match=r"train\.windows\.1 = 'x': Input should be a valid number"):
        settings.load(train={"windows": [1, "x"]})


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "rows.csv")
    monkeypatch.setenv("MODEL_SERVER_WORKERS", "4")
    monkeypatch.setenv("MODEL", "{")
    assert settings.load().model.name
