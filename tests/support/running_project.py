"""A rendered project that is really run: its commands, its server, its traffic."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from harness import ROOT, commit, copy

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FAILS = re.compile(r"\s+# not 0 .*")
STAYS = ("make serve", "make ui")
"""Commands that answer until they are stopped."""


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def missing(what: str, allowed: bool = False) -> NoReturn:
    """A skip on somebody's machine, a failure in CI, where all must be there, if not `allowed`."""
    if os.environ.get("CI") and not allowed:
        pytest.fail(what)
    pytest.skip(what)


def needs(env_manager: str, python: str = "3.13") -> None:
    """Leaves a test out where what makes the environment is not there; in CI that is a failure.

    WITHOUT_PYTHON names the Pythons that CI may lack.
    """
    commands = {"conda": ("micromamba", "mamba", "conda"), "pip": (f"python{python}",)}.get(
        env_manager, ("uv",)
    )
    if not any(map(shutil.which, commands)):
        missing(f"none of {', '.join(commands)} is installed")
    if env_manager == "uv" and all(
        subprocess.run(["uv", "python", how, python], capture_output=True).returncode
        for how in ("find", "install")
    ):
        lacks = python in os.environ.get("WITHOUT_PYTHON", "").split()
        missing(f"uv neither finds nor fetches a Python {python}", lacks)


@contextmanager
def on_disk(session: pytest.Session) -> Iterator[Path]:
    """A folder that is not in memory; after a failure it stays, to be looked at."""
    failed = session.testsfailed
    folder = Path(tempfile.mkdtemp(prefix="ciclo-", dir=os.environ["DISK_TMPDIR"]))
    yield folder
    if session.testsfailed == failed:
        shutil.rmtree(folder)


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a Markdown text in one language."""
    return [body for name, body in FENCE.findall(text) if name == language]


class Project:
    """A rendered project with its own settings in the environment."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.port = free_port()
        hidden = ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")
        self.environment = {k: v for k, v in os.environ.items() if k not in hidden}
        self.environment |= {"SERVING_PORT": str(self.port), "CI": "true"}
        self.environment |= {"WANDB_MODE": "offline"}  # what has W&B needs no account
        self.environment |= {"KUBECONFIG": os.devnull}  # and no cluster of this machine is asked
        for who in ("AUTHOR", "COMMITTER"):  # the tests hide the machine's own git configuration
            self.environment |= {f"GIT_{who}_NAME": "ada", f"GIT_{who}_EMAIL": "ada@localhost"}
        self.environment |= {"LOAD_RUN_TIME": "3", "LOAD_USERS": "5", "MONITOR_WINDOW": "100"}
        # fewer models to fit: how the procedure is chosen is tested where training is
        self.environment |= {"TRAIN_FOLDS": "2", "TRAIN_WINDOWS": "[1.0]"}
        # this run's own workers share the machine already
        self.environment |= {"PYTEST_XDIST_AUTO_NUM_WORKERS": "0"}
        # a shared machine is no place to judge speed: the limits are tested where load is
        self.environment |= {"LOAD_P95_MS": "5000", "LOAD_P99_MS": "10000"}
        self.environment |= {k: str(v) for k, v in settings.items()}

    def run(self, command: str, fails: bool = False, timeout: float = 900) -> str:
        """What a shell command says; it must end with 0, or must not if `fails`."""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, timeout=timeout,
            capture_output=True, text=True, executable="/bin/bash", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, f"{command}: exit {done.returncode}\n{said[-6000:]}"
        assert "Traceback" not in said, f"{command}\n{said[-6000:]}"
        return said

    @contextmanager
    def running(self, command: str, ready: str = "/readyz") -> Iterator[None]:
        """A command that stays, from when it is ready; it must stop when it is told to."""
        with (self.folder / "var" / "stays.log").open("w") as log:
            process = subprocess.Popen(
                shlex.split(command), cwd=self.folder, env=self.environment, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait(process, ready)
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise

    def _wait(self, process: subprocess.Popen[bytes], path: str) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                self.ask("GET", path)
                return
            except OSError:
                assert process.poll() is None, (self.folder / "var/stays.log").read_text()[-4000:]
            time.sleep(0.2)
        raise AssertionError((self.folder / "var" / "stays.log").read_text()[-4000:])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the server answers; raises HTTPError for what is no success."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def report(self, name: str) -> Any:
        """What a verb left in reports/."""
        return json.loads((self.folder / "reports" / f"{name}.json").read_text())

    def traffic(self, rows: list[dict[str, Any]], labels: list[Any]) -> None:
        """Rows that are predicted, and what they turned out to be."""
        answers = self.ask("POST", "/predictions/batch", {"rows": [{"features": r} for r in rows]})
        for answer, label in zip(answers["predictions"], labels, strict=True):
            self.ask("PUT", f"/predictions/{answer['id']}/outcome", {"outcome": label})


def project(to: Path, **answers: Any) -> Project:
    """A new project as a user has it: rendered from the working tree, and committed."""
    folder = copy(ROOT, to, "HEAD", **answers)
    commit(folder)
    return Project(folder)


def on_a_slice(made: Project) -> None:
    """Sets the project up, and lets it work on every fifth row of its data: a quicker life."""
    made.run("make setup")
    code = (
        "import pandas, sys; pandas.read_parquet('data/flights.parquet')[::5]"
        ".to_parquet(sys.argv[1], index=False)"
    )
    rows = made.folder.parent / "rows.parquet"
    made.run(f".venv/bin/python -c {shlex.quote(code)} {rows}")
    made.environment["DATA_URI"] = str(rows)


def walk(made: Project, text: str) -> None:
    """Runs every command of a README in its order, as a reader would.

    What stays is left running until the next one that stays, or the end. A command that is
    said to be `# not 0 ...` must fail.
    """
    with ExitStack() as open_:
        for line in "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines():
            command = FAILS.sub("", line).strip()
            command = command.replace("127.0.0.1:8000", f"127.0.0.1:{made.port}")
            if command in STAYS:
                open_.close()
                open_.enter_context(made.running(command))
            elif command:
                made.run(command, fails=bool(FAILS.search(line)))


def turn(made: Project) -> None:
    """Traffic with labels in production, which the model foresaw, and a quiet turn of the cycle."""
    with made.running("make serve ENV=production"):
        foreseen(made)
    quiet(made)


def examples(made: Project) -> list[dict[str, Any]]:
    """The rows that training left to try a server with."""
    with (made.folder / "reports" / "example.csv").open() as file:
        return [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]


def foreseen(made: Project) -> None:
    """Traffic with labels, which the model that answers foresaw: of two classes, the one is where
    it found that likelier than elsewhere."""
    rows = examples(made)
    seen = [made.ask("POST", "/predictions", {"features": row}) for row in rows]
    labels = [answer["prediction"] for answer in seen]
    if chances := [answer["probabilities"] for answer in seen if "probabilities" in answer]:
        no, yes = chances[0]
        middle = sorted(chance[yes] for chance in chances)[len(chances) // 2]
        labels = [json.loads(yes if chance[yes] >= middle else no) for chance in chances]
    made.traffic(rows * 5, labels * 5)


def quiet(made: Project) -> None:
    """The monitor has seen it, and a turn of the cycle has nothing to do."""
    made.run("make monitor")
    assert made.report("monitor")["verdict"] in ("ok", "warn")
    made.run("make cycle")
    assert made.report("cycle")["version"] == ""
