"""What commands do to a person's files, and say when they cannot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flight_delays import cycle
from flight_delays.bundle import digest_of
from flight_delays.cli import common, doctor, lifecycle, serving
from flight_delays.errors import UserError
from flight_delays.files import sha256


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flight_delays", *arguments],
        capture_output=True,
        text=True,
        env=os.environ,
    )


def test_a_bundle_goes_into_a_folder_of_its_own(trained: Path) -> None:
    bundle = serving.bundle
    for _ in range(2):
        bundle("test", Path("build/bundle"))
        assert sorted(path.name for path in Path("build/bundle").iterdir()) == ["1", "current"]
    Path("notes").mkdir()
    Path("notes/thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"OUT=notes: holds other things than bundles \(thesis"):
        bundle("test", Path("notes"))
    with pytest.raises(UserError, match=r"is where bundles are kept"):
        bundle("test", Path("var/versions"))
    assert Path("notes/thesis.txt").exists()
    assert Path("var/versions/1/manifest.json").exists()


def test_the_bundle_of_what_was_trained_here_is_that_whatever_test_holds(
    twice_trained: Path,
) -> None:
    with pytest.raises(UserError, match=r"train\.json: names no version; run `make train`"):
        serving.bundle(version="trained")
    common.write_report("train", {"version": "2"})
    for version, expected in (("", "1"), ("trained", "2"), ("1", "1")):
        serving.bundle(version=version)
        assert Path("build/bundle/current").read_text() == expected
        assert len([*Path("build/bundle").iterdir()]) == 2


@pytest.mark.parametrize("folder", ["", "var/versions/1"])
def test_the_sbom_names_the_bundle_and_the_digests_of_its_files(trained: Path, folder: str) -> None:
    common.write_report("sbom", {"components": [{"name": "numpy"}]})
    serving.sbom("test", "", folder)
    library, model = json.loads(Path("reports/sbom.json").read_text())["components"]
    assert library == {"name": "numpy"}
    assert (model["type"], model["version"]) == ("machine-learning-model", "1")
    path = Path("var/versions/1")
    assert model["properties"] == [{"name": "digest", "value": digest_of(path)}]
    told = {file["name"]: file["hashes"][0]["content"] for file in model["components"]}
    assert told == {file.name: sha256(file) for file in path.iterdir()}


def test_images_are_noted_on_the_version_that_they_hold(trained: Path) -> None:
    with pytest.raises(UserError, match=r"test holds version 1, of which no image was pushed"):
        serving.image("test")
    serving.bundle("test", Path("build/model"))
    common.write_report(
        "push", {"serve": "r/serve@sha256:0", "job": "r/job@x", "model": "r/serve@y"}
    )
    serving.pushed(Path("build/model"))
    serving.image("test")
    told = json.loads(Path("reports/image.json").read_text())
    digest = digest_of(Path("build/model/1"))
    assert told == {
        "environment": "test", "version": "1", "bundle": digest,
        "model": "r/serve@y", "job": "r/job@x",
    }  # fmt: skip
    manifest = Path("build/model/1/manifest.json")
    manifest.write_text(manifest.read_text().replace('"format"', ' "format"', 1))
    with pytest.raises(UserError, match=r"the image holds another version 1 \("):
        serving.pushed(Path("build/model"))
    Path("build/model/1").rename("build/model/7")
    serving.pushed(Path("build/model"))  # of another registry: nothing to note it on


def test_what_cannot_be_written_is_one_line(trained: Path) -> None:
    Path("file").write_text("")
    done = run("bundle", "--out", "file/below")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "file/below" in done.stderr


def test_a_value_of_a_report_is_shown_for_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    common.write_report("cycle", {"version": "2", "promoted": ["test", "staging"], "refused": ""})
    for what in ("cycle.version", "cycle.promoted", "cycle.refused"):
        lifecycle.show(what)
    assert capsys.readouterr().out == "version=2\npromoted=test staging\nrefused=\n"
    for what in ("", "cycle", "train.version", "cycle.unheard"):
        with pytest.raises(UserError, match=rf"^WHAT={what}: is no value of a report"):
            lifecycle.show(what)
    with pytest.raises(UserError, match=r"reports/cycle.json has version, promoted, refused$"):
        lifecycle.show("cycle.unheard")


def test_what_a_turn_of_the_cycle_did_is_said_first(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = cycle.Turn("unknown", "production holds no version", "2", promoted=["test"])
    monkeypatch.setattr(cycle, "turn", lambda *_: done)
    lifecycle.cycle(force=True)
    assert capsys.readouterr().out.splitlines() == [
        "trained version 2, now in test",
        "the monitor says unknown: production holds no version",
    ]


def test_what_env_lacks_is_named(trained: Path) -> None:
    with pytest.raises(UserError, match="make up"):
        doctor._compose()
    Path(".env.example").write_text("# For compose\nONE=1\n#MAYBE=2\n\nTWO=2\nTHREE=3\n")
    Path(".env").write_text("#TWO=2\nONE=other\n")
    with pytest.raises(UserError, match=r"lacks TWO, THREE; copy them from \.env\.example"):
        doctor._compose()
    Path(".env").write_text("ONE=1\nTWO=\nTHREE=3\n")
    assert "sets every variable" in doctor._compose()


def test_what_the_clusters_lack_is_said_once(trained: Path) -> None:
    doctor.DEPLOY.parent.mkdir()
    script = "import sys; sys.exit(None if sys.argv[1] == 'test' else 'error: no kubectl here')"
    doctor.DEPLOY.write_text(script)
    with pytest.raises(UserError, match=r"no kubectl here$") as said:
        doctor._cluster()
    assert str(said.value).count("no kubectl") == 1
    doctor.DEPLOY.write_text("import sys; print(sys.argv[1:])")
    assert doctor._cluster().startswith("['test', '--check']; ['staging', '--check']; ")
