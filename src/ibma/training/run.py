"""One run, from its cell and seed to its record and weights."""

from __future__ import annotations

import gc
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ibma import paths
from ibma.features.store import TestSet
from ibma.network import bounds, distributed
from ibma.network.centroids import ClassSums, class_systems
from ibma.network.method import FUSED, Method
from ibma.network.tasks import Task
from ibma.training.cell import Cell, Setting
from ibma.training.checkpoint import Checkpoint
from ibma.training.loop import (
    EVALUATION_BATCH,
    Fit,
    configure_torch,
    own_share,
    predict,
    represent,
    run_network,
    select_device,
)
from ibma.training.predictions import Predictions
from ibma.training.record import Environment, Record


@dataclass(frozen=True)
class Finished:
    """What a run hands back; weights: the network's state as safetensors bytes."""

    record: Record
    predictions: Predictions
    weights: bytes


def environment(cell: Cell) -> Environment:
    """Return what decides rounding in a run, see `record.Environment`.

    With `device: cuda` this process need not have a GPU: a cluster's head often has none.
    """
    device = "cuda" if cell.device == "cuda" else select_device(cell.device).type
    around = Environment(device=device, instructions=cell.instructions, threads=cell.threads)
    return around | {"pretrained": local} if (local := cell.local_weights()) else around


def train_run(cell: Cell, run: int, setting: Setting, quiet: bool = False) -> Finished:
    """Train one run to its end, going on from its checkpoint if there is one.

    It writes nothing but that checkpoint: the caller stores what comes back, then calls `forget`.

    Args:
        run: the run's number, which is its seed and chooses its test fold.
        quiet: show no progress bar of epochs.
    """
    configure_torch(cell.threads, cell.compile)
    device, started = select_device(cell.device), datetime.now(UTC).isoformat(timespec="seconds")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    known = known_before(cell, run, setting)
    features = cell.open(run)
    train, test = cell.training(run, device), features.test(run)
    model = cell.build(run, setting, cell.epochs, seed=run, on=device)
    fit = Fit(
        model,
        train,
        setting,
        seed=run,
        epochs=cell.epochs,
        batch_size=cell.batch_size,
        device=device,
        checkpoint=checkpoint(known["key"]),
        key=known["key"],
        compiled=cell.compile,
        quiet=quiet,
    )
    fit.run(f"{cell.task} {cell.method} seed {run}")
    fit.refresh()  # centroids and Q of the final network, as after every epoch
    logits, embeddings = predict(model, test, device)
    problem, said = cell.problem(), predictions(cell.problem(), logits, test)
    weights = weights_of(model)
    result = Record(
        **known,
        metrics=problem.judge(said.scores, test.labels(), test.groups()),
        ib=ib_losses(cell, run, model, embeddings, device),
        ib_before={} if known["source"] == "twin" else ib_untrained(cell, run, setting, device),
        history=fit.history,
        regime=fit.regime,
        cost=cost(cell, model, device),
        weights=sha256(weights).hexdigest(),
        provenance=provenance(device, fit.seconds, started),
        confusion=problem.confusion(said.scores, test.labels()),
        predictions=said.digest,
    )
    return Finished(result, said, weights)


def known_before(cell: Cell, run: int, setting: Setting) -> dict[str, Any]:
    """Return what a record says of a run before it is trained, by the fields of `Record`."""
    features, around = cell.open(run), environment(cell)
    return {
        "key": cell.key(run, setting, around),
        "profile": cell.profile,
        "stage": cell.stage,
        "task": cell.task,
        "method": cell.method,
        "seed": run,
        "source": cell.meta["source"],
        "fold": cell.fold(run),
        "n_train": len(features.training(run)),
        "n_test": len(features.test(run)),
        "params": {**setting._asdict(), **cell.hparams},
        "tuned": cell.rule(),
        "environment": around,
    }


def predictions(problem: Task, logits: Tensor, test: TestSet) -> Predictions:
    """Keep what a network says of its test rows, with their truth.

    Args:
        logits: of the rows of `test`, [n, C].
    """
    ids = np.array([test.features.ids[row] for row in test.index])
    labels = test.features.labels[test.index]
    return Predictions(ids, labels, test.groups(), problem.scores(logits))


def warm_up(cell: Cell) -> None:
    """Import what every run of a task needs, once, before worker processes are forked."""
    if environment(cell)["device"] != "cpu":
        return  # a process that has touched CUDA cannot be forked
    gc.disable()  # it would look through all that is loaded a dozen times: a fifth of the seconds
    import sklearn.metrics  # noqa: F401
    import torch._dynamo  # noqa: F401  torch's optimisers import it in their first step

    configure_torch(1, compiled=False)  # threads do not survive a fork
    cell.build(0, Setting(0.1, 0.1, 0.5), cell.epochs, seed=0, on=torch.device("cpu"))
    gc.freeze()  # nor look through it in each of the workers
    gc.enable()


def checkpoint(key: str) -> Path:
    """Return where the unfinished run of a key keeps its state."""
    return paths.SCRATCH / f"{key}.pt"


def forget(key: str) -> None:
    """Delete the checkpoint of a run whose results are stored."""
    Checkpoint(checkpoint(key), key).forget()


def weights_of(model: Method) -> bytes:
    """Return a network's state as safetensors bytes."""
    # cloned: safetensors refuses tensors that share memory
    return save({name: t.cpu().contiguous().clone() for name, t in model.state_dict().items()})


def ib_losses(
    cell: Cell, run: int, model: Method, embeddings: Mapping[str, Tensor], device: torch.device
) -> dict[str, float]:
    """Compute plug-in IB losses on the test split (Table 5), in nats, and U per modality.

    Feature centroids come from the network on train, input assignments from stage `centroids`;
    the joint tables are averaged over test. Samples that lack a modality are left out. A network
    that does not represent every modality has the loss of its fused representation alone.

    Args:
        embeddings: the network's representations of the test rows, place -> [n, D].
    """
    features = cell.open(run)
    train, test = features.training(run), features.test(run)
    inputs, assignment = cell.inputs(run), cell.assignment()
    share = own_share(train.taking(features.having(train.index, *features.modalities)))
    kept = np.isin(test.index, features.having(test.index, *features.modalities))
    test = test.taking(test.index[kept])
    systems, truth = (
        class_systems(
            cell.problem(),
            rows.labels(),
            None if inputs.pseudo is None else inputs.pseudo[rows.index],
        )
        for rows in (share, test)
    )
    learnt = represent(model, share, device)
    phi = {}
    for name, value in embeddings.items():
        sums = ClassSums.zeros((systems.shape[1], systems.shape[2]), value.shape[1], value)
        sums.add(learnt[name], systems)
        distributed.add_up([sums.sums, sums.counts])  # of all processes' shares of train
        phi[name] = assignment.phi(value[kept], assignment.centroids(sums.sums, sums.counts))
    phi_x = {name: value[test.index] for name, value in inputs.phi.items()}
    result = {
        name: float(
            bounds.ib_modality(phi[name], phi_x[name], [phi[o] for o in phi_x if o != name])
        )
        for name in phi_x
        if phi.keys() >= phi_x.keys()
    }
    result[FUSED] = float(bounds.ib_fused(phi[FUSED], list(phi_x.values()), truth))
    return result | {f"u/{name}": value for name, value in inputs.u.items()}


@torch.no_grad()
def ib_untrained(cell: Cell, run: int, setting: Setting, device: torch.device) -> dict[str, float]:
    """Compute `ib_losses` of the untrained network, its batch statistics set by one pass."""
    features = cell.open(run)
    model = cell.build(run, setting, cell.epochs, seed=run, on=device).train()
    for batch in features.training(run).batches(EVALUATION_BATCH, device):
        if len(batch.y) > 1:
            run_network(model, batch.x)
    _, embeddings = predict(model, features.test(run), device)
    return ib_losses(cell, run, model, embeddings, device)


def cost(cell: Cell, model: Method, device: torch.device) -> dict[str, int]:
    """Count a network's parameters, those that train, and the operations of predicting a sample.

    `flops` are those of matrix products and convolutions, a multiply-add counting as two
    (torch.utils.flop_counter), for a sample that has every modality.
    """
    from torch.utils.flop_counter import FlopCounterMode

    features, rows = cell.open(), cell.open().everything()
    one = features.having(rows.index, *features.modalities)[:1]
    batch = next(iter(rows.taking(one).batches(1, device)))
    model.eval()
    # with gradients: without them torch fuses a transformer layer into one operation, not counted
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        run_network(model, batch.x)
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return {
        "parameters": sum(size for size, _ in sizes),
        "trained": sum(size for size, trains in sizes if trains),
        "flops": int(counter.get_total_flops()),
    }


def provenance(on: torch.device, seconds: list[float], started: str) -> dict[str, Any]:
    """Say where, when and how fast a run was made; ignored when two records are compared.

    Memory is a GPU's. What a process uses on a CPU is also that of runs before it.
    """
    peak = {"peak_memory_bytes": torch.cuda.max_memory_allocated(on)} if on.type == "cuda" else {}
    return {
        "device": torch.cuda.get_device_name(on) if on.type == "cuda" else "cpu",
        "processor": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processes": distributed.world(),
        "host": platform.node(),
        "torch": torch.__version__,
        "git_commit": commit(),
        "seconds_per_epoch": [round(value, 4) for value in seconds],
        **peak,
        "started": started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """Return the name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the commit that is checked out; `<commit>-dirty-<digest>` with uncommitted changes.

    None where the working folder is not the root of a git checkout, for example a source archive
    unpacked inside another repository. A process asks once: the code it runs is what it loaded.
    """
    return _commit_of(Path.cwd())


@cache
def _commit_of(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        head = _git("rev-parse", "HEAD")
        # reports and dvc.lock are what a run of the pipeline changes
        changes = _git("diff", "HEAD", "--", ".", ":!reports", ":!dvc.lock")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    if not changes:
        return head
    return f"{head}-dirty-{sha256(changes.encode()).hexdigest()[:12]}"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
