"""A project's own server, of one worker: ciclo.py PACKAGE PORT BUNDLES."""

import sys
from importlib import import_module
from pathlib import Path

package, port, bundles = sys.argv[1:]
serve = import_module(f"{package}.serving.run")
settings = import_module(f"{package}.settings").load()
serve.run(Path(bundles), settings, serve.listen("127.0.0.1", int(port)))
