"""Equal records in another place, locale, time zone, hash order, order of files and of workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.faults import stored, system

ROOT = Path(__file__).parents[1]
STAGES = ("download", "extract", "centroids", "tune", "train_ibma", "probe", "significance")
PROGRAM = """
from ibma.params import prepare

prepare()
import os, sys
from contextlib import nullcontext
from tests.faults import rawdata, stored

with rawdata.backwards() if os.environ["BACKWARDS"] == "1" else nullcontext():
    stored.STAGES[sys.argv[1]]()
"""
HERE = {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "1", "BACKWARDS": "0"}
THERE = {"LC_ALL": "C.UTF-8", "TZ": "Asia/Kolkata", "PYTHONHASHSEED": "2", "BACKWARDS": "1"}
HERE["OMP_NUM_THREADS"], THERE["OMP_NUM_THREADS"] = "1", "3"


def run(folder: Path, workers: int, threads: int, surroundings: dict[str, str]) -> dict:
    """Run a small project, each stage in its own process; return what its stages leave."""
    folder.mkdir()
    values = stored.profile() | {"threads": threads}
    values["engine"]["workers"] = workers
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = os.environ | surroundings | {"PYTHONPATH": paths}
    for stage in STAGES:
        command = [sys.executable, "-c", PROGRAM, stage]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return system.state(folder)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A project that ran here."""
    folder = tmp_path_factory.mktemp("projects") / "first"
    return folder, run(folder, 1, 1, HERE)


@pytest.mark.slow
def test_nothing_around_a_project_changes_its_records(first, tmp_path):
    _, first = first
    second = run(tmp_path / "b %20 c#d", 2, 1, THERE)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.slow
def test_what_threads_may_change_is_in_the_key(first, tmp_path):
    one_thread, _ = first
    run(tmp_path / "two", 1, 2, HERE)
    files = sorted((one_thread / "runs").rglob("*.json"))
    assert files
    for file in files:
        other = tmp_path / "two" / file.relative_to(one_thread)
        one, two = (json.loads(path.read_text()) for path in (file, other))
        assert (one["environment"]["threads"], two["environment"]["threads"]) == (1, 2)
        assert one["key"] != two["key"]
