"""The grid on a throw-away DVC project: batches, failures named, works without git."""

import pytest

from ibma import grid
from ibma.errors import IbmaError

# No download stage here: without targets `dvc repro` would run everything in one process.
DAG = """
stages:
  extract:
    cmd: echo 1 > raw
    outs: [raw]
  train:
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
    with pytest.raises(IbmaError, match=r"1 cells failed \(train@a-y\)"):
        grid.repro(project, 2)
    assert (project / "b-y").exists() and not (project / "report").exists()
    (project / "break-a-y").unlink()
    grid.repro(project, 1)
    assert (project / "report").read_text() == "1\n" * 4
    assert (project / "logs" / "extract_0.log").exists()
    # The finished cells were recorded by the parallel run and are not run again.
    log = "".join(path.read_text() for path in (project / "logs").glob("train_*.log"))
    assert log.count("Running stage") == 1 and "Stage 'train@b-x' didn't change" in log


def test_no_jobs_and_no_pipeline(tmp_path):
    with pytest.raises(IbmaError, match="--jobs 0"):
        grid.repro(tmp_path, 0)
    with pytest.raises(IbmaError, match="dvc"):
        grid.stages(tmp_path)
