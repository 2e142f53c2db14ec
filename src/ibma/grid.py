"""Run the DAG with every core of one machine busy.

DVC runs one stage at a time. Cells of one wave do not depend on each other, so each wave is dealt
out to several `dvc --wait-for-lock repro -s -k` processes; a last plain `dvc repro` then finds the
cells up to date and does what is left. `-s` is needed: without it two processes that share an
upstream stage refuse each other even when it is up to date.

Trials and trainings are many and short, and a process spends seconds on imports before it trains:
processes that stay do them, one method of one task after the other, by the functions that the
stages call; `dvc commit` then records what they wrote.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from ibma import params
from ibma.errors import IbmaError

# Stages of one wave run side by side; a wave starts when the one before has ended.
WAVES = ("extract", "centroids")
# Waves whose work is done by processes that stay.
INSIDE = (("tune",), ("train", "train_ibma", "sensitivity"))
LOGS = Path("logs")

DVC = (sys.executable, "-m", "dvc")
_STARTED = re.compile(r"^(?:Running stage|Stage) '(?P<cell>[^']+)'")
_FAILED = re.compile(r"failed to reproduce (?:stages: )?(?P<cells>'.*')")


def repro(root: Path, jobs: int) -> None:
    """Bring the whole pipeline up to date with `jobs` processes.

    A failed cell does not stop the others; finished cells are kept.

    Raises:
        IbmaError: `jobs` < 1, no pipeline under `root`, or failed cells, which it names.
    """
    if jobs < 1:
        raise IbmaError(f"--jobs {jobs}: expected a number of processes >= 1")
    without_git(root)
    cells = stages(root)
    # Downloads go first, one by one and in the open: they are bound by the network, not the cores.
    if downloads := of(cells, ("download",)):
        _dvc(root, "repro", *downloads)
    for wave in WAVES:
        _stop_at(run_cells(root, of(cells, (wave,)), jobs))
    for stages_ in ([name for name in wave if of(cells, (name,))] for wave in INSIDE):
        if wanted := stale(root, of(cells, stages_)):
            failed = run_inside(root, wanted, jobs)
            # DVC writes its lock file once a target: a whole matrix costs as much as one cell
            done = [cell for cell in wanted if cell not in failed] if failed else stages_
            if done:
                _dvc(root, "commit", "--force", *done)
            _stop_at(failed)
    _dvc(root, "repro")


def _stop_at(failed: Sequence[str]) -> None:
    if failed:
        raise IbmaError(
            f"{len(failed)} cells failed ({', '.join(failed)}): read {LOGS}/, mend the cause "
            "and run again, finished cells are kept"
        )


def without_git(root: Path) -> None:
    """Tell DVC to work without git where the sources came as an archive."""
    if not (root / ".git").exists():
        _dvc(root, "config", "--local", "core.no_scm", "true")


def stages(root: Path) -> list[str]:
    """Return the names of all stages in DAG file order, such as `train@crema_d-ce3`."""
    return _asked(root, "stage", "list", "--name-only").split()


def _asked(root: Path, *arguments: str) -> str:
    """What DVC answers. Raises IbmaError with its complaint."""
    done = subprocess.run(
        [*DVC, *arguments], cwd=root, env=_environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise IbmaError(f"dvc.yaml: {' '.join(done.stderr.split())}")
    return done.stdout


def of(cells: Iterable[str], names: Sequence[str]) -> list[str]:
    """Select the stages whose name before `@` is one of `names`."""
    return [cell for cell in cells if cell.partition("@")[0] in names]


def deal(cells: Sequence[str], jobs: int) -> list[list[str]]:
    """Deal cells out in turn, so that neighbours of alike cost go to different processes."""
    return [list(cells[start::jobs]) for start in range(min(jobs, len(cells)))]


def stale(root: Path, cells: Sequence[str]) -> list[str]:
    """Select the stages that are not up to date."""
    if not cells:
        return []
    # of all stages: DVC walks its files anew for every target that it is given
    changed = json.loads(_asked(root, "status", "--json"))
    return [cell for cell in cells if cell in changed]


def run_inside(root: Path, cells: Sequence[str], jobs: int) -> list[str]:
    """Do the work of `cells` in `jobs` processes; return the failed ones.

    The output of each process goes to `logs/<stage>_<process id>.log`.
    """
    stage = cells[0].partition("@")[0]
    _clear_logs(root, stage)
    log = root.resolve() / LOGS / stage
    with ProcessPoolExecutor(jobs, initializer=_begin, initargs=(root.resolve(), log)) as pool:
        doing = {pool.submit(_do, *work): cell for cell in cells for work in _works(root, cell)}
        bar = tqdm(as_completed(doing), stage, len(doing), unit="cell")
        return sorted({doing[future] for future in bar if not future.result()})


def _works(root: Path, cell: str) -> list[tuple[str, str]]:
    """(stage, name) of a cell such as `train@crema_d-ce3`; of `tune@crema_d` one per method."""
    stage, _, name = cell.partition("@")
    if stage != "tune":
        return [(stage, name)]
    profile = params.load(root / "params.yaml")
    return [(stage, f"{name}-{method}") for method in (*profile.methods, *profile.variants)]


def _begin(root: Path, log: Path) -> None:
    os.chdir(root)
    file = os.open(f"{log}_{os.getpid()}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())


def _do(stage: str, name: str) -> bool:
    """Do one piece of work; whatever goes wrong is told in this process's log."""
    print(f"== {stage} {name}", flush=True)
    try:
        _call(stage, name)
    except IbmaError as error:
        print(f"error: {error}", flush=True)
    except Exception:
        traceback.print_exc()
    else:
        return True
    return False


def _call(stage: str, name: str) -> None:
    """What the stage's door calls."""
    from ibma import cells

    profile = params.load()
    if stage == "sensitivity":
        variant, _, eta = name.partition("-")
        return cells.train_at(profile, variant, float(eta))
    task, _, method = name.partition("-")
    work = cells.tune_method if stage == "tune" else cells.train_cell
    work(profile, task, method)


def _clear_logs(root: Path, stage: str) -> None:
    (root / LOGS).mkdir(exist_ok=True)
    for old in (root / LOGS).glob(f"{stage}_*.log"):
        old.unlink()


def run_cells(root: Path, cells: Sequence[str], jobs: int) -> list[str]:
    """Run `cells` in `jobs` processes, show progress, return the names of the failed ones.

    The output of process i goes to `logs/<stage>_<i>.log`.
    """
    if not cells:
        return []
    stage = cells[0].partition("@")[0]
    _clear_logs(root, stage)
    batches = deal(cells, jobs)
    with (
        tqdm(total=len(cells), desc=stage, unit="cell") as bar,
        ThreadPoolExecutor(len(batches)) as pool,
    ):
        failed = pool.map(
            lambda i: _worker(root, batches[i], LOGS / f"{stage}_{i}.log", bar.update),
            range(len(batches)),
        )
        return sorted(cell for names in failed for cell in names)


def _worker(root: Path, batch: list[str], log: Path, advance: Callable[[int], object]) -> list[str]:
    """Run one batch to its end; return its failed cells."""
    begun: set[str] = set()
    failed: set[str] = set()
    command = [*DVC, "--wait-for-lock", "repro", "-s", "-k", *batch]
    with (
        (root / log).open("w") as file,
        subprocess.Popen(
            command,
            cwd=root,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            file.flush()
            if (found := _STARTED.match(line)) and found["cell"] not in begun:
                advance(1 if begun else 0)
                begun.add(found["cell"])
            if found := _FAILED.search(line):
                failed |= set(re.findall(r"'([^']+)'", found["cells"])) & set(batch)
    advance(len(batch) - max(len(begun) - 1, 0))
    if process.returncode and not failed:
        failed = set(batch)  # DVC itself gave up: which cell it was doing is in the log
    return sorted(failed)


def _dvc(root: Path, *arguments: str) -> None:
    """Run DVC in the open. Raises IbmaError when it fails."""
    if subprocess.run([*DVC, *arguments], cwd=root, env=_environment()).returncode:
        raise IbmaError(f"`dvc {arguments[0]}` failed: the lines above say why, run again to go on")


def _environment() -> dict[str, str]:
    """Return an environment in which the stages' `python` is this one, unbuffered."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
