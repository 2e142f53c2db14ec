"""The measures of a GPU, most important first.

Sizes are those of the paper: CREMA-D's 6,698 clips for every method, MIMIC-CXR's 227,835 pairs for
a step. Nothing that is timed reads a value back from the device, and whatever is compared runs in
turn in one process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import torch
import yaml
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import paper_times, step
from benchmarks.gpu.lines import MIMIC_PAIRS, PAPER_EPOCH
from benchmarks.gpu.session import Session
from benchmarks.measure import Row, Spread, duration, ratio
from benchmarks.problems import (
    TWIN,
    Problem,
    faces_and_voices,
    one_more_epoch,
    paper_size,
    pictures_and_reports,
    tiny_reports,
)
from ibma.features.store import Batch, Features, Streamed
from ibma.network.centroids import Assignment, ClassSums
from ibma.training.loop import Fit, configure_torch

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "src/ibma/paper/published.yaml"
GB = 1e9
# every joint method of profile `paper`: its file and hyper-parameters
BASELINES = (
    *("concat", "bigated", "misa", "deep_ib", "mmib", "mmrlib", "dmib"),
    *("mib_e", "mib_l", "mib_c", "mcib", "clfa", "dclf", "omib", "aligned_ib"),
)
BOUNDS = {"ibma_vib": "vib", "ibma_apib": "apib", "ibma_club": "club", "ibma_plugin": "plugin"}
METHODS: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in (*BASELINES, "ibma", "ce3")},
    "ibma_no_align": ("ibma", {"align": False}),
    **{name: ("ibma", {"bound": bound}) for name, bound in BOUNDS.items()},
    "ibma_code": ("ibma", {"bound": "released", "phi": "unit"}),
    "ibma_unit": ("ibma", {"phi": "unit"}),
}
PAIRWISE = "ibma_club, all pairs"  # CLUB in the form that its authors published
TIMED = METHODS | {PAIRWISE: ("ibma", {"bound": "club", "pairwise": True})}


# --- what is trained -----------------------------------------------------------------------------


def clips(tiny: bool) -> Problem:
    """Return CREMA-D's training clips."""
    return faces_and_voices(32, 16, 32, (32, 47), TWIN, 32) if tiny else paper_size()


def features_of(session: Session, name: str, problem: Problem) -> Features:
    """Return a problem's features, drawn at their first use; a device keeps them."""
    if name not in session.features:
        session.features[name] = problem.features()
    return session.features[name]


def posed(session: Session, task: str) -> tuple[Problem, Features]:
    """Return the problem of a task, crema_d or mimic_cxr, and its features."""
    crema_d = task == "crema_d"
    problem = clips(session.tiny) if crema_d else reports(session.tiny)
    return problem, features_of(session, "clips" if crema_d else "pairs", problem)


def fit(session: Session, method: str, **options: Any) -> Fit:
    """Prepare the training of a method on CREMA-D's clips; `options` are those of `Problem.fit`."""
    file, hparams = TIMED[method]
    problem = clips(session.tiny)
    features = options.pop("features", None) or features_of(session, "clips", problem)
    return problem.fit(file, features, session.device, **options, **hparams)


def recorded(training: Fit) -> Fit:
    """Train an epoch: after one more, which every timing starts with, all steps are recorded."""
    one_more_epoch(training)
    return training


def sizes(problem: Problem) -> dict[str, Any]:
    """Return what a line says of a problem's size."""
    return {"batch": problem.batch, "width": problem.width, "rows": problem.n}


def repeated(function: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a function that calls another several times."""

    def run() -> None:
        for _ in range(times):
            function()

    return run


def per_call(times: Mapping[str, Sequence[float]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of one call of functions that were `repeated`."""
    return {name: [one / repeats for one in values] for name, values in times.items()}


# --- the measures --------------------------------------------------------------------------------


def machine(session: Session) -> None:
    """Measure what the card can do: a copy's bandwidth and a matrix product in bfloat16."""
    size, repeats = (256, 2) if session.tiny else (8192, 10)
    a, b = (torch.randn(size, size, device=session.device).bfloat16() for _ in range(2))
    source = torch.randn(2**18 if session.tiny else 2**28, device=session.device)
    target = torch.empty_like(source)
    functions = {"product": lambda: a @ b, "copy": lambda: target.copy_(source)}
    repeating = {name: repeated(function, repeats) for name, function in functions.items()}
    times = per_call(session.times(repeating, 5), repeats)
    moved, operations = 2 * source.nbytes, 2 * size**3
    session.peak = operations / median(times["product"])
    for name, amount, unit in (("copy", moved, "GB/s"), ("product", operations, "TFLOP/s")):
        scale = 1e9 if name == "copy" else 1e12
        rates = Spread.of([amount / one / scale for one in times[name]])
        label = "copy on the card" if name == "copy" else f"{size}^3 product in bfloat16"
        row = Row(label, f"{rates.median:,.0f} {unit}", "", rates, "plain")
        session.write("machine", row, seconds=median(times[name]), size=size)


def tests(session: Session) -> None:
    """Run the tests that need a GPU; without one they are collected and skipped."""
    report = session.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/test_gpu.py"]
    # the project's own options ask for plug-ins
    options = ["-o", "addopts=-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    if find_spec("xdist"):
        options += ["-n", str(min(8, os.cpu_count() or 1))]
    log = session.out.with_suffix(".pytest.log")
    try:
        with log.open("w", encoding="utf-8") as file:
            seconds = min(session.left, 240)
            finish([*command, *options], seconds, stdout=file, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired as error:
        return session.write("tests", skipped=f"no end after {error.timeout:.0f} s, see {log.name}")
    if not report.exists():
        return session.write("tests", skipped=f"pytest did not start, see {log.name}")
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    if not count["tests"]:
        return session.write("tests", skipped=f"pytest found no test, see {log.name}")
    wrong = count["failures"] + count["errors"]
    failed = [
        f"{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = count["tests"] - wrong - count["skipped"]
    row = Row(
        "tests that need a GPU",
        f"{passed} passed",
        f"{wrong} failed, {count['skipped']} skipped",
        Spread.exactly(float(wrong)),
        "plain",
    )
    session.write("tests", row, seconds=float(suite.get("time", 0)), failed=failed, counts=count)


def epoch(session: Session, method: str) -> None:
    """Measure CREMA-D's epoch, its share of the limit and its memory."""
    problem = clips(session.tiny)
    features = features_of(session, "clips", problem).on(session.device).x.values()
    training, added = most_added(session, lambda: recorded(fit(session, method)))
    steps = min(30, problem.n // problem.batch)
    functions = {
        "epoch": partial(one_more_epoch, training),
        "limit": step.limit(training, steps),
    }
    times = session.times(functions, 2)
    bare = [one / steps * problem.n / problem.batch for one in times["limit"]]
    facts = {"task": "crema_d", "method": method, **sizes(problem)}
    against = ratio([PAPER_EPOCH] * len(bare), times["epoch"])
    row = Row(
        f"epoch of CREMA-D, {method}",
        duration(times["epoch"]),
        f"paper's IBMA, A100, {PAPER_EPOCH:.0f} s",
        against,
    )
    session.write("epoch", row, seconds=median(times["epoch"]), **facts)
    row = Row(
        f"share of the limit, {method}",
        duration(times["epoch"]),
        f"forward and backward alone {duration(bare)}",
        ratio(bare, times["epoch"]),
        "share",
    )
    session.write("limit", row, seconds=median(bare), **facts)
    if session.cuda:
        held = sum(x.nbytes for x in features)
        peak = held + added
        row = Row(
            f"peak memory, {method}",
            f"{peak / GB:.1f} GB",
            f"features {held / GB:.1f} GB of it",
            Spread.exactly(peak / GB),
            "plain",
        )
        session.write("memory", row, bytes=peak, **facts)


def most_added(session: Session, train: Callable[[], Fit]) -> tuple[Fit, int]:
    """Train a new network; return it and the most bytes of the GPU's memory that this added.

    It must be its first epoch: a replayed step allocates nothing that shows.
    """
    if not session.cuda:
        return train(), 0
    before = torch.cuda.memory_allocated(session.device)
    torch.cuda.reset_peak_memory_stats(session.device)
    training = train()
    return training, torch.cuda.max_memory_allocated(session.device) - before


def arithmetic(session: Session, task: str) -> None:
    """Measure which share of the card's matrix product a bare step of CE3 reaches."""
    problem, features = posed(session, task)
    training = problem.fit("ce3", features, session.device)
    of = "" if task == "crema_d" else " of MIMIC-CXR"
    bare = step.limit(training, session.repeats(10))
    with FlopCounterMode(display=False) as counter:
        step.limit(training, 1)()
    times = per_call(session.times({"bare": bare}, 5), session.repeats(10))["bare"]
    rates = [counter.get_total_flops() / one for one in times]
    peak = session.peak or max(rates)
    row = Row(
        f"arithmetic of a bare step{of}, ce3",
        f"{median(rates) / 1e12:.3g} TFLOP/s",
        f"matrix product {peak / 1e12:.3g} TFLOP/s",
        ratio(rates, [peak] * len(rates)),
        "share",
    )
    session.write("arithmetic", row, seconds=median(times), task=task, **sizes(problem))


@contextmanager
def any_order() -> Iterator[None]:
    """Allow kernels whose rounding depends on the order of sums, which most projects train with."""
    configure_torch(None, compiled=False, deterministic=False)
    try:
        yield
    finally:
        configure_torch(None, compiled=False)


def determinism(session: Session) -> None:
    """Measure what equal bytes from run to run cost."""
    problem, training = clips(session.tiny), recorded(fit(session, "ibma"))
    with any_order():  # its steps are recorded with its own kernels
        other = recorded(fit(session, "ibma"))

    def free() -> None:
        with any_order():
            one_more_epoch(other)

    times = session.times({"same": partial(one_more_epoch, training), "free": free}, 3)
    row = Row(
        "epoch of CREMA-D, ibma, any order of sums",
        duration(times["free"]),
        f"the same bytes each time {duration(times['same'])}",
        ratio(times["same"], times["free"]),
    )
    facts = {"task": "crema_d", "method": "ibma", **sizes(problem)}
    with any_order():
        session.write("any order", row, seconds=median(times["free"]), **facts)


def ibb(session: Session) -> None:
    """Measure IBB and its refresh as shares of a step."""
    problem, repeats = clips(session.tiny), session.repeats(10)
    fits = {name: fit(session, name) for name in ("ce3", "ibma")}
    batch = step.resident(fits["ce3"])
    steps = problem.n // problem.batch
    functions = {name: step.step_of(one, batch) for name, one in fits.items()}
    functions["terms"] = step.terms_alone(fits["ibma"], batch)
    times = per_call(
        session.times({name: repeated(one, repeats) for name, one in functions.items()}, 15),
        repeats,
    )
    refreshes = {
        "in steps": step.refresh_in_steps(fits["ibma"], steps),
        "by a pass": step.refresh_by_pass(fit(session, "ibma", refresh="pass")),
    }
    times |= per_call(session.times(refreshes, 3), steps)
    facts = {"task": "crema_d", "method": "ibma", **sizes(problem)}
    for measure, label, name, less in (
        ("ibb", "IBB, whole step", "ibma", 1.0),
        ("ibb", "IBB, its terms alone", "terms", 0.0),
        ("refresh", "centroids and Q, in the steps (default)", "in steps", 0.0),
        ("refresh", "centroids and Q, by a pass", "by a pass", 0.0),
    ):
        seconds = times[name]
        plain = times["ce3"] if measure == "ibb" else [median(times["ce3"])] * len(seconds)
        row = Row(
            f"{label}: share of a step",
            duration(seconds),
            f"cross-entropy alone {duration(times['ce3'])}",
            ratio(seconds, plain, less),
            "share",
        )
        session.write(measure, row, seconds=median(seconds), **facts)


def tables(session: Session) -> None:
    """Measure Tables 6 and 9: epochs of every method in turn, on a part of the clips."""
    problem = clips(session.tiny)
    part = min(30 * problem.batch, problem.n)
    fits = {name: fit(session, name) for name in TIMED}
    for one in fits.values():
        one.rows = one.rows.taking(one.rows.index[:part])
    functions = {name: partial(one_more_epoch, recorded(one)) for name, one in fits.items()}
    times = session.times(functions, 2)
    stated = minutes()
    facts = {"task": "crema_d", **sizes(problem), "rows": part}
    for name, seconds in times.items():
        paper = f"paper {stated[name] / stated['ibma']:.2f} x" if name in stated else ""
        row = Row(
            f"epoch of {part:,} clips over IBMA's, {name}",
            duration(seconds),
            paper,
            ratio(seconds, times["ibma"]),
        )
        session.write("short epoch", row, method=name, seconds=median(seconds), **facts)
    for measure, label, above, below, paper in (
        ("claim", "IBB over VIB", "ibma", "ibma_vib", "; paper 1.053 x"),
        ("claim", "IBB over CLUB, all pairs", "ibma", PAIRWISE, "; paper 0.526 x"),
        ("claim", "IBB over CLUB, by moments", "ibma", "ibma_club", "; paper 0.526 x"),
        ("claim", "IBB over OMIB", "ibma", "omib", "; paper 1.053 x"),
        ("club", "CLUB by moments over IBB", "ibma_club", "ibma", ""),
    ):
        spread = ratio(times[above], times[below])
        row = Row(label, duration(times[above]), f"{duration(times[below])}{paper}", spread)
        session.write(measure, row, **facts)


def minutes() -> dict[str, float]:
    """Return method -> minutes an epoch, as Tables 6 and 9 state them.

    The file is read as it is: what checks it needs pydantic, and this machine may have none.
    """
    tables = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))["tables"]
    rows = tables[6]["rows"] + tables[9]["rows"]
    return {row["method"]: row["cells"]["crema_d.minutes_per_epoch"]["value"] for row in rows}


def by_torch(
    x: Mapping[str, Tensor], kinds: Mapping[str, str], systems: Tensor, assignment: Assignment
) -> dict[str, Tensor]:
    """Compute phi of every input where it lies, as stage `centroids` does by FAISS.

    Args:
        x: modality -> [n, ...] as stored.
        kinds: modality -> kind.
        systems: one-hot [n, G, K].

    Returns:
        Modality -> [n, G, K].
    """
    phi = {}
    for name, values in x.items():
        scale = 255.0 if values.dtype == torch.uint8 else 1.0
        frames = kinds[name] == "frames"

        def vectors(part: Tensor, scale: float = scale, frames: bool = frames) -> Tensor:
            part = part.float()
            return (part.mean(1) if frames else part).flatten(1) / scale

        parts = [slice(start, start + 256) for start in range(0, len(values), 256)]
        width = vectors(values[:1]).shape[1]
        shape = (systems.shape[1], systems.shape[2])
        sums = ClassSums.zeros(shape, width, systems)
        for part in parts:
            sums.add(vectors(values[part]), systems[part])
        centroids = assignment.centroids(sums.sums, sums.counts)
        phi[name] = torch.cat([assignment.phi(vectors(values[p]), centroids) for p in parts])
    return phi


def section_c3(session: Session) -> None:
    """Measure the two times of section C.3 at CREMA-D's size."""
    problem = clips(session.tiny)
    features = features_of(session, "clips", problem)
    training = fit(session, "ibma")
    systems = problem.one_hot()
    placed, on_device = features.on(session.device), torch.from_numpy(systems).to(session.device)
    kinds = {name: view.kind for name, view in problem.views.items()}
    functions = {
        "inputs": lambda: by_torch(placed.x, kinds, on_device, Assignment()),
        "features": step.refresh_in_steps(training, problem.n // problem.batch),
    }
    facts = {"task": "crema_d", **sizes(problem)}
    labels = {
        "inputs": ("inputs, torch", paper_times.INPUT_SECONDS),
        "features": ("features, an epoch", paper_times.FEATURE_SECONDS),
    }
    for name, seconds in session.times(functions, 3).items():
        label, paper = labels[name]
        row = Row(
            f"centroids and distances of {label}",
            duration(seconds),
            f"paper, A100, {paper} s",
            ratio([paper] * len(seconds), seconds),
        )
        session.write("section C.3", row, seconds=median(seconds), **facts)


def faiss(session: Session) -> None:
    """Measure the centroid stage by FAISS, the library that the paper names."""
    import faiss as _  # noqa: F401  its absence is the reason that the line gives

    problem = clips(session.tiny)
    features, systems = features_of(session, "clips", problem), problem.one_hot()
    times = session.times({"inputs": lambda: paper_times.of_inputs(features, systems)}, 2)
    row = Row(
        "centroids and distances of inputs, FAISS",
        duration(times["inputs"]),
        f"paper, A100, {paper_times.INPUT_SECONDS} s",
        ratio([paper_times.INPUT_SECONDS] * len(times["inputs"]), times["inputs"]),
    )
    session.write("section C.3", row, task="crema_d", **sizes(problem))


def as_stored(training: Fit) -> list[Batch]:
    """Return an epoch's batches with texts at their stored length."""
    rows, placed = training.rows, training.rows.features.on(training.device)
    batches = []
    for chosen in rows.shuffled(training.batch_size, 0, 0):
        index = torch.from_numpy(chosen).to(training.device)
        x = {name: value[index] for name, value in placed.x.items()}
        batches.append(rows.tables.join(Batch(x, placed.y[index], index)))
    return batches


def reports(tiny: bool) -> Problem:
    """Return a part of MIMIC-CXR's pairs."""
    return tiny_reports() if tiny else pictures_and_reports(64 * 100)


def of_mimic_cxr(times: Sequence[float], problem: Problem) -> Spread:
    """Return the seconds of MIMIC-CXR's epoch, from epochs of a part of it."""
    return Spread.of([one * MIMIC_PAIRS / problem.n for one in times])


def mimic_cxr(session: Session) -> None:
    """Measure MIMIC-CXR's epoch on a part of it, texts by length and padded to 256 tokens."""
    problem, features = posed(session, "mimic_cxr")
    training = recorded(problem.fit("ibma", features, session.device))
    padded = as_stored(training)

    def whole() -> None:
        training.model.train()
        step = training.steps()
        for batch in padded:
            step(batch)

    times = session.times({"by length": lambda: one_more_epoch(training), "padded": whole}, 2)
    facts = {"task": "mimic_cxr", "method": "ibma", **sizes(problem)}
    for measure, name in (("epoch", "by length"), ("padded epoch", "padded")):
        row = Row(
            f"epoch of MIMIC-CXR's {MIMIC_PAIRS:,} pairs, ibma, texts {name}",
            f"{problem.n:,} pairs {duration(times[name])}",
            f"padded {duration(times['padded'])}",
            of_mimic_cxr(times[name], problem),
            "seconds",
        )
        session.write(measure, row, seconds=median(times[name]), **facts)


def streamed(session: Session) -> None:
    """Compare an epoch on features that stay in the CPU's memory with one on resident features."""
    problem = clips(session.tiny)
    resident = features_of(session, "clips", problem)
    held = {name: torch.from_numpy(array) for name, array in resident.arrays.items()}
    placed = {session.device: Streamed(held, resident.on(session.device).y)}
    read = replace(resident, _placed=placed)
    functions = {
        name: partial(one_more_epoch, recorded(fit(session, "ibma", features=features)))
        for name, features in (("resident", resident), ("streamed", read))
    }
    times = session.times(functions, 2)
    row = Row(
        "epoch of CREMA-D, ibma, features streamed",
        duration(times["streamed"]),
        f"resident {duration(times['resident'])}",
        ratio(times["streamed"], times["resident"]),
    )
    facts = {"task": "crema_d", "method": "ibma", **sizes(problem)}
    session.write("streamed", row, seconds=median(times["streamed"]), **facts)


def processes(session: Session) -> None:
    """Compare an epoch under `torchrun` in one process (NCCL on a GPU) with one without it."""
    problem = clips(session.tiny)
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    module = ("-m", "benchmarks.gpu.together")
    log = session.out.with_suffix(".torchrun.log")
    told = (session.device.type, str(int(session.tiny)))
    command = [sys.executable, "-m", *launcher, *module, *told]
    try:
        with log.open("w", encoding="utf-8") as file:
            done = finish(command, max(session.left, 1), stdout=subprocess.PIPE, stderr=file)
    except subprocess.TimeoutExpired:
        return session.write("processes", skipped="no end within the budget")
    if done.returncode:
        return session.write("processes", skipped=f"failed, see {log.name}")
    answer = json.loads(done.stdout.splitlines()[-1])
    row = Row(
        f"epoch of {answer['rows']:,} clips, ibma, torchrun with one process, {answer['backend']}",
        duration(answer["together"]),
        f"no torchrun {duration(answer['alone'])}",
        ratio(answer["together"], answer["alone"]),
    )
    facts = {"task": "crema_d", "method": "ibma", **sizes(problem), "rows": answer["rows"]}
    session.write("processes", row, seconds=median(answer["together"]), **facts)


def compiled(session: Session, task: str) -> None:
    """Compare epochs of a network that runs through `torch.compile` with epochs of it as it is."""
    if not session.cuda:
        return session.write(f"compiled {task}", skipped="takes a minute: on a GPU only")
    problem, features = posed(session, task)
    configure_torch(None, compiled=True)
    plain = problem.fit("ibma", features, session.device)
    fast = problem.fit("ibma", features, session.device, compiled=True)
    start = time.perf_counter()
    one_more_epoch(fast)
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    one_more_epoch(plain)
    functions = {"plain": partial(one_more_epoch, plain), "compiled": partial(one_more_epoch, fast)}
    times = session.times(functions, 2)
    differ = max(
        abs(a - b) / abs(b)
        for name in ("ce/fused", "ibb/fused")
        for a, b in zip(fast.history[name], plain.history[name], strict=True)
    )
    seconds = times["compiled"]
    ours = f"{duration(seconds)}, the first {first:.0f} s"
    less = f"not compiled {duration(times['plain'])}, losses within {differ:.2%}"
    facts = {"task": task, "method": "ibma", "first_epoch": first, "losses_differ": differ}
    if task == "crema_d":
        against = ratio([PAPER_EPOCH] * len(seconds), seconds)
        row = Row("epoch of CREMA-D, ibma, torch.compile", ours, less, against)
    else:
        label = f"epoch of MIMIC-CXR's {MIMIC_PAIRS:,} pairs, ibma, torch.compile"
        row = Row(
            label, f"{problem.n:,} pairs {ours}", less, of_mimic_cxr(seconds, problem), "seconds"
        )
    session.write("compiled epoch", row, seconds=median(seconds), **facts, **sizes(problem))
    configure_torch(None, compiled=False)


def finish(
    command: Sequence[str], seconds: float, **streams: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Raises:
        TimeoutExpired: it did not end in time; it was ended, with all that it had started.
    """
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), text=True, start_new_session=True, **streams
    ) as started:
        try:
            said, _ = started.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, started.returncode, said)


def environment() -> dict[str, str]:
    """Return the variables of a process that runs this checkout's code."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


@dataclass(frozen=True)
class Measure:
    """One measure.

    Args:
        seconds: what it takes on an H100, its set-up included; a guess until one was measured.
    """

    name: str
    seconds: float
    take: Callable[[Session], None]


MEASURES = (  # most important first
    Measure("machine", 8, machine),
    Measure("tests", 90, tests),
    Measure("epoch ibma", 17, partial(epoch, method="ibma")),  # draws the clips too
    Measure("mimic_cxr", 30, mimic_cxr),
    Measure("compiled crema_d", 80, partial(compiled, task="crema_d")),
    Measure("compiled mimic_cxr", 45, partial(compiled, task="mimic_cxr")),
    Measure("ibb", 15, ibb),
    *(Measure(f"epoch {m}", 13, partial(epoch, method=m)) for m in ("ce3", "ibma_club", "omib")),
    Measure("epoch concat", 13, partial(epoch, method="concat")),
    Measure("tables", 70, tables),
    Measure("section C.3", 12, section_c3),
    Measure("arithmetic crema_d", 2, partial(arithmetic, task="crema_d")),
    Measure("arithmetic mimic_cxr", 8, partial(arithmetic, task="mimic_cxr")),
    Measure("any order", 15, determinism),
    Measure("processes", 30, processes),
    Measure("streamed", 40, streamed),
    Measure("faiss", 25, faiss),
)
