"""What errors say: one line, always, and never a password."""

import errno
import os

import pytest
import sqlalchemy as sa

from flight_delays import errors
from flight_delays.training import provenance


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql+psycopg://u:pw@h/db", "postgresql+psycopg://u:***@h/db"),
        ("postgresql+psycopg://u:p/w@h/db#t", "postgresql+psycopg://u:***@h/db#t"),
        ("postgresql://u:p@w:x?y#z@h:5432/db", "postgresql://u:***@h:5432/db"),
        ("postgresql://:pw@h/db", "postgresql://:***@h/db"),
        ("postgresql://h/db?user=u&password=pw", "postgresql://h/db?user=u&password=***"),
        ("postgresql://h/db?PASSWORD=pw&sslmode=no#t", "postgresql://h/db?PASSWORD=***&sslmode=no#t"),
        ("https://s3.example/b/k?X-Amz-Signature=pw", "https://s3.example/b/k?X-Amz-Signature=***"),
        ("s3://b/k.csv?aws_secret_access_key=pw", "s3://b/k.csv?aws_secret_access_key=***"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dpw", "mssql+pyodbc:///?odbc_connect=***"),
        ("http://user:pw@mlflow:5000/path", "http://user:***@mlflow:5000/path"),
        ("http://mlflow:5000/path", "http://mlflow:5000/path"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("postgresql://nobody@h/db", "postgresql://nobody@h/db"),
        ("sqlite:///var/journal.db", "sqlite:///var/journal.db"),
        ("data/rows@home.csv", "data/rows@home.csv"),
        ("", ""),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_secrets(uri: str, shown: str) -> None:
    assert errors.shown(uri) == shown
    assert errors.shown(shown) == shown
    assert "pw" not in errors.reason(ValueError(f"cannot open {uri}: no"))
    assert "pw" not in errors.reason(ValueError(f"cannot open '{uri}'"), uri)


class Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


CAUSE = "NewConnectionError('refused')"
DATABASE = sa.exc.OperationalError("SELECT secret", {}, Exception("\n server closed \n again"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "MemoryError"),
        (ValueError("\n\n"), "ValueError"),
        (ValueError(" \n the cause\nmore"), "the cause"),
        (Mute(), "Mute"),
        (DATABASE, "server closed"),
        (ValueError("x" * 1000), "x" * 300),
        (OSError(f"{'x' * 1000} (Caused by {CAUSE})"), f"{CAUSE})"),
    ],
)
def test_a_reason_is_one_line_whatever_the_error(error: Exception, said: str) -> None:
    assert errors.reason(error) == said


def test_what_tells_of_the_machine_may_pass() -> None:
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EACCES):
        assert errors.passing(OSError(number, os.strerror(number), "model"))
    for text in ("RUNTIME_EXCEPTION : std::bad_alloc", "failed: system error number 24"):
        assert errors.passing(RuntimeError(text))
    assert errors.passing(ImportError("x.so: cannot open shared object: Too many open files"))
    for wrong in (ValueError("no model"), OSError("not a gzipped file"), EOFError(), Mute()):
        assert not errors.passing(wrong)
    assert not errors.passing(errors.BundleError("model: std::bad_alloc; refused"))


@pytest.mark.parametrize("error", [KeyError("uid"), OSError("No username set"), ImportError("pwd")])
def test_a_user_without_a_name_has_a_number(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:

    def nobody() -> str:
        raise error

    monkeypatch.setattr(provenance.getpass, "getuser", nobody)
    monkeypatch.setattr(provenance.os, "getuid", lambda: 54321)
    assert provenance.user() == "uid 54321"
