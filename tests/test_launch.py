"""A tiny pipeline dealt out to two workers: trained there, known here, tried again, taken up."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ibma import grid, launch
from ibma.launch import Crew, Submitit

ROOT = Path(__file__).parent.parent
STAGES = ("download", "extract", "centroids", "tune", "train", "train_ibma")
# Every start of a training is told to a side log; one cell fails the first time.
TELLING = """
from pathlib import Path
with Path({log!r}).open("a") as side:
    print(sys.argv[2], Path.cwd(), file=side)
if sys.argv[2] == "ce3" and Path({log!r}).read_text().count("ce3") == 1:
    sys.exit("error: fails once")
"""


def alike(unit: str) -> float:
    return 1.0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Digits, two methods and a variant, one seed of one epoch, in a repository of their own."""
    root = tmp_path_factory.mktemp("grid") / "head"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("src", "stages"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    (root / ".gitignore").write_text("/data/\n/runs/\n/models/\n/workers/\n/logs/\n__pycache__/\n")
    (root / ".dvcignore").write_text("workers\nlogs\n")
    dag = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    (root / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {name: dag[name] for name in STAGES}}, sort_keys=False)
    )
    values = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    values |= {
        "seeds": 1,
        "workers": 1,
        "datasets": {"split_digits": {"source": "real"}},
        "tasks": {"split_digits": values["tasks"]["split_digits"]},
        "methods": {"concat": {}, "ce3": {}},
        "variants": {"ibma": {}},
        "probe": {"task": "split_digits", "methods": []},
        "gradcam": {"tasks": {}, "methods": [], "examples": 1},
    }
    values["training"]["epochs"] = 1
    values["tuning"] |= {"folds": 2, "epochs": 1, "budget": 1}
    for stage in ("timing", "sensitivity"):
        values[stage]["task"] = "split_digits"
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    log = root.parent / "side.log"
    door = root / "stages" / "train.py"
    door.write_text(
        door.read_text().replace("\nif __name__", TELLING.format(log=str(log)) + "\nif __name__")
    )
    shell(root, "git", "init", "-q")
    shell(root, *grid.DVC, "init", "-q")
    shell(root, "git", "add", "-A")
    shell(root, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "tiny")
    return root


def shell(root, *command):
    subprocess.run(command, cwd=root, check=True, env=grid.environment(root))


def local_crew(root, **settings):
    executor = Submitit("local", 2, root / "logs" / "submitit", {"timeout_min": 10} | settings)
    cache = str(root / ".dvc" / "cache")
    return Crew(executor, root / "workers", str(root), cache=cache)


def trained(root):
    """(method, clone) of every start of a training."""
    lines = (root.parent / "side.log").read_text().splitlines()
    return [(line.split()[0], Path(line.split()[1])) for line in lines]


def test_two_workers_train_the_head_restores_and_a_failed_cell_is_tried_again(project):
    before = (project / "dvc.lock").read_text() if (project / "dvc.lock").exists() else ""
    assert before == ""
    launch.launch(project, local_crew(project), alike, retries=1, jobs=1)
    for method in ("concat", "ce3", "ibma"):
        assert (project / f"runs/split_digits/{method}/seed_0.json").exists()
        assert (project / f"models/split_digits/{method}/seed_0.pt").exists()
    starts = trained(project)
    assert sorted(method for method, _ in starts) == ["ce3", "ce3", "concat"]
    assert all(clone.parent == project / "workers" for _, clone in starts)
    assert len(list((project / "workers").glob("*/dvc.lock"))) == 2
    assert grid.stale(project, grid.stages(project)) == []
    launch.launch(project, local_crew(project), alike, retries=0, jobs=1)
    assert trained(project) == starts, "a second call had nothing to do"
