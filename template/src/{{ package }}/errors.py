"""The errors a person is meant to read."""


class UserError(Exception):
    """Says in one line what happened, which value, and what to do; shown without a traceback."""


class BundleError(UserError):
    """A bundle that is damaged, does not reproduce its examples, or follows another contract."""


class RegistryUnavailable(UserError):
    """The registry did not answer; what is served goes on, and the call may be tried again."""
