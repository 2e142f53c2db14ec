"""Two clones, each in its own surroundings, leave equal records."""

import os
import shutil
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
from pathlib import Path
import ibma
from tests.faults import rawdata, stored

assert Path(ibma.__file__).is_relative_to(Path.cwd()), "the code of this clone"
with rawdata.backwards() if os.environ["BACKWARDS"] == "1" else nullcontext():
    for stage in sys.argv[1:]:
        stored.STAGES[stage]()
"""
# Python reads text as UTF-8 in either locale, unless it is told to take C at its word: ASCII.
HERE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "UTC"}
THERE = {"LC_ALL": "C.UTF-8", "TZ": "Asia/Kolkata", "PYTHONHASHSEED": "2", "BACKWARDS": "1"}
HERE |= {"PYTHONHASHSEED": "1", "BACKWARDS": "0", "OMP_NUM_THREADS": "1"}
THERE |= {"OMP_NUM_THREADS": "3"}


def run(clone: Path, workers: int, surroundings: dict[str, str]) -> dict:
    """Run a small project in a clone; return what its stages leave."""
    for name in ("profiles", "src", "tests"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    values = stored.profile()
    values["engine"]["workers"] = workers
    (clone / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    paths = os.pathsep.join([str(clone / "src"), str(clone)])
    environment = os.environ | surroundings | {"PYTHONPATH": paths}
    command = [sys.executable, "-c", PROGRAM, *STAGES]
    subprocess.run(command, cwd=clone, env=environment, check=True, capture_output=True)
    return system.state(clone)


@pytest.mark.slow
def test_nothing_around_a_clone_changes_its_records(tmp_path):
    first = run(tmp_path / "first", 1, HERE)
    second = run(tmp_path / "b %20 c#d", 2, THERE)
    assert any(name.startswith("runs/") for name in first) and first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
