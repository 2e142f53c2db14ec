"""The grid on a throw-away DVC project: batches, failures named, works without git."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ibma import cells, grid, params
from ibma.errors import IbmaError

ROOT = Path(__file__).parent.parent

# No download stage here: without targets `dvc repro` would run everything in one process.
DAG = """
stages:
  extract:
    cmd: echo 1 > raw
    outs: [raw]
  centroids:
    matrix: {task: [a, b], method: [x, y]}
    cmd: test ! -e break-${item.task}-${item.method} && cp raw ${item.task}-${item.method}
    deps: [raw]
    outs: ["${item.task}-${item.method}"]
  report:
    cmd: cat a-x a-y b-x b-y > report
    deps: [a-x, a-y, b-x, b-y]
    outs: [report]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (tmp_path / "dvc.yaml").write_text(DAG)
    # DVC keeps its locks and indexes of all repositories in one system folder otherwise.
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return tmp_path


@pytest.mark.parametrize(("count", "jobs"), [(0, 3), (1, 4), (7, 3), (6, 2)])
def test_deal_is_a_partition_of_even_batches(count, jobs):
    cells = [f"train@{i}" for i in range(count)]
    batches = grid.deal(cells, jobs)
    assert sorted(sum(batches, [])) == sorted(cells)
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == min(jobs, count)
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_deal_separates_neighbours():
    assert grid.deal(["a-x", "a-y", "b-x", "b-y"], 2) == [["a-x", "b-x"], ["a-y", "b-y"]]


def test_of_takes_whole_names_only():
    cells = ["train@a-x", "train_ibma@a-ibma", "report"]
    assert grid.of(cells, ("train",)) == ["train@a-x"]
    assert grid.of(cells, ("train_ibma", "report")) == cells[1:]


def test_failed_cell_is_named_others_kept_then_resumed(project):
    (project / "break-a-y").touch()
    with pytest.raises(IbmaError, match=r"1 cells failed \(centroids@a-y\)"):
        grid.repro(project, 2)
    assert (project / "b-y").exists() and not (project / "report").exists()
    (project / "break-a-y").unlink()
    grid.repro(project, 1)
    assert (project / "report").read_text() == "1\n" * 4
    assert (project / "logs" / "extract_0.log").exists()
    # The finished cells were recorded by the parallel run and are not run again.
    log = "".join(path.read_text() for path in (project / "logs").glob("centroids_*.log"))
    assert log.count("Running stage") == 1 and "Stage 'centroids@b-x' didn't change" in log


def test_stale_cells_are_those_that_dvc_would_run(project):
    grid.repro(project, 2)
    cells = grid.of(grid.stages(project), ("centroids",))
    assert grid.stale(project, cells) == []
    (project / "b-x").unlink()
    assert grid.stale(project, cells) == ["centroids@b-x"]


@pytest.mark.parametrize(("stage", "ending"), [("train", "-{}"), ("tune", "")])
def test_methods_share_processes_and_failures_are_named(tmp_path, monkeypatch, stage, ending):
    """Forked processes see the stand-in."""

    def work(profile, task, method):
        if (task, method) == ("b", "y"):
            raise IbmaError(f"{task}: no such thing")
        if (task, method) == ("c", "y"):
            raise ZeroDivisionError
        assert profile.workers == 1, "every core is busy already"
        (tmp_path / f"{task}-{method}").write_text(str(os.getpid()))

    monkeypatch.setattr(cells, "train_cell" if stage == "train" else "tune_method", work)
    twin = params.load(ROOT / "profiles/twin.yaml")
    profile = replace(twin, methods={"x": {}, "y": {}}, variants={"z": {}})
    monkeypatch.setattr(params, "load", lambda path=None: profile)
    names = dict.fromkeys(f"{stage}@{task}{ending}".format(m) for task in "abcd" for m in "xyz")
    failed = grid.run_inside(tmp_path, list(names), 2)
    assert failed == [f"{stage}@{task}{ending}".format("y") for task in "bc"]
    assert len({(tmp_path / f"{task}-x").read_text() for task in "abcd"}) <= 2
    logs = "".join(path.read_text() for path in (tmp_path / "logs").glob(f"{stage}_*.log"))
    assert "error: b: no such thing" in logs and "ZeroDivisionError" in logs


def test_no_jobs_and_no_pipeline(tmp_path):
    with pytest.raises(IbmaError, match="--jobs 0"):
        grid.repro(tmp_path, 0)
    with pytest.raises(IbmaError, match="dvc"):
        grid.stages(tmp_path)
