"""A project's own server, of `serving.workers` workers: ciclo.py PACKAGE PORT BUNDLES."""

import sys
from importlib import import_module
from pathlib import Path


def main() -> None:
    package, port, bundles = sys.argv[1:]
    serve = import_module(f"{package}.serving.run")
    settings = import_module(f"{package}.settings").load()
    work = Path(bundles), settings, serve.listen("127.0.0.1", int(port))
    if settings.serving.workers == 1:
        serve.run(*work)
    else:
        processes = import_module(f"{package}.serving.workers.processes")
        given = settings.serving.workers, settings.serving.stop_seconds
        processes.keep(*given, serve.run, *work, "")


if __name__ == "__main__":
    main()
