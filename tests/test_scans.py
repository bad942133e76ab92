"""Checkov over every distinct file of all variants finds nothing but what is excepted here.

Its rules for secrets are among them; Bandit's are ruff's `S`, which every project runs itself.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness import copy, files
from manifests import written

UV = Path(sys.executable).parent / "uv"
CHECKOV = "checkov==3.3.30"
FRAMEWORKS = (
    "azure_pipelines", "dockerfile", "github_actions", "gitlab_ci", "kubernetes", "secrets",
)  # fmt: skip
EXCEPTIONS = {
    "CKV_DOCKER_7": "the base's tag is in the argument BASE, which is read as no tag",
    "CKV_GHA_7": "a rollback by hand has to be told the environment",
    "CKV_K8S_11": "a limit of CPU slows requests down while CPU is idle",
    "CKV_K8S_35": "settings come from the environment, so that any image and any machine has them",
    "CKV_K8S_40": "OpenShift chooses the user; elsewhere the image's is 10001",
    "CKV_SECRET_4": ".env.example shows how an address with a password is written",
}
"""The rules that something breaks, and why it does."""


PLANTED = {"CKV_SECRET_2": "a key, so that a scan that finds nothing is one that looked"}


@pytest.mark.full
@pytest.mark.heavy
def test_checkov_finds_what_is_excepted_and_no_more(renders, template, tmp_path):
    home, seen = tmp_path / "files", set()
    for variant, folder in renders.items():
        for path, content in files(folder).items():
            if (path, content) not in seen:
                seen.add((path, content))
                kept = home / variant / path
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(content)
    manifests = written(copy(template, tmp_path / "it", deployment="kubernetes"))
    for environment, folder in manifests.items():
        folder.rename(home / environment)
    (home / "planted.py").write_text(f'aws_access_key_id = "AKIA{"Z3QJ7WXK2M9PLQ4T"}"\n')
    done = subprocess.run(
        [UV, "tool", "run", "--quiet", CHECKOV, "--directory", home, "--framework", *FRAMEWORKS,
         "--enable-secret-scan-all-files", "--skip-download", "--quiet", "--compact",
         "--output", "json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("["), done.stderr
    found = json.loads(done.stdout)
    assert {one["check_type"] for one in found} == {*FRAMEWORKS}
    broken = {
        failed["check_id"]: f"{failed['check_name']}: {failed['file_path']}"
        for one in found
        for failed in one["results"]["failed_checks"]
        # What the manifests are made of is no whole object yet.
        if not (one["check_type"] == "kubernetes" and "/deploy/" in failed["file_path"])
    }
    assert broken == {rule: broken.get(rule) for rule in EXCEPTIONS | PLANTED}
