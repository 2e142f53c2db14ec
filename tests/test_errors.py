"""What a user can mend is one line and an honest exit code; a defect keeps its traceback."""

import errno
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT

from ibma.errors import PATHS, REMEDIES, IbmaError, progress_bar, run_stage


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a stage with some texts on its command line; return its exit code and errors."""

    def run(main, *texts, load=()):
        monkeypatch.setattr(sys, "argv", ["stages/train.py", *texts])
        code = 0
        try:
            run_stage(main, *load)
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().err

    return run


def test_errors_that_a_user_can_mend_are_one_line(run):
    for error, line in (
        (IbmaError("a.csv row 3: expected a label"), "a.csv row 3: expected a label"),
        (IbmaError("two\nlines"), "two lines"),
        (OSError(errno.ENOSPC, "No space", "models/x"), "models/x: disk full: free space"),
        (OSError(errno.ENOSPC, "No space"), "disk full: free space"),
        (PermissionError(errno.EACCES, "denied", "data/raw"), "data/raw: permission denied: get"),
        (OSError(errno.EROFS, "read-only", "runs"), "runs: file system is read-only: make"),
        *((OSError(number, "", "f"), f"f: {text}") for number, text in (REMEDIES | PATHS).items()),
    ):

        def main(error=error):
            raise error

        code, said = run(main)
        assert code == 1 and said.startswith(f"error: {line}") and said.count("\n") == 1, said


def test_folders_and_files_in_each_others_place_are_one_line(run, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for use, told in (
        (lambda: (tmp_path / "file").mkdir(parents=True, exist_ok=True), "expected a folder"),
        (lambda: (tmp_path / "file/a").mkdir(parents=True, exist_ok=True), "leads through a file"),
        (lambda: tmp_path.read_bytes(), "a folder, expected a file"),
        (lambda: (tmp_path / ("n" * 300)).touch(), "shorten it"),
        (lambda: (tmp_path / "loop").read_bytes(), "a link that leads to itself"),
    ):
        code, said = run(use)
        assert code == 1 and told in said and str(tmp_path) in said and said.count("\n") == 1, said


def test_a_defect_keeps_its_traceback(run):
    for error in (ValueError("x"), OSError(errno.ENOENT, "gone", "f"), ConnectionResetError()):

        def main(error=error):
            raise error

        with pytest.raises(type(error)):
            run(main)


def test_a_stage_gets_its_params_and_the_texts_of_the_command_line(run):
    found = []

    def train(params, task, method=None):
        found.append((params, task, method))

    assert run(train, "meld", load=[lambda: "params"]) == (0, "")
    assert run(train, "meld", "omib", load=[lambda: "params"]) == (0, "")
    assert found == [("params", "meld", None), ("params", "meld", "omib")]
    for texts in ((), ("meld", "omib", "more")):
        wrong = run(train, *texts, load=[lambda: pytest.fail("read for nothing")])
        assert wrong == (1, "error: usage: python stages/train.py TASK [METHOD]\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_log_that_cannot_be_written_stops_no_work(tmp_path):
    lines = """
        from pathlib import Path
        from ibma.errors import IbmaError, progress_bar, run_stage, tell
        def main(*wrong):
            for step in progress_bar(range(9), total=9):
                tell(f"step {step}")
            Path("done").touch()
            if wrong:
                raise IbmaError("wrong")
        run_stage(main)
    """
    for texts, status in ((), 0), (("wrong",), 1):
        with Path("/dev/full").open("w") as full:
            line = [sys.executable, "-c", textwrap.dedent(lines), *texts]
            assert subprocess.run(line, stderr=full, cwd=tmp_path).returncode == status
        (tmp_path / "done").unlink()


def test_a_stage_says_which_python_lacks_its_packages():
    bare = [sys.executable, "-S", "stages/train.py"]  # -S: without installed packages
    ended = subprocess.run(bare, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert sys.executable in ended.stderr and "source .venv/bin/activate" in ended.stderr


def test_signals_are_answered_as_before_once_a_stage_is_over(run):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    inside = []

    def main():
        inside.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))

    run(main)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert not set(inside) & set(before)


def test_progress_is_lines_in_a_log_file_and_a_bar_on_a_terminal(capsys, monkeypatch):
    assert list(progress_bar(range(3), desc="verify", total=3, unit="file")) == [0, 1, 2]
    with progress_bar(desc="predict", unit="row") as bar:
        bar.update(7)
    shown = capsys.readouterr().err
    assert "\r" not in shown and [line.split(", ")[0] for line in shown.splitlines()] == [
        *("verify: 0 of 3", "verify: 3 of 3", "predict: 0 row", "predict: 7 row")
    ]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    list(progress_bar(range(3), desc="verify"))
    assert "\r" in capsys.readouterr().err
