"""The grid on a throw-away DVC project: order, failures named, works without git."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ibma import cells, grid, params
from ibma.errors import IbmaError
from ibma.grid import Unit

ROOT = Path(__file__).parent.parent

DAG = """
stages:
  download:
    matrix: {task: [a, b]}
    cmd: echo ${item.task} > raw-${item.task}
    outs: ["raw-${item.task}"]
  extract:
    matrix: {task: [a, b]}
    cmd: cp raw-${item.task} ${item.task}
    deps: ["raw-${item.task}"]
    outs: ["${item.task}"]
  train:
    matrix: {task: [a, b], method: [x, y]}
    cmd: test ! -e break-${item.task}-${item.method} && cp ${item.task} ${item.task}-${item.method}
    deps: ["${item.task}"]
    outs: ["${item.task}-${item.method}"]
  timing:
    cmd: cp a timing
    deps: [a]
    outs: [timing]
  report:
    cmd: cat a-x a-y b-x b-y timing > report
    deps: [a-x, a-y, b-x, b-y, timing]
    outs: [report]
"""
DOOR = """
import subprocess, sys
task = sys.argv[1]
subprocess.run(f"test ! -e break-{task} && echo {task} > raw-{task}", shell=True, check=True)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose doors run the commands of its stages; forked processes see the stand-in."""

    def run(profile, name):
        assert profile.workers == 1, "every core is busy already"
        with (tmp_path / "order").open("a") as told:
            print(name, os.getpid(), file=told)
        subprocess.run(commands[name], shell=True, check=True)

    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (tmp_path / "dvc.yaml").write_text(DAG)
    values = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    values["datasets"] |= {"a": {"source": "real"}, "b": {"source": "twin"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "download.py").write_text(DOOR)
    # DVC keeps its locks and indexes of all repositories in one system folder otherwise.
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    commands = commands_of(yaml.safe_load(DAG)["stages"])
    monkeypatch.setattr(cells, "run", run)
    return tmp_path


def commands_of(stages):
    """Name of every stage -> its command."""
    found = {name: one["cmd"] for name, one in stages.items() if "matrix" not in one}
    for name, one in stages.items():
        for task in one.get("matrix", {}).get("task", []):
            for method in one["matrix"].get("method", [None]):
                here = one["cmd"].replace("${item.task}", task)
                here = here.replace("${item.method}", str(method))
                found[f"{name}@{task}" + (f"-{method}" if method else "")] = here
    return found


def ran(project):
    """Stages in the order in which they went through their doors, but for real data."""
    order = project / "order"
    names = [line.split()[0] for line in order.read_text().splitlines()] if order.exists() else []
    order.unlink(missing_ok=True)
    return names


def test_of_takes_whole_names_only():
    cells = ["train@a-x", "train_ibma@a-ibma", "report"]
    assert grid.of(cells, ("train",)) == ["train@a-x"]
    assert grid.of(cells, ("train_ibma", "report")) == cells[1:]


def test_everything_runs_in_order_is_recorded_and_not_run_again(project, capfd):
    grid.repro(project, 2)
    assert sorted((project / "report").read_text().split()) == list("aaabb")
    order = ran(project)
    assert order[-2:] == ["timing", "report"], "what compares speeds runs by itself"
    assert all(
        order.index(f"extract@{t}") < order.index(f"train@{t}-{m}") for t in "ab" for m in "xy"
    )
    assert grid.stale(project) == []
    logs = "".join(path.read_text() for path in (project / "logs").glob("process_*.log"))
    assert all(f"== {name}\n" in logs for name in order)
    grid.repro(project, 2)
    assert ran(project) == [] and "up to date" in capfd.readouterr().out
    told = subprocess.run([*grid.DVC, "repro"], cwd=project, capture_output=True, text=True)
    assert told.returncode == 0 and "Running stage" not in told.stdout


def test_only_what_changed_and_what_waits_for_it_runs_again(project):
    grid.repro(project, 2)
    ran(project)
    (project / "raw-b").write_text("other\n")
    assert set(grid.stale(project)) == {"download@b", "extract@b"}
    grid.repro(project, 1)
    names = ["download@b", "extract@b", "train@b-x", "train@b-y", "report"]
    assert ran(project) == names


def test_failed_cell_is_named_others_kept_then_resumed(project):
    (project / "break-a-y").touch()
    with pytest.raises(IbmaError, match=r"1 cells failed \(train@a-y\)"):
        grid.repro(project, 2)
    assert (project / "b-y").exists() and not (project / "report").exists()
    assert set(grid.stale(project)) == {"train@a-y", "report"}, "the others are recorded"
    ran(project)
    (project / "break-a-y").unlink()
    grid.repro(project, 1)
    assert ran(project) == ["train@a-y", "report"]


def test_real_data_that_cannot_be_had_stops_its_own_tasks_only(project):
    (project / "break-a").touch()
    with pytest.raises(IbmaError, match=r"1 cells failed \(download@a\)"):
        grid.repro(project, 2)
    assert (project / "b-y").exists() and not (project / "a").exists()


def test_a_killed_process_ends_in_one_line(project, monkeypatch):
    monkeypatch.setattr(cells, "run", lambda profile, name: os.kill(os.getpid(), 9))
    with pytest.raises(IbmaError, match="a process was killed.*--jobs"):
        grid.repro(project, 1)


def test_other_machines_do_the_waves_of_trainings(project, monkeypatch):
    asked = []

    def train(names):
        asked.append(names)
        for name in names:
            cells.run(replace(params.load(), workers=1), name)
        grid.commit(project, names)

    monkeypatch.chdir(project)
    grid.repro(project, 2, train)
    assert asked == [[f"train@{t}-{m}" for t in "ab" for m in "xy"]]
    assert (project / "report").exists() and grid.stale(project) == []


def test_the_most_urgent_first_and_a_measurement_alone():
    small, large = Unit("train@a-x", "train@a-x", 1), Unit("tune@b-x", "tune@b", 9)
    timing, extract = Unit("timing", "timing", 0), Unit("extract@c", "extract@c", 0)
    assert grid._next([small, timing, large], [], 2, 2) == large
    assert grid._next([timing], [small], 2, 2) is None
    assert grid._next([timing], [], 2, 2) == timing
    assert grid._next([small], [timing], 2, 2) is None
    assert grid._next([small], [large, large], 2, 2) is None
    assert grid._next([small, extract], [large], 2, 1) == extract, "one network at a time on a GPU"
    assert grid._next([small], [extract], 2, 1) == small


@pytest.mark.parametrize(("stage", "ending"), [("train", "-{}"), ("tune", "")])
def test_methods_share_processes_and_failures_are_named(tmp_path, monkeypatch, stage, ending):
    """Forked processes see the stand-in."""

    def work(profile, task, method):
        if (task, method) == ("b", "y"):
            raise IbmaError(f"{task}: no such thing")
        if (task, method) == ("c", "y"):
            raise ZeroDivisionError
        (tmp_path / f"{task}-{method}").write_text(str(os.getpid()))

    monkeypatch.setitem(cells.DOORS, stage, work)
    twin = params.load(ROOT / "profiles/twin.yaml")
    profile = replace(twin, methods={"x": {}, "y": {}}, variants={"z": {}})
    monkeypatch.setattr(params, "load", lambda path=None: profile)
    names = dict.fromkeys(f"{stage}@{task}{ending}".format(m) for task in "abcd" for m in "xyz")
    here = grid.Work(tmp_path, 2)
    here.go(dict.fromkeys(names, ()))
    assert here.failed == {f"{stage}@{task}{ending}".format("y") for task in "bc"}
    assert here.done == set(names) - here.failed
    assert len({(tmp_path / f"{task}-x").read_text() for task in "abcd"}) <= 2
    logs = "".join(path.read_text() for path in (tmp_path / "logs").glob("process_*.log"))
    assert "error: b: no such thing" in logs and "ZeroDivisionError" in logs


def test_no_jobs_and_no_pipeline(tmp_path):
    with pytest.raises(IbmaError, match="--jobs 0"):
        grid.repro(tmp_path, 0)
    with pytest.raises(IbmaError, match="dvc"):
        grid.dag(tmp_path)
