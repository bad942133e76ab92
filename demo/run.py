"""Renders a project and takes it round the whole cycle on real flights: `make demo`.

usage: run.py DESTINATION
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import copier

HERE = Path(__file__).resolve().parent
MARK = ".ciclo-demo"
"""In a folder that the demo made, and may therefore make anew."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
OTHERS = (
    *(
        "CYCLE_",
        "DATA_",
        "GATES_",
        "JOURNAL_",
        "LOAD_",
        "MLFLOW_",
        "MODEL_",
        "MONITOR_",
        "SERVING_",
        "TRAIN_",
    ),
    *("MAKEFLAGS", "MAKELEVEL", "VIRTUAL_ENV"),
)
"""Settings of somebody's own: the demo must not touch a registry that people use."""


def main() -> None:
    start = time.perf_counter()
    project = Path(sys.argv[1]).resolve()
    if project.exists() and any(project.iterdir()):
        if not (project / MARK).exists():
            sys.exit(
                f"error: {project} is not empty, and no demo made it; "
                "choose another folder: make demo DEST=..."
            )
        shutil.rmtree(project)
    here = ".".join(map(str, sys.version_info[:2]))
    python = here if here in PYTHONS else PYTHONS[-1]
    interpreter = sys.executable if python == here else python  # uv fetches what is not here
    copier.run_copy(
        str(HERE.parent),
        project,
        data={"python": python},
        defaults=True,
        vcs_ref="HEAD",
        quiet=True,
    )
    (project / MARK).write_text("made by ciclo's demo, which may delete this folder\n")
    print(f"rendered {project} in {time.perf_counter() - start:.1f} s", flush=True)
    for command in (
        "git init --quiet --initial-branch main",
        "git add --all",
        "git -c user.name=demo -c user.email=demo@localhost commit --quiet --message Start",
    ):
        subprocess.run(command.split(), cwd=project, check=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(OTHERS)}
    setup = subprocess.run(
        ["make", "--no-print-directory", "setup", f"PYTHON={interpreter}"],
        check=False,
        cwd=project,
        env=clean,
    )
    if setup.returncode:
        sys.exit(setup.returncode)
    print(f"environment ready after {time.perf_counter() - start:.0f} s", flush=True)
    replay = [project / ".venv/bin/python", HERE / "replay.py"]
    done = subprocess.run(
        replay, check=False, cwd=project, env=clean | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    )
    if done.returncode:
        sys.exit(done.returncode)
    took = time.perf_counter() - start
    print(f"done in {took:.0f} s. The project is yours: cd {project}; make help")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
