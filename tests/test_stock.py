"""Projects the way a person makes them: Copier's own command, on git, nothing patched."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from harness import ROOT, commit, copy, edit, files, git, snapshot
from variants import key, variants

SETTINGS = yaml.safe_load((ROOT / "copier.yml").read_text())
OLDEST = f"copier=={SETTINGS['_min_copier_version']}.0"
UV = Path(sys.executable).with_name("uv")
COPIERS = {
    "newest": [sys.executable, "-m", "copier"],
    "oldest": [str(UV), "tool", "run", "--quiet", "--from", OLDEST, "copier"],
}


@pytest.mark.heavy
@pytest.mark.parametrize("which", COPIERS)
def test_copy_and_update_by_the_command_line(which, tmp_path):
    def copier(*command: str) -> str:
        done = subprocess.run([*COPIERS[which], *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    template = snapshot(tmp_path / "template")
    commit(template, "v1.0.0")
    project = tmp_path / "project"
    told = copier("copy", "--defaults", str(template), str(project))
    assert "make train" in told
    commit(project)
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert answers["_commit"] == "v1.0.0"

    edit(template / "template/Makefile.jinja", "help: ## this list", "help: ## this very list")
    commit(template, "v1.1.0")
    told = copier("update", "--defaults", str(project))
    assert "make check" in told
    changed = [line[3:] for line in git(project, "status", "--porcelain").splitlines()]
    assert changed == [".copier-answers.yml", "Makefile"]
    commit(project)

    copier("update", "--defaults", "--vcs-ref", ":current:", "--data", "ci=none", str(project))
    assert not (project / ".github").exists()
    commit(project)
    edit(template / "copier.yml", 'default: "{}"}', "default: '{ci: {none: choose github}}'}")
    commit(template, "v1.2.0")
    refused = subprocess.run(
        [*COPIERS[which], "update", "--defaults", str(project)], capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "ci=none is retired: choose github" in refused.stderr
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.heavy
@pytest.mark.parametrize("which", COPIERS)
@pytest.mark.parametrize("answers", [variants()[0], variants()[-1]], ids=key)
def test_what_the_tests_render_is_what_copier_renders(which, answers, repository, tmp_path):
    """Nothing hangs on the patches of `harness.fast`, which all other tests render with."""
    given = [word for name, value in answers.items() for word in ("--data", f"{name}={value}")]
    command = [*COPIERS[which], "copy", "--quiet", "--defaults", *given]
    subprocess.run([*command, str(repository), str(tmp_path / "stock")], check=True)
    assert files(tmp_path / "stock") == files(copy(repository, tmp_path / "fast", **answers))


def test_a_name_that_renders_to_a_dot_leaves_the_path(tmp_path):
    """What overlays stand on; Copier does not document it."""
    template = tmp_path / "template"
    (template / "{% if true %}.{% endif %}/inside").mkdir(parents=True)
    (template / "{% if true %}.{% endif %}/inside/file").write_text("x")
    (template / "{% if false %}.{% endif %}").mkdir()
    (template / "{% if false %}.{% endif %}/other").write_text("x")
    (template / "copier.yml").write_text("_exclude: [copier.yml]\n")
    done = subprocess.run(
        [sys.executable, "-m", "copier", "copy", "--quiet", str(template), str(tmp_path / "made")]
    )
    assert done.returncode == 0
    assert list(files(tmp_path / "made")) == ["inside/file"]
