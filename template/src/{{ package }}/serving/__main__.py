"""`python -m <package>.serving FOLDER [PORT]`: serves a bundle, or a folder with `current`."""

import sys
from pathlib import Path

from ..errors import UserError
from ..settings import load
from .run import listen, run


def main() -> None:
    """Serves until SIGTERM or Ctrl-C; needs nothing but the bundle and a writable var/."""
    if len(sys.argv) not in (2, 3):
        sys.exit("error: say which folder to serve: python -m <package>.serving FOLDER [PORT]")
    settings = load(serving={"port": sys.argv[2]} if len(sys.argv) == 3 else {})
    run(Path(sys.argv[1]), settings, listen(settings.serving.host, settings.serving.port))


try:
    main()
except UserError as error:
    sys.exit(f"error: {error}")
