"""The application of all commands. Heavy imports stay inside the commands."""

import sys

import typer

from ..errors import UserError
from ..events import outbox
from . import doctor, lifecycle, own, serving

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The life cycle of the model, a command a step.",
)
for part in (own, lifecycle, serving, doctor):
    app.add_typer(part.app)


def main() -> None:
    """Runs a command; an error meant for a person is one line, without a traceback.

    Then it sends the events that wait in the outbox.
    """
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:  # no file of a person's: ours to find
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        outbox.send()
