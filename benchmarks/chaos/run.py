"""A project under load is broken on purpose, and what came of it is counted: `make chaos`.

    python benchmarks/chaos/run.py [PROJECT] [--short] [--only NAME ...]

PROJECT is a rendered project whose Python runs this; where it has not two versions, they are
trained. Without one the default project is rendered into build/chaos. Prints a row a fault; the
exit code is not 0 when something broke.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from frame import FAULTS, QUICK, Broken, Case, settled

KINDS = ["promotions", "killed", "journal", "registries", "bundles"]
HEAD = ("fault", "requests", "failed", "rows", "in the journal", "memory", "verdict")


def trained(project: Path, short: bool) -> None:
    """Gives a project two versions that answer differently."""
    package = next(project.glob("src/*/serving/app.py")).parents[1].name
    for seed in range(len([*project.glob("var/versions/[0-9]*")]), 2):
        print(f"training version {seed + 1}", flush=True)
        few = {"DATA_URI": str(few_rows(project))} if short else {}
        subprocess.run(
            [sys.executable, "-m", package, "train"],
            cwd=project, env=settled(project) | QUICK | few | {"TRAIN_SEED": str(seed)},
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip


def few_rows(project: Path) -> Path:
    """The newest of the project's rows."""
    import pandas as pd

    source, few = next((project / "data").glob("*.parquet")), project / "var" / "few.csv"
    few.parent.mkdir(exist_ok=True)
    pd.read_parquet(source).tail(2000).to_csv(few, index=False)
    return few


def tried(name: str, project: Path, short: bool) -> Case:
    """A fault, done; what it raises is what broke."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        case = Case(name, project, Path(folder, "it"), short)
        start = time.monotonic()
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


def printed(case: Case) -> str:
    """The row of a fault."""
    verdict = "BROKE: " + "; ".join(case.broke) if case.broke else "ok"
    counts = (case.sent, case.failed, case.expected, case.found) if case.sent else ("",) * 4
    told = [f"{n:,}" if isinstance(n, int) else n for n in counts]
    name = f"{case.name}: {'; '.join(case.notes)}"
    return "| " + " | ".join([name, *told, case.memory, verdict]) + " |"


def main() -> int:
    """Runs the faults that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], help="parts of the faults' names")
    given = parser.parse_args()
    project = given.project.resolve()
    sys.path.insert(0, str(project / "src"))
    for kind in KINDS:
        __import__(kind)
    chosen = [n for n in FAULTS if not given.only or any(part in n for part in given.only)]
    if not chosen:
        parser.error(f"no such fault; there are {', '.join(FAULTS)}")
    trained(project, given.short)
    print(f"\n| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}", flush=True)
    cases = []
    for name in chosen:
        cases.append(tried(name, project, given.short))
        print(printed(cases[-1]), flush=True)
    return int(any(case.broke for case in cases))


if __name__ == "__main__":
    sys.exit(main())
