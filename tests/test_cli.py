"""The command line: profiles are written, edits are not lost, errors are one line."""

import json
from pathlib import Path

import pytest
import yaml

from ibma import __version__, cli, params, paths

ROOT = Path(__file__).parent.parent
COMMANDS = {
    *("init", "profile", "plan", "new", "check", "predict"),
    *("verify", "archive", "track", "docs"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two profiles, of which `twin` was chosen."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    head = "# yaml-language-server: $schema="
    for name in ("twin", "open"):
        text = f"{head}../params.schema.json\nprofile: {name}  # kept\n"
        (tmp_path / "profiles" / f"{name}.yaml").write_text(text)
    (tmp_path / "params.yaml").write_text(f"{head}params.schema.json\nprofile: twin  # kept\n")
    return tmp_path


def test_profile_is_copied_with_its_comments_and_finds_its_schema(here, ibma):
    assert ibma("profile", "open")[0] == 0
    first, second = (here / "params.yaml").read_text().splitlines()
    assert first.endswith("$schema=params.schema.json") and second == "profile: open  # kept"
    assert ibma("profile", "twin")[0] == 0, "a profile as shipped is no edit"


def test_profile_keeps_local_edits_unless_forced(here, ibma):
    (here / "params.yaml").write_text("profile: twin\neta: 0.3\n")
    code, _, error = ibma("profile", "open")
    assert code == 1 and "--force" in error and error.count("\n") == 1
    assert "eta: 0.3" in (here / "params.yaml").read_text()
    assert ibma("profile", "open", "--force")[0] == 0
    assert "eta" not in (here / "params.yaml").read_text()


def test_bad_input_is_one_line(here, ibma):
    wrong = {
        ("profile", "opne"): "profile 'opne' not found in profiles/ (known: open, twin)",
        ("profile", "../params"): "profile '../params' not found",
        ("plan", "--profile", "opne"): "profile 'opne' not found",
        ("plan",): "params.yaml: missing key 'eta'",
        ("track",): "params.yaml: missing key 'eta'",
        ("archive",): "params.yaml: missing key 'eta'",
        ("verify", "paper"): "params.yaml: missing key 'eta'",
    }
    for arguments, line in wrong.items():
        code, _, error = ibma(*arguments)
        assert (code, error.count("\n")) == (1, 1), arguments
        assert error.startswith(f"error: {line}"), error
    (here / "params.yaml").unlink()
    for command in ("plan", "track", "archive", "verify"):
        code, _, error = ibma(command)
        assert (code, error.count("\n")) == (1, 1) and error.startswith("error: "), command


def test_there_are_these_commands_and_a_version(ibma):
    assert {
        command.name or command.callback.__name__ for command in cli.app.registered_commands
    } == (COMMANDS)
    assert ibma("--version")[:2] == (0, f"ibma {__version__}\n")
    assert ibma("repro")[0] == 2, "dvc repro is the only way to run the pipeline"


def test_plan_reads_the_profile_that_is_named(here, ibma, monkeypatch):
    seen = []
    monkeypatch.setattr(cli.params, "load", lambda path: seen.append(path) or path)
    monkeypatch.setattr(cli.plan, "text", lambda profile, root: f"the plan of {profile}")
    assert ibma("plan")[0] == 0
    assert ibma("plan", "--profile", "open")[1] == "the plan of profiles/open.yaml\n"
    assert seen == [paths.PARAMS, paths.PROFILES / "open.yaml"]


def test_archive_writes_the_evidence_and_says_what_is_missing(tmp_path, ibma, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    code, out, error = ibma("archive")
    assert code == 0 and out.startswith("reports/twin/evidence: 0.0 MB")
    lines = error.splitlines()
    assert len(lines) == len(list(params.load().cells()))
    assert "missing: train/crema_d/concat: not run: no record" in lines
    held = tmp_path / "reports/twin/evidence"
    assert {path.name for path in held.iterdir()} == {"SHA256SUMS", "params.yaml"}


def test_docs_writes_what_is_made_from_the_code(tmp_path, ibma, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = ibma("docs")
    assert code == 0
    pages = ["docs/methods.md", "docs/datasets.md", "docs/parameters.md"]
    assert out.split() == [*pages, "params.schema.json"]
    assert json.loads(Path("params.schema.json").read_text()) == params.schema()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes nothing")
def test_a_project_where_nothing_can_be_written_is_refused_in_one_line(here, ibma):
    code, _, error = ibma("init", "/proc/mine")
    assert code == 1 and error.count("\n") == 1
    assert "/proc/mine: no folder can be made there: name another place" in error
