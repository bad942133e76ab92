"""Looks the packages of the lock up among the known vulnerabilities: `audit.py URL [IGNORED...]`.

Python is that of pip-audit's own environment. Without a URL it asks PyPI, otherwise a server that
answers as OSV does. IGNORED are findings that do not concern this project.
"""

import re
import subprocess
import sys

LOCK = "locks/dev.txt"  # all that is in the other locks
WHY = re.compile(r"(?:ERROR:pip_audit\._cli:(?!Tip)|(?=[\w.]+: ))(.+)")
"""A line that says why it failed: its own, or the last of a traceback."""


def main(url: str, *ignored: str) -> None:
    """Prints the findings, or why nothing could be looked up; either is a failure."""
    asked = ["--vulnerability-service", "osv", "--osv-url", url] if url else []
    asked += [word for name in ignored for word in ("--ignore-vuln", name)]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes",
         "--requirement", LOCK, "--progress-spinner", "off", *asked],
        check=False, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = done.stderr.splitlines() or ["pip-audit says nothing"]
    if done.returncode and not said[-1].startswith("Found "):
        why = [found[1] for line in said if (found := WHY.match(line))] or said
        sys.exit(
            f"error: no vulnerabilities could be looked up: {why[-1]}; set AUDIT_URL in local.mk "
            "to a server that is reachable, or to none"
        )
    print(said[-1])
    if done.returncode:
        sys.exit(
            "error: take a fixed version (constraints.local.txt, `make lock`), or name what does "
            "not concern this project in local.mk: AUDIT_IGNORE = ..."
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
