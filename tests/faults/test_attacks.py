"""Damage, lies, kills and system errors, by the thousand: `make test-faults`."""

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from . import rawdata, stored, system

pytestmark = [pytest.mark.faults, pytest.mark.slow]

TARGETS = [pytest.param(one, id=f"{one.kind} {n}") for n, one in enumerate(stored.TARGETS)]
SOURCES = [pytest.param(one, id=one.name) for one in rawdata.sources()]
SLOWEST_FIRST = list(reversed(stored.STAGES))  # so that both processes end together
KILLS = 4  # of each stage
MEMORY, ROOM = Path("/dev/shm"), 4 << 30  # a file system in memory, and the bytes that it needs


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A small project after every stage; each trial works in a copy of it.

    It lies in memory where there is room: trials make and delete files by the million.
    """
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    folder = MEMORY if roomy else tmp_path_factory.mktemp("faults")
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(dir=folder, prefix="faults-") as root,
    ):
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        yield stored.make(Path(root))
        os.chdir(folder)


@pytest.mark.parametrize("stage", SLOWEST_FIRST)
def test_a_system_error_at_any_write_is_one_line_and_costs_no_work(project, stage, counted):
    counted(system.errors(project, stage))


@pytest.mark.parametrize("target", TARGETS)
def test_damage_to_what_stages_read_back_is_refused_or_mended(project, target, counted):
    counted(stored.attack(target, project, random.Random(target.pattern)))


@pytest.mark.parametrize("source", SOURCES)
def test_damage_to_raw_files_is_refused_or_dropped_by_name(source, tmp_path, counted):
    for figures in rawdata.attack(source, tmp_path, random.Random(source.name)):
        counted(figures)


@pytest.mark.parametrize("stage", stored.STAGES)
def test_a_killed_stage_leaves_what_it_always_leaves_when_it_runs_again(project, stage, counted):
    counted(system.kills(project, stage, random.Random(stage), KILLS))
