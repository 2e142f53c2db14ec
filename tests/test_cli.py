"""The command line: profiles are written, edits are not lost, errors are one line."""

import errno
import sys
from pathlib import Path

import pytest

from ibma import cli, doors, launch, params
from ibma.errors import IbmaError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    for name in ("twin", "open"):
        (tmp_path / "profiles" / f"{name}.yaml").write_text(f"profile: {name}  # kept\n")
    (tmp_path / "params.yaml").write_text("profile: twin  # kept\n")
    return tmp_path


def ibma(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ibma", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_profile_is_copied_with_its_comments(here, monkeypatch):
    assert ibma(monkeypatch, "profile", "open") == 0
    assert (here / "params.yaml").read_text() == "profile: open  # kept\n"


def test_profile_keeps_local_edits_unless_forced(here, monkeypatch, capsys):
    (here / "params.yaml").write_text("profile: twin\neta: 0.3\n")
    assert ibma(monkeypatch, "profile", "open") == 1
    error = capsys.readouterr().err
    assert "--force" in error and error.count("\n") == 1
    assert "eta: 0.3" in (here / "params.yaml").read_text()
    assert ibma(monkeypatch, "profile", "open", "--force") == 0
    assert "eta" not in (here / "params.yaml").read_text()


def test_unknown_profile_names_the_known_ones(here, monkeypatch, capsys):
    assert ibma(monkeypatch, "profile", "opne") == 1
    assert "known: open, twin" in capsys.readouterr().err


def test_track_outside_the_repository_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert ibma(monkeypatch, "track") == 1
    assert capsys.readouterr().err.startswith("error: params.yaml")


def test_repro_uses_every_core_unless_told(monkeypatch):
    asked = []
    monkeypatch.setattr(cli.grid, "repro", lambda root, jobs: asked.append(jobs))
    assert ibma(monkeypatch, "repro") == 0
    assert ibma(monkeypatch, "repro", "--jobs", "3") == 0
    assert asked == [params.cores(), 3] and asked[0] >= 1


def test_plan_reads_the_profile_that_is_named(here, monkeypatch):
    seen = []
    monkeypatch.setattr(cli.params, "load", lambda path: seen.append(path) or path)
    monkeypatch.setattr(cli.plan, "text", lambda profile, root: f"the plan of {profile}")
    assert ibma(monkeypatch, "plan") == 0
    assert ibma(monkeypatch, "plan", "--profile", "open") == 0
    assert seen == [cli.PARAMS, cli.PROFILES / "open.yaml"]


@pytest.fixture
def launched(monkeypatch):
    """What `ibma launch` would do, in this repository."""
    calls = []
    monkeypatch.chdir(Path(__file__).parent.parent)
    monkeypatch.setattr(launch, "cache", lambda root: "/cache")
    monkeypatch.setattr(launch, "launch", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(launch, "forecast", lambda root, profile, names: f"for {names}")
    return calls


def test_launch_local_shares_the_cache(launched, monkeypatch):
    assert ibma(monkeypatch, "launch", "--executor", "local", "-w", "3") == 0
    ((root, crew, hours, retries, jobs),) = launched
    assert list(crew.executor.workers) == ["0", "1", "2"] and retries == 2 and jobs >= 1
    assert (crew.cache, crew.remote) == ("/cache", None)
    assert crew.clones == Path.cwd() / "workers" and crew.source == str(Path.cwd())
    assert hours("train@split_digits-concat") > 0


def test_launch_hosts_through_a_remote(launched, monkeypatch, capsys):
    assert ibma(monkeypatch, "launch", "--executor", "hosts") == 1
    assert "name the machines" in capsys.readouterr().err
    hosts = ("--host", "a", "--host", "b", "--remote", "store", "--source", "git@x:y.git")
    assert ibma(monkeypatch, "launch", "--executor", "hosts", *hosts) == 0
    crew = launched[0][1]
    assert crew.executor.workers == ["a", "b"]
    assert (crew.cache, crew.remote, crew.source) == (None, "store", "git@x:y.git")


def test_a_dry_launch_launches_nothing(launched, monkeypatch, capsys):
    assert ibma(monkeypatch, "launch", "--executor", "slurm", "-w", "2", "--dry-run") == 0
    assert "for ['0', '1']" in capsys.readouterr().out and not launched


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (IbmaError("a.csv row 3: expected a label"), 1, "a.csv row 3: expected a label"),
        (
            OSError(errno.ENOSPC, "No space left", "models/x.pt"),
            1,
            "disk full while writing models/x.pt",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_door_tells_what_a_user_can_mend(raised, code, line, capsys):
    def main():
        raise raised

    with pytest.raises(SystemExit) as stopped:
        doors.door(main)
    error = capsys.readouterr().err
    assert stopped.value.code == code
    assert error.startswith(f"error: {line}") and error.count("\n") == 1


def test_door_lets_defects_show():
    def main():
        raise PermissionError(errno.EACCES, "denied")

    with pytest.raises(PermissionError):
        doors.door(main)
