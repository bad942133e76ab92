"""Pushes images, and writes their digests to reports/push.json: `push.py ENGINE REMOTE IMAGE TAG`.

reports/push.sha256 has the same as `sha256sum` writes it, for what attests their provenance.

The image of a version, if `make image` was told one, is pushed beside the server's: no registry
that must know its repositories needs another one, and they share their layers.
"""

import json
import sys
import tempfile
from pathlib import Path

from login import Stop, run

BAKED = Path("build/model/current")
REPORT = Path("reports/push.json")
SUMS = Path("reports/push.sha256")


def push(engine: str, image: str, to: str) -> str:
    """Pushes an image, and returns its reference by digest; raises Stop where that fails."""
    run(engine, "tag", image, to)
    repository = to.rpartition(":")[0]
    # What podman keeps is not compressed: only what it pushed has the digest that is pulled.
    if "--digestfile" in run(engine, "push", "--help"):
        with tempfile.TemporaryDirectory() as folder:
            digest = Path(folder, "digest")
            run(engine, "push", "--quiet", "--digestfile", str(digest), to)
            return f"{repository}@{digest.read_text().strip()}"
    run(engine, "push", "--quiet", to)
    known = run(engine, "image", "inspect", "--format", "{{json .RepoDigests}}", to)
    for name in json.loads(known):
        if name.startswith(f"{repository}@"):
            return str(name)
    raise Stop(f"{engine} does not know the digest of {to}, which it pushed")


def main(engine: str, remote: str, image: str, tag: str) -> None:
    """Pushes what `make image` built."""
    images = {
        "serve": (f"{image}:{tag}", f"{remote}/serve:{tag}"),
        "job": (f"{image}-job:{tag}", f"{remote}/job:{tag}"),
    }
    if BAKED.exists():
        name = f"{tag}-v{BAKED.read_text()}"
        images["model"] = (f"{image}:{name}", f"{remote}/serve:{name}")
    pushed = {}
    for name, (here, there) in images.items():
        pushed[name] = push(engine, here, there)
        print(f"pushed {there}")
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(pushed, indent=2) + "\n")
    parts = (reference.partition("@sha256:") for reference in pushed.values())
    SUMS.write_text("".join(f"{digest}  {name}\n" for name, _, digest in parts))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Stop as stop:
        sys.exit(f"error: {stop}")
