"""A tiny pipeline dealt out to two workers: trained there, known here, tried again, taken up."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ibma import grid, launch, params, worker
from ibma.errors import IbmaError
from ibma.launch import Crew, Head, Hosts, Submitit

ROOT = Path(__file__).parent.parent
STAGES = ("download", "extract", "centroids", "tune", "train")
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
    """Digits under two methods, one seed of one epoch, in a repository of their own."""
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
    return Crew(executor, root / "workers", str(root), cache=launch.cache(root))


def trained(root):
    """(method, clone) of every start of a training."""
    lines = (root.parent / "side.log").read_text().splitlines()
    return [(line.split()[0], Path(line.split()[1])) for line in lines]


def test_two_workers_train_the_head_restores_and_a_failed_cell_is_tried_again(project):
    launch.launch(project, local_crew(project), alike, retries=1, jobs=1)
    for method in ("concat", "ce3"):
        assert (project / f"runs/split_digits/{method}/seed_0.json").exists()
        assert (project / f"models/split_digits/{method}/seed_0.pt").exists()
    starts = trained(project)
    assert sorted(method for method, _ in starts) == ["ce3", "ce3", "concat"]
    assert all(clone.parent == project / "workers" for _, clone in starts)
    assert len(list((project / "workers").glob("*/dvc.lock"))) == 2
    assert grid.stale(project) == []
    assert trained(project) == starts, "the head trained nothing"


def forget(root, *methods):
    """Take trainings out of the head: its lock file, its records and its weights."""
    as_dvc_does = YAML()
    lock = as_dvc_does.load(root / "dvc.lock")
    gone = [cell for cell in grid.dag(root) if cell.rpartition("-")[2] in methods]
    for cell in gone:
        del lock["stages"][cell]
    as_dvc_does.dump(lock, root / "dvc.lock")
    for method in methods:
        shutil.rmtree(root / f"runs/split_digits/{method}")
        shutil.rmtree(root / f"models/split_digits/{method}")
    return gone


class HeadDies:
    """Workers finish, but the head is killed before it hears of it."""

    workers = ("0", "1")

    def run(self, orders):
        for order in orders.values():
            worker.run(order)
        raise KeyboardInterrupt


class Nobody:
    workers = ("0", "1")

    def run(self, orders):
        raise AssertionError("nothing was left to do")


def test_a_head_that_was_killed_finds_what_the_clones_finished(project, tmp_path):
    cells = forget(project, "ce3")
    crew = Crew(HeadDies(), tmp_path, str(project), cache=launch.cache(project))
    with pytest.raises(KeyboardInterrupt):
        Head(project, crew, alike, retries=0).train(cells)
    assert set(cells) <= set(grid.stale(project))
    starts = trained(project)
    Head(project, replace(crew, executor=Nobody()), alike, retries=0).train(cells)
    assert grid.stale(project) == []
    assert (project / "runs/split_digits/ce3/seed_0.json").exists()
    assert trained(project) == starts


SSH = """#!/bin/sh
for command in "$@"; do host=$last; last=$command; done
if [ "$host" = down ]; then echo "ssh: connect to host down port 22: no route" >&2; exit 255; fi
exec sh -c "$command"
"""


def test_hosts_share_a_remote_only_and_the_cells_of_a_lost_one_go_to_another(
    project, tmp_path, monkeypatch, capsys
):
    """A stand-in for `ssh` runs the command here; what goes over the wire is the same."""
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    shell(project, *grid.DVC, "remote", "add", "--local", "store", str(tmp_path / "store"))
    cells, before = forget(project, "ce3"), len(trained(project))
    crew = Crew(
        Hosts(["down", "up"], sys.executable), tmp_path / "far", str(project), remote="store"
    )
    Head(project, crew, alike, retries=1).train(cells)
    assert "down: lost: ssh: connect to host down port 22: no route" in capsys.readouterr().err
    starts = trained(project)[before:]
    assert starts == [("ce3", tmp_path / "far" / "up")]
    assert grid.stale(project) == []
    assert (project / "models/split_digits/ce3/seed_0.pt").exists()


def test_sources_that_are_not_committed_are_named(project):
    new = project / "src" / "new.py"
    new.touch()
    try:
        with pytest.raises(IbmaError, match=r"src/new.py: not committed, but workers clone"):
            launch.launch(project, local_crew(project), alike, retries=0, jobs=1)
    finally:
        new.unlink()


def test_cells_that_keep_failing_are_named_with_their_logs(project):
    class Failing:
        workers = ("0",)

        def run(self, orders):
            for name, order in orders.items():
                yield name, worker.Outcome({}, {}, order.units, "far:/clone/logs")

    cells = ["train@split_digits-concat"]
    crew = Crew(Failing(), project / "nowhere", str(project), cache="unused")
    with pytest.raises(IbmaError, match=r"failed 3 times \(train@.*-concat\).*far:/clone/logs"):
        Head(project, crew, alike, retries=2).train(cells)


@given(st.lists(st.floats(0, 1e6), max_size=40), st.integers(1, 8))
def test_dealing_is_a_partition_and_no_worker_could_be_relieved_by_its_last_cell(costs, workers):
    units = [f"train@task-{i}" for i in range(len(costs))]
    hours = dict(zip(units, costs, strict=True))
    shares = launch.deal(units, hours.__getitem__, workers)
    assert sorted(sum(shares, [])) == sorted(units) and len(shares) == min(workers, len(units))
    loads = [sum(hours[unit] for unit in share) for share in shares]
    for share, load in zip(shares, loads, strict=True):
        assert load - hours[share[-1]] <= min(loads) + 1e-3


def test_what_is_missing_says_what_to_install_or_correct(project, monkeypatch):
    with pytest.raises(IbmaError, match="no such DVC remote"):
        launch.address(project, "nowhere")
    with pytest.raises(IbmaError, match="--executor local: .*no_such"):
        Submitit("local", 1, project / "logs", {"no_such": 1})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(IbmaError, match=r"needs submitit: `pip install ibma\[slurm\]`"):
        Submitit("slurm", 1, project / "logs", {})


def test_a_dry_run_says_who_gets_what_and_changes_nothing(project):
    lock = (project / "dvc.lock").read_bytes()
    cells = forget(project, "concat", "ce3")
    told = launch.forecast(project, params.load(project / "params.yaml"), ["a", "b"])
    assert "train, train_ibma, sensitivity: 2 to do, ? h" in told
    assert "tune: 0 to do" in told
    assert [line.strip() for line in told.splitlines() if " worker " in line] == [
        f"worker {name}: 1, ? h: {cell}" for name, cell in zip("ab", cells, strict=True)
    ]
    (project / "dvc.lock").write_bytes(lock)
    shell(project, *grid.DVC, "checkout", *cells)


def test_settings_of_a_job():
    profile = params.load(ROOT / "profiles/twin.yaml")
    assert launch.settings("local", profile, []) == {"timeout_min": 1440}
    given = ["slurm_partition=gpu", "timeout_min=60", "gpus_per_node=2"]
    assert launch.settings("slurm", profile, given) == {
        "slurm_partition": "gpu",
        "timeout_min": 60,
        "gpus_per_node": 2,
    }
    assert launch.settings("slurm", profile, [])["gpus_per_node"] == 1
    assert "gpus_per_node" not in launch.settings("slurm", replace(profile, device="cpu"), [])
    with pytest.raises(IbmaError, match="--setting gpu: expected key=value"):
        launch.settings("local", profile, ["gpu"])
