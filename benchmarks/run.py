"""All that is measured, side by side, as ratios: `make bench`; `run.py chaos` is `make chaos`.

Renders the default project into build/bench, trains it, and runs each benchmark in the project's
own environment. Ratios of one run can be compared; times of two runs cannot.
"""

import shutil
import subprocess
import sys
import time
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
    for name, *given in (
        ("serving", PROJECT, "--bundles", versions),
        ("peers", PROJECT, "--bundles", versions),
        ("drift",),
        ("false_alarms", PROJECT, "--seeds", "100"),
        ("monitor", PROJECT, "--seeds", "10"),
    ):
        print(f"\n{name}", flush=True)
        if inside(f"{name}.py", *given):
            raise SystemExit(f"{name} failed")


def chaos(*given: str) -> int:
    """Breaks the project on purpose; not 0 where that broke what must hold."""
    shutil.rmtree(PROJECT / "var", ignore_errors=True)
    render("setup")
    return inside("chaos/main.py", PROJECT, *given)


if __name__ == "__main__":
    if sys.argv[1:2] == ["chaos"]:
        sys.exit(chaos(*sys.argv[2:]))
    main()
