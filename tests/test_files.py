"""Files are written whole or not at all; a folder has one writer at a time."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ibma import files
from ibma.errors import IbmaError
from ibma.files import held, write_bytes, write_json
from tests.faults import writes

HOLD = """
import sys, time
from pathlib import Path
from ibma.errors import run_stage
from ibma.files import held

def hold(folder):
    with held(Path(folder)):
        print("held", flush=True)
        time.sleep(60)

run_stage(hold)
"""


def holder(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_second_writer_of_a_folder_gets_one_line_and_leaves(tmp_path):
    folder = tmp_path / "data" / "features" / "x"
    first = holder(folder)
    try:
        assert first.stdout.readline() == "held\n"
        second = holder(folder)
        out, error = second.communicate(timeout=60)
        assert (second.returncode, out) == (1, "")
        assert error == (
            f"error: {folder}: another process is writing it (pid {first.pid}): "
            "wait for it or stop it\n"
        )
        with pytest.raises(IbmaError, match=f"pid {first.pid}"), held(folder):
            pass
        with held(folder.with_name("y")):  # another folder
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    with held(folder):  # the lock went with its process
        folder.mkdir()
        (folder / "a").touch()
    assert [path.name for path in folder.iterdir()] == ["a"]  # it is no part of the folder


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: write_json(path, {"a": 2}), lambda: write_bytes(path, b"2")):
        with pytest.raises(OSError, match="No space left") as failed:
            write()
        assert failed.value.filename == str(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o007, 0o077])
def test_what_is_written_has_the_mode_that_the_umask_gives(tmp_path, mask):
    before = os.umask(mask)
    try:
        for _ in range(2):  # a new file, and one in its place
            write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path):
    path, names = tmp_path / "a.json", []
    with files.atomic_file(path):
        names += [each.name for each in tmp_path.iterdir()]
    (tmp_path / names[0]).touch()  # as if that writer had been killed
    write_json(path, {})
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_an_error_that_the_system_leaves_unnamed_names_the_file_that_cannot_be_written(tmp_path):
    (tmp_path / "whole").write_bytes(b"kept")
    cases = (
        ("copy", lambda: files.copy_file(tmp_path / "whole", tmp_path / "copy")),
        (".out.lock", lambda: enter(held(tmp_path / "out"))),
        ("new", lambda: enter(files.atomic_folder(tmp_path / "new"))),
    )

    def enter(context):
        with context as folder:
            (folder / "file").write_bytes(b"1")

    def full(call, file, fault):
        if call in ("sendfile", "write"):
            raise fault(errno.ENOSPC)

    for name, write in cases:
        with writes.met(full), pytest.raises(OSError) as caught:
            write()
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / name)
