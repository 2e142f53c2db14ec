"""Each engine makes real calls; whatever is killed, one line is said and no process is left.

Not run: Slurm itself, a cluster of several hosts, GPUs.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

import engine_calls as calls
import psutil
import pytest
import torch
from tqdm import tqdm

from ibma.engine import Processes, executor
from ibma.errors import IbmaError
from ibma.experiments import progress
from ibma.experiments.progress import run_all
from ibma.files import held
from ibma.network.distributed import together
from ibma.training.run import environment

TESTS = Path(__file__).parent
SOON = 2.0  # seconds in which a stopped stage is gone


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder to run in, whose workers find the package and these tests."""
    monkeypatch.chdir(tmp_path)
    path = (str(TESTS.parent / "src"), str(TESTS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps a token there
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "120")  # on a busy machine
    monkeypatch.setenv("RAY_worker_niceness", "0")  # not 15, which starves on one
    for key in ("RAY_ADDRESS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(key, raising=False)
    torch.set_num_threads(1)


@pytest.fixture
def undisturbed(tmp_path):
    """What the run of a cell gives in this process."""
    alone = tmp_path / "alone"
    alone.mkdir()
    return lambda cell, seed: calls.train(cell, seed, alone)


def check(engine, cell, tmp_path, undisturbed):
    """Two calls at once, three runs, an error and a defect, each as the caller would see it."""
    with executor(engine, "cpu", 8) as pool:
        pair = [pool.submit(calls.meet, tmp_path, one, ["a", "b"]) for one in "ab"]
        assert len({os.getpid(), *(future.result() for future in pair)}) == 3
        trained = {pool.submit(calls.train, cell, seed, tmp_path): seed for seed in range(3)}
        for future in as_completed(trained):
            seed, record = trained[future], future.result()
            assert record == undisturbed(cell, seed)
            assert record["key"] == cell.key(seed, calls.SETTING, environment(cell))
        with pytest.raises(IbmaError) as refused:
            pool.submit(calls.refuse, 3).result()
        assert str(refused.value) == "a.csv row 3: expected a label"
        with pytest.raises(ZeroDivisionError) as defect:
            pool.submit(calls.divide, 0).result()
    place = "".join([str(defect.value.__cause__), *getattr(defect.value, "__notes__", [])])
    assert "engine_calls.py" in place and "return 1 / by" in place


@pytest.mark.slow
def test_two_processes_of_this_machine_train_as_one_and_hand_errors_on(
    make_cell, tmp_path, undisturbed
):
    check(calls.engine(), make_cell(), tmp_path, undisturbed)


@pytest.mark.slow
def test_jobs_of_submitit_train_as_one_process_and_hand_errors_on(make_cell, tmp_path, undisturbed):
    check(calls.engine("slurm", cluster="local"), make_cell(), tmp_path, undisturbed)
    assert list((tmp_path / "logs" / "slurm").glob("*_log.out"))


SLURM = {  # stand-ins for its programs
    "srun": "",
    "sbatch": 'cp "$1" "$PWD/batch.$$"; echo "Submitted batch job $$"',
    "sacct": 'echo "JobID|State|NodeList"; for i in batch.*; do echo "${i#batch.}|RUNNING|n"; done',
    "scancel": 'echo "$@" > cancelled.part; mv cancelled.part cancelled',
}


def test_jobs_for_slurm_ask_for_what_the_options_say_and_are_cancelled_at_once(
    tmp_path, monkeypatch
):
    for name, script in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    engine = calls.engine("slurm", slurm_partition="gpu", timeout_min=90, processes=2)
    start = time.monotonic()
    with pytest.raises(ZeroDivisionError), executor(engine, "cuda", 2) as pool:
        futures = [pool.submit(calls.wait, 60) for _ in range(2)]
        while len(list(tmp_path.glob("batch.*"))) < 2:
            time.sleep(0.05)
        calls.divide(0)
    batches = {path.suffix[1:]: path.read_text() for path in tmp_path.glob("batch.*")}
    for asked in (
        "partition=gpu",
        "time=90",
        "gpus-per-node=2",
        "cpus-per-task=2",
        "job-name=ibma",
    ):
        assert all(f"#SBATCH --{asked}\n" in batch for batch in batches.values()), asked
    for future in futures:
        with pytest.raises(IbmaError):
            future.result()
    while not Path("cancelled").exists():
        time.sleep(0.05)
    assert set(Path("cancelled").read_text().split()) == set(batches)
    assert time.monotonic() - start < 30


@pytest.fixture
def cluster():
    """A Ray cluster of two workers, started before what the stage sets in its environment."""
    from ray.cluster_utils import Cluster

    started = Cluster(True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield started.address
    started.shutdown()


@pytest.mark.slow
def test_a_run_whose_ray_worker_is_killed_goes_on_elsewhere_to_the_same_record(
    cluster, make_cell, tmp_path, undisturbed, monkeypatch
):
    monkeypatch.setenv("FAISS_SIMD_LEVEL", "AVX2")
    engine, cell = calls.engine("ray", address=cluster), make_cell(epochs=8)
    with executor(engine, "cpu", 2) as pool:
        futures = [pool.submit(calls.train, cell, seed, tmp_path, 0.5) for seed in range(2)]
        while len(calls.epochs(tmp_path, 0)) < 4 or not calls.epochs(tmp_path, 1):
            time.sleep(0.05)
        (killed, _), (other, _) = calls.epochs(tmp_path, 0)[0], calls.epochs(tmp_path, 1)[0]
        os.kill(killed, signal.SIGKILL)
        assert futures[0].result() == undisturbed(cell, 0)
        assert futures[1].result() == undisturbed(cell, 1)
        assert pool.submit(os.getenv, "FAISS_SIMD_LEVEL").result() == "AVX2"
        with pytest.raises(IbmaError) as refused:
            pool.submit(calls.refuse, 3).result()
        assert str(refused.value) == "a.csv row 3: expected a label"
        with pytest.raises(ZeroDivisionError):
            pool.submit(calls.divide, 0).result()
    pids, numbers = zip(*calls.epochs(tmp_path, 0), strict=True)
    assert killed != other and len(set(pids)) == 2
    assert numbers.count(0) == 1 and sorted(set(numbers)) == list(range(8))  # from its checkpoint
    assert {pid for pid, _ in calls.epochs(tmp_path, 1)} == {other}

    once = calls.engine("ray", address=cluster, max_retries=0)
    with executor(once, "cpu", 1) as pool, pytest.raises(IbmaError, match="worker") as lost:
        pool.submit(calls.die).result()
    assert "\n" not in str(lost.value)


def test_a_killed_process_is_one_line_that_names_the_setting_to_lower(make_cell, tmp_path):
    found, before = [], set(psutil.Process().children())
    with pytest.raises(IbmaError, match=r"engine\.workers below 2.*finished runs are kept"):
        for key, future in run_all(
            calls.engine(),
            "cpu",
            "test",
            {"whole": (calls.train, make_cell(), 0, tmp_path), "killed": (calls.die,)},
        ):
            found.append((key, future.result()))
    assert [key for key, _ in found] in (["whole"], [])
    assert not set(psutil.Process().children()) - before


def test_calls_come_back_as_they_end_and_progress_is_lines_in_a_log_file(capsys):
    waits = {seconds: (calls.wait, seconds) for seconds in (2.0, 0.1, 0.2)} | {
        "x": (calls.wait, "x")
    }
    found, failed = [], []
    for key, future in run_all(
        calls.engine(), "cpu", "train fake", waits, lambda key, value: f"{key} took {value} s"
    ):
        (failed if future.exception() else found).append(key)
    assert found == [0.1, 0.2, 2.0] and failed == ["x"]
    lines = capsys.readouterr().err.splitlines()
    first, last = lines
    assert first.startswith("train fake: 0 of 4, 00:00")
    assert last.startswith("train fake: 4 of 4, 00:0")
    assert last.endswith(" left, 2.0 took 2.0 s")


def test_progress_counts_what_is_done_of_calls_that_still_run(monkeypatch):
    shown = []

    class Bar(tqdm):
        def update(self, n: float = 1) -> None:
            self.n += n
            shown.append(round(self.n, 2))

    monkeypatch.setattr(progress, "progress_bar", Bar)
    monkeypatch.setattr(progress, "BEAT_SECONDS", 0.3)
    shares = iter([0.25, 0.5, *[0.75] * 99])
    list(run_all(calls.engine(), "cpu", "x", {1: (calls.wait, 1.5)}, on_beat=lambda: next(shares)))
    assert shown[:2] == [0.2, 0.5] and shown == sorted(shown) and shown[-1] == 1


def test_each_process_sees_its_own_gpus(tmp_path, monkeypatch):
    for visible, shares in (
        ("", ["0,1", "2,3"]),
        ("GPU-a,GPU-b,GPU-c,GPU-d", ["GPU-a,GPU-b", "GPU-c,GPU-d"]),
    ):
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        names = [f"{visible} {number}" for number in range(2)]
        with Processes(2, gpus=4, gpus_each=2) as pool:
            found = [pool.submit(calls.gpus, tmp_path, name, names) for name in names]
        assert sorted(future.result() for future in found) == shares


def test_the_head_of_a_cluster_needs_no_gpu_to_name_runs_on_one(make_cell):
    assert environment(replace(make_cell(), device="cuda"))["device"] == "cuda"


def test_there_are_no_more_processes_than_cores_or_calls(monkeypatch):
    monkeypatch.setattr("ibma.engine.cores", lambda: 8)
    for workers, together_, threads, wanted, expected in (
        *((None, 1, 1, 3, 3), (None, 1, 1, 20, 8), (2, 1, 1, 20, 2), (16, 1, 1, 20, 16)),
        *((None, 4, 1, 20, 2), (None, 1, 4, 20, 2), (None, 16, 1, 20, 1), (None, 1, 1, 1, 1)),
    ):
        with executor(
            calls.engine(workers=workers, processes=together_), "cpu", wanted, threads
        ) as pool:
            assert pool._max_workers == expected


def test_an_engine_that_cannot_start_is_one_line(monkeypatch):
    for engine, line in (
        (calls.engine("slurm"), "params.yaml: engine slurm {}: .*srun"),
        (calls.engine("slurm", cluster="local", slurm_partitoin="gpu"), "slurm_partitoin"),
        (calls.engine("ray", address="127.0.0.1:1"), "params.yaml: engine ray {.*}: .*refused"),
    ):
        with pytest.raises(IbmaError, match=line) as wrong:
            executor(engine, "cpu", 1)
        assert "\n" not in str(wrong.value)
    for package, name in (("submitit", "slurm"), ("ray", "ray")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(IbmaError, match=rf"`pip install '.\[{name}\]'`"):
            executor(calls.engine(name), "cpu", 1)


@pytest.mark.slow
def test_two_processes_of_torchrun_make_a_call_together():
    before, (alone, _) = set(psutil.Process().children()), calls.average(3)
    found, world = together(2, calls.average, 3)
    assert world == 2 and found == pytest.approx(alone, rel=1e-6)
    for how, line in (("", "a.csv row 7: expected a label"), ("kill", "one of 2 processes")):
        start = time.monotonic()
        with pytest.raises(IbmaError) as failed:
            together(2, calls.average, 3, 1, how)
        assert str(failed.value).startswith(line) and "\n" not in str(failed.value)
        assert time.monotonic() - start < 60
    assert not set(psutil.Process().children()) - before


# --- the end of a stage --------------------------------------------------------------------------


class Stage:
    """A stage in a process of its own, all of whose calls have begun."""

    def __init__(self, folder: Path, name: str, *arguments: str, lingering: int) -> None:
        folder.mkdir()
        self.folder = folder
        program = f"from engine_calls import {name}; from ibma.errors import run_stage"
        program += f"; run_stage({name})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        end = time.monotonic() + 120
        while len(list(folder.glob("*.pid"))) < lingering:
            assert self.process.poll() is None and time.monotonic() < end, (
                self.process.communicate()
            )
            time.sleep(0.05)
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, how, soon: float) -> tuple[int, list[str], float, list[psutil.Process]]:
        """Return exit code, errors, seconds to the end, and processes that are left `soon`."""
        start = time.monotonic()
        how(self.process.pid)
        code = self.process.wait(60)
        taken = time.monotonic() - start
        while (left := [*filter(runs, self.family)]) and time.monotonic() < start + soon:
            time.sleep(0.02)
        for process in left:
            process.kill()
        return code, self.process.stderr.read().splitlines(), taken, left


def runs(process: psutil.Process) -> bool:
    """Return whether a process runs; one that only waits to be collected does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def interrupt(pid):
    os.kill(pid, signal.SIGINT)


def interrupt_group(pid):
    os.killpg(pid, signal.SIGINT)


def terminate(pid):
    os.kill(pid, signal.SIGTERM)


def terminate_group(pid):
    os.killpg(pid, signal.SIGTERM)


def kill(pid):
    os.kill(pid, signal.SIGKILL)


HOWS = {
    interrupt: (130, "error: interrupted: "),
    interrupt_group: (130, "error: interrupted: "),
    terminate: (143, "error: terminated: "),
    terminate_group: (143, "error: terminated: "),
    kill: (-signal.SIGKILL, None),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "hows", "lingering"),
    [
        (("processes", "1"), list(HOWS), 2),
        (("processes", "2"), [interrupt_group, kill], 4),
        (("ray", "1"), [interrupt_group, terminate], 2),
    ],
    ids=["processes", "torchrun", "ray"],
)
def test_a_stopped_stage_leaves_one_line_and_no_process(tmp_path, engine, hows, lingering):
    for how in hows:
        code, line = HOWS[how]
        folder = tmp_path / how.__name__
        stage = Stage(folder, "stage", *engine, lingering=lingering)
        with pytest.raises(IbmaError) as refused, held(folder / "out"):
            pass
        assert f"another process is writing it (pid {stage.process.pid})" in str(refused.value)
        # Ray takes longer for its processes, and may log a line on the calls that it stops
        found, errors, taken, left = stage.stop(how, 10 if "ray" in engine else SOON)
        errors = [error for error in errors if "task_manager.cc" not in error]
        assert found == code, (how.__name__, errors)
        assert len(errors) == (line is not None), (how.__name__, errors)
        assert all(error.startswith(line) for error in errors)
        assert taken < SOON and not left, (how.__name__, taken, left)
        with held(folder / "out"):  # the lock went with its process
            pass


@pytest.mark.slow
def test_workers_of_a_ray_cluster_end_with_the_killed_stage_that_started_it(tmp_path):
    stage = Stage(tmp_path / "killed", "stage", "ray", "1", lingering=2)
    kill(stage.process.pid)
    stage.process.wait()
    workers = [one for one in stage.family if (stage.folder / f"{one.pid}.pid").exists()]
    assert len(workers) == 2
    end = time.monotonic() + 20  # Ray looks every second, and waits for a call to end
    while any(map(runs, workers)):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_stage_deaf_in_native_code_is_stopped_all_the_same(tmp_path):
    for how, code in ((interrupt, 130), (terminate, 143)):
        stage = Stage(tmp_path / how.__name__, "deaf_stage", lingering=1)
        found, errors, taken, _ = stage.stop(how, SOON)
        assert found == code and len(errors) == 1 and taken < SOON, (errors, taken)
