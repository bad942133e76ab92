"""The errors a person is meant to read."""

import errno
import os
import re


class UserError(Exception):
    """Says in one line what happened, which value, and what to do; shown without a traceback."""


class BundleError(UserError):
    """A bundle that is damaged, does not reproduce its examples, or follows another contract."""


class Unreadable(UserError):
    """A bundle that could not be read now, for lack of memory or file handles, say.

    Nothing is known to be wrong with it: what is served goes on, and it may be tried again.
    """


class RegistryUnavailable(UserError):
    """The registry did not answer; what is served goes on, and the call may be tried again."""


class NotPermitted(RegistryUnavailable):
    """The registry does not let this account do that."""


class StoreUnavailable(UserError):
    """The store of snapshots did not do what it was asked; the call may be tried again."""


_LONGEST = 300
# Up to the last @: a password may hold every other sign, @ too where nobody escaped it.
_PASSWORD = re.compile(r"(://[^/@:?#]*):.*@")
_SECRET = re.compile(
    r"([?&][^=&#]*(?:pass|pwd|secret|token|key|sig|credential|odbc_connect)[^=&#]*=)[^&#]*",
    re.IGNORECASE,
)
# How the system, Python and onnxruntime say that there was no memory or no file handle.
_SHORT = re.compile(
    "bad_alloc|failed to allocate|out of memory|system error number|can't start new thread|"
    + "|".join(os.strerror(n) for n in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)),
    re.IGNORECASE,
)


def shown(uri: str) -> str:
    """The address without passwords and keys, for a message or a record."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", uri))


def reason(error: BaseException, uri: str = "") -> str:
    """What an error says, in a line, without the passwords of addresses; never raises.

    Of an error of SQLAlchemy it is the database's own; of a chain of urllib3's, where it began; of
    one that says nothing, its kind.
    """
    try:
        text = str(getattr(error, "orig", None) or error)
    except Exception:  # an error's own __str__ may fail, too
        text = ""
    lines = [line.strip() for line in text.splitlines()]
    text = next(filter(None, lines), "").rpartition("(Caused by ")[2] or type(error).__name__
    text = (text.replace(uri, shown(uri)) if uri else text)[: 3 * _LONGEST]
    return re.sub(r"\S+://\S+", lambda found: shown(found[0]), text)[:_LONGEST]


def passing(error: BaseException) -> bool:
    """Whether an error tells of the machine's state, not of what was read: it may pass."""
    if isinstance(error, OSError | MemoryError):
        return isinstance(error, MemoryError) or error.errno is not None
    return not isinstance(error, UserError) and bool(_SHORT.search(reason(error)))
