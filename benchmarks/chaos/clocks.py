"""A clock that jumps while requests are answered, labels come and versions are moved."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from frame import Case, fault

SOURCE = Path(__file__).with_name("clock.c")


@fault("a clock that jumps by an hour and back")
def jumps(case: Case) -> None:
    """Rows are kept, moves are in the order in which they were made, and labels are judged."""
    if sys.platform != "linux" or not (compiler := shutil.which("cc")):
        case.notes.append("skipped: it needs Linux and a C compiler (cc)")
        return
    library, ahead = case.folder / "clock.so", case.folder / "ahead"
    build = [compiler, "-O", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run(build, check=True)
    clock = {"LD_PRELOAD": str(library), "AHEAD": str(ahead)}

    def jump(hours: int) -> None:
        draft = ahead.with_name("draft")
        draft.write_text(str(3600 * hours))
        draft.replace(ahead)

    jump(0)
    held = case.registry.alias("test")
    other = next(version for version in case.answers if version != held)
    made, labels = [], 0
    hours = (1, -1, 0, -1, 1, 0)[: 2 if case.short else None]
    with case.served(100, **clock) as server:
        for number in hours:
            jump(number)
            for to, *words in ((other, "promote", "--version", other), (held, "rollback")):
                done = case.run(*words, "--env", "test", **clock)
                case.expect(done.returncode == 0, f"{words[0]}: {done.stderr.strip()[-300:]}")
                made.append(to)
                server.follows(to)
            labels += case.labelled(server, 60)[held]
    case.none_failed(server)
    moves = case.registry.moves("test")
    kept = [move.to for move in moves][-len(made) :]
    case.expect(kept == made, f"the moves {made} are in the history as {kept}")
    case.expect(moves[-1].at > time.time() + 3000, "the clock did not jump")
    for number in (1, -1):
        jump(number)
        done = case.run("monitor", "--env", "test", MONITOR_WINDOW="100", **clock)
        seen = json.loads(Path("reports/monitor.json").read_text())
        judged = seen["verdict"] != "unknown" and seen["labelled"] == labels and seen["windows"]
        case.expect(
            judged, f"monitor: {done.stderr.strip()[-300:]} {seen['verdict']}: {seen['reason']}"
        )
    case.notes.append(f"{len(made) // 2} jumps, {len(made)} moves, {labels} labels")
