"""The errors a person is meant to read."""

import re


class UserError(Exception):
    """Says in one line what happened, which value, and what to do; shown without a traceback."""


class BundleError(UserError):
    """A bundle that is damaged, does not reproduce its examples, or follows another contract."""


class RegistryUnavailable(UserError):
    """The registry did not answer; what is served goes on, and the call may be tried again."""


class NotPermitted(RegistryUnavailable):
    """The registry does not let this account do that."""


def shown(uri: str) -> str:
    """The address without the password, for a message or a record."""
    return re.sub(r"(://[^/@:]*):[^@/]*@", r"\1:***@", uri)


def reason(error: Exception, uri: str = "") -> str:
    """What an error says, in a line, without a password that stands in `uri`."""
    text = str(error).partition("\n")[0] or type(error).__name__
    return text.replace(uri, shown(uri)) if uri else text
