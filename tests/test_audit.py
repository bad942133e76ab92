"""`make sbom` and `make audit`: what is served, and what is known of it."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from harness import ROOT, copy
from running_project import needs, on_a_slice, project

AUDIT = ROOT / "template/scripts/audit.py"
MAKEFILE = (ROOT / "template/Makefile.jinja").read_text()
PIP_AUDIT = """
import pathlib, sys
pathlib.Path("asked").write_text(" ".join(sys.argv[1:]))
sys.stderr.write({said!r})
sys.exit({code})
"""
REFUSED = """Traceback (most recent call last):
  File "connection.py", line 239, in _new_conn
    raise it
ConnectionRefusedError: [Errno 111] Connection refused

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "_cli.py", line 554, in audit
requests.exceptions.ConnectionError: host='osv.example': Connection refused
"""
FAILED = """requests.exceptions.HTTPError: 503 Server Error: Unavailable

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
pip_audit._service.interface.ServiceError
"""
TOLD = """ERROR:pip_audit._cli:Could not connect to the feed
ERROR:pip_audit._cli:Tip: your network may be blocking this service. Try another service
"""
VALID = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or "") or 0)
"""


def audit(home: Path, said: str, code: int, *arguments: str) -> tuple[int, str, str]:
    """How the script ends with a pip-audit that says this, and what it prints and complains of."""
    (home / "pip_audit.py").write_text(PIP_AUDIT.format(said=said, code=code))
    done = subprocess.run(
        [sys.executable, AUDIT, *arguments], cwd=home, env={"PYTHONPATH": str(home)},
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_what_is_asked(tmp_path):
    code, said, _ = audit(tmp_path, "No known vulnerabilities found\n", 0, "")
    assert (code, said) == (0, "No known vulnerabilities found\n")
    asked = (tmp_path / "asked").read_text()
    assert "--require-hashes --requirement locks/dev.txt" in asked
    assert "--osv-url" not in asked
    audit(tmp_path, "", 0, "https://osv.example", "GHSA-1", "CVE-2")
    asked = (tmp_path / "asked").read_text()
    assert asked.endswith(
        "--vulnerability-service osv --osv-url https://osv.example "
        "--ignore-vuln GHSA-1 --ignore-vuln CVE-2"
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (REFUSED, "requests.exceptions.ConnectionError: host='osv.example': Connection refused"),
        (FAILED, "requests.exceptions.HTTPError: 503 Server Error: Unavailable"),
        (TOLD, "Could not connect to the feed"),
        ("killed\n", "killed"),
        ("", "pip-audit says nothing"),
    ],
)
def test_what_cannot_be_looked_up_is_one_line(said, why, tmp_path):
    code, out, error = audit(tmp_path, said, 1, "")
    assert (code, out) == (1, "")
    assert error == (
        f"error: no vulnerabilities could be looked up: {why}; set AUDIT_URL in local.mk to a "
        "server that is reachable, or to none\n"
    )


def test_a_finding_is_a_failure_that_says_what_to_do(tmp_path):
    code, out, error = audit(tmp_path, "WARNING: x\nFound 1 known vulnerability in y\n", 1, "")
    assert (code, out) == (1, "Found 1 known vulnerability in y\n")
    assert re.fullmatch(r"error: take a fixed version .* AUDIT_IGNORE = \.\.\.\n", error)


def test_a_lookup_that_is_switched_off_says_so_and_fetches_nothing(template, tmp_path):
    made = copy(template, tmp_path / "it")
    (made / "locks").mkdir()
    (made / "locks/dev.txt").touch()
    for url in ("none", "http://osv.example"):
        (made / "local.mk").write_text(f"AUDIT_URL = {url}\nAUDIT_IGNORE = GHSA-1 CVE-2\n")
        done = subprocess.run(
            ["make", "--no-print-directory", "--dry-run", "audit"],
            cwd=made,
            capture_output=True,
            text=True,
            check=True,
        )
        last = done.stdout.splitlines()[-1]
        assert ("pip-audit" in done.stdout) == (url != "none")
        if url == "none":
            assert last == 'echo "AUDIT_URL=none: no known vulnerabilities were looked up"'
        else:
            assert last.endswith(f"scripts/audit.py '{url}' GHSA-1 CVE-2")


class OSV(BaseHTTPRequestHandler):
    """Knows one vulnerability, of numpy."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = asked["package"]["name"]
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}]
        known = {
            "id": "GHSA-1", "aliases": ["CVE-1"], "summary": "It is slow.",
            "affected": [{"package": asked["package"], "ranges": ranges}],
        }  # fmt: skip
        answer = json.dumps({"vulns": [known]} if name == "numpy" else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def osv() -> Iterator[str]:
    """The address of a stand-in."""
    with ThreadingHTTPServer(("127.0.0.1", 0), OSV) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.full
@pytest.mark.heavy(1)
def test_what_is_served_is_listed_and_looked_up(osv, disk):
    needs("uv")
    made = project(disk / "it", env_manager="uv", ci="none")
    on_a_slice(made)
    made.environment["AUDIT_URL"] = osv
    said = made.run("make audit", fails=True)
    assert re.search(r"numpy +[\d.]+ +(GHSA|CVE)-1 +99\.1", said)
    assert "Found 1 known vulnerability in 1 package" in said
    assert "No known vulnerabilities found, 1 ignored" in made.run("make audit AUDIT_IGNORE=CVE-1")
    made.environment["AUDIT_URL"] = "http://127.0.0.1:9"
    assert "error: no vulnerabilities could be looked up: " in made.run("make audit", fails=True)
    made.run("make train")
    made.run("make sbom ENV=test")
    listed = made.report("sbom")
    lock = (made.folder / "locks/serve.txt").read_text()
    pins = re.findall(r"^([\w.-]+)==([^ ;\\]+)", lock, re.MULTILINE)
    *libraries, model = listed["components"]
    assert sorted((one["name"], one["version"]) for one in libraries) == sorted(pins)
    assert (model["name"], model["version"]) == ("flight-delays", "1")
    (tool,) = re.findall(r"cyclonedx-bom==[\d.]+", MAKEFILE)
    subprocess.run(
        ["uv", "tool", "run", "--quiet", "--from", tool, "python", "-c", VALID],
        input=json.dumps(listed), text=True, check=True,
    )  # fmt: skip
