"""A project under load is broken on purpose, and what came of it is counted: `make chaos`.

    python benchmarks/chaos/main.py PROJECT [--short] [--only NAME ...]

PROJECT is a rendered project whose Python runs this; it gets two versions where it has not. Prints
a row a fault, each tried by a process of its own; the exit code is not 0 when something broke.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path

from frame import FAULTS, QUICK, Broken, Case, few_rows, package_of, settled

KINDS = (
    "promotions", "killed", "journal", "clocks", "registries", "bundles", "clients", "trainings",
    "updates", "soak",
)  # fmt: skip
HEAD = ("fault", "requests", "failed", "rows", "in the journal", "memory", "verdict")


def trained(project: Path, short: bool) -> None:
    """Gives a project two versions that answer differently."""
    for seed in range(len([*project.glob("var/versions/[0-9]*")]), 2):
        print(f"training version {seed + 1}", flush=True)
        quick = QUICK | {"DATA_URI": str(few_rows(project))} if short else {}
        subprocess.run(
            [sys.executable, "-m", package_of(project), "train"],
            cwd=project, env=settled(project) | quick | {"TRAIN_SEED": str(seed)},
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip


def tried(name: str, project: Path, short: bool) -> Case:
    """A fault, done; what it raises is what broke."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        case, start = Case(project, Path(folder, "it"), short), time.monotonic()
        try:
            FAULTS[name](case)
        except Broken as error:
            case.broke.append(str(error))
        except Exception as error:
            traceback.print_exc()
            case.broke.append(f"{type(error).__name__}: {error}")
        if case.broke and (log := case.folder / "server.log").exists():
            print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
        case.notes.append(f"{time.monotonic() - start:.0f} s")
        return case


def row(name: str, case: Case) -> str:
    """What a fault did, as a row of the table."""
    counts = (case.sent, case.failed, case.expected, case.found) if case.sent else ("",) * 4
    verdict = f"BROKE: {'; '.join(case.broke)}" if case.broke else "ok"
    told = [f"{n:,}" if isinstance(n, int) else n for n in counts]
    cells = [f"{name}: {'; '.join(case.notes)}", *told, case.memory, verdict]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Tries the faults that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--short", action="store_true", help="fewer and shorter: minutes")
    parser.add_argument("--only", nargs="+", default=[], help="parts of the faults' names")
    parser.add_argument("--one", help="the whole name of one, of which only the row is printed")
    given = parser.parse_args()
    project, short = given.project.resolve(), given.short
    sys.path.insert(0, str(project / "src"))
    for kind in KINDS:
        import_module(kind)
    if given.one:
        case = tried(given.one, project, short)
        print(row(given.one, case), flush=True)
        return int(bool(case.broke))
    chosen = [n for n in FAULTS if not given.only or any(part in n for part in given.only)]
    if not chosen:
        parser.error(f"no such fault; there are: {'; '.join(FAULTS)}")
    trained(project, short)
    print(f"\n| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}", flush=True)
    broke = 0
    for name in chosen:
        again = [sys.executable, __file__, str(project), *["--short"] * short, "--one", name]
        if (code := subprocess.run(again, check=False).returncode) not in (0, 1):
            print(f"| {name} | | | | | | BROKE: its process ended with {code} |", flush=True)
        broke += code != 0
    print(f"\n{len(chosen)} faults, {broke} broke something")
    return int(broke > 0)


if __name__ == "__main__":
    sys.exit(main())
