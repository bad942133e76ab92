"""All that is measured, side by side, as ratios: `make bench`; `run.py chaos` is `make chaos`.

Renders the default project into build/bench, trains it, and runs each benchmark in the project's
own environment. Ratios of one run can be compared; times of two runs cannot. What is printed is in
build/bench.json, too, with the machine; a picture of the servers is beside it.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import copier

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent / "build" / "bench"


def seconds(*command: str) -> float:
    """How long the fastest of three runs of a command takes."""
    found = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - start)
    return min(found)


def render(verb: str) -> None:
    """The default project in build/bench, once one of its verbs was run there."""
    python = ".".join(map(str, sys.version_info[:2]))
    copier.run_copy(
        str(HERE.parent),
        PROJECT,
        data={"python": python},
        defaults=True,
        vcs_ref="HEAD",
        quiet=True,
        overwrite=True,
    )
    subprocess.run(["make", verb, f"PYTHON={sys.executable}"], cwd=PROJECT, check=True)


def inside(name: str, *given: object) -> int:
    """The exit code of a program here that the project's Python runs."""
    command = [PROJECT / ".venv" / "bin" / "python", HERE / name, *given]
    return subprocess.run([*map(str, command)], check=False).returncode


def main() -> None:
    tool = Path(sys.executable).parent / "copier"
    copy = [str(tool), "copy", "--quiet", "--defaults", "--overwrite", "--vcs-ref", "HEAD"]
    rendered = seconds(*copy, str(HERE.parent), str(HERE.parent / "build" / "copied"))
    started = seconds(str(tool), "--version")
    print(
        f"copier copy of the default, whole process: {rendered:.2f} s, "
        f"{rendered / started:.1f} times what copier takes to start"
    )
    render("train")
    versions = PROJECT / "var" / "versions"
    newest = max((v for v in versions.iterdir() if v.is_dir()), key=lambda v: v.stat().st_mtime)
    (versions / "current").write_text(newest.name)
    found = {"when": time.strftime("%Y-%m-%d"), "machine": machine(), "copy": rendered / started}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JOURNAL_URL"] = f"sqlite:///{folder}/journal.db"
        for name, *given in (
            ("serving", PROJECT, "--bundles", versions),
            ("layers", PROJECT, "--bundles", versions),
            ("tables", PROJECT, "--bundles", versions),
            ("drift",),
            ("false_alarms", PROJECT, "--seeds", "50"),
            ("monitor", PROJECT, "--seeds", "5"),
        ):
            begun, out = time.perf_counter(), Path(folder) / f"{name}.json"
            print(f"\n{name}", flush=True)
            if inside(f"{name}.py", *given, "--json", out):
                raise SystemExit(f"{name} failed")
            print(f"({time.perf_counter() - begun:.0f} s)", flush=True)
            found[name] = json.loads(out.read_text())
    result = HERE.parent / "build" / "bench.json"
    result.write_text(json.dumps(found, indent=2) + "\n")
    inside("serving_picture.py", result, result.with_name("serving.png"))
    print(f"\n{result.relative_to(HERE.parent)}: {found['machine']}")


def machine() -> str:
    """What it was measured on."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):  # Linux says more
        text = Path("/proc/cpuinfo").read_text()
        cpu = text.split("model name", 1)[-1].split("\n", 1)[0].strip(" \t:")
    return f"{os.cpu_count()} x {cpu}, {platform.system()}, Python {platform.python_version()}"


def chaos(*given: str) -> int:
    """Breaks the project on purpose; not 0 where that broke what must hold."""
    shutil.rmtree(PROJECT / "var", ignore_errors=True)
    render("setup")
    return inside("chaos/main.py", PROJECT, *given)


if __name__ == "__main__":
    if sys.argv[1:2] == ["chaos"]:
        sys.exit(chaos(*sys.argv[2:]))
    main()
