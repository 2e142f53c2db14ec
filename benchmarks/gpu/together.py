"""Train under `torchrun` in one process: wrapped for several processes, and as it is."""

from __future__ import annotations

import json
import sys
from functools import partial

from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu.measures import clips, recorded
from benchmarks.gpu.session import threads
from benchmarks.measure import WALL, interleaved
from benchmarks.problems import one_more_epoch
from ibma.training.loop import configure_torch, select_device

ROUNDS, STEPS = 2, 30


def main(device_name: str, tiny: str) -> None:
    """Print the seconds of epochs with and without the wrapping that several processes need."""
    configure_torch(threads(device_name), compiled=False)
    device = select_device(device_name)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend)
    problem = clips(tiny == "1")
    features = problem.features()
    fits = {name: problem.fit("ibma", features, device) for name in ("together", "alone")}
    for fit in fits.values():
        fit.rows = fit.rows.taking(fit.rows.index[: STEPS * problem.batch])
    fits["together"].replays = False  # as where there are several
    fits["together"].objective = DistributedDataParallel(
        fits["together"].objective,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,
    )
    functions = {name: partial(one_more_epoch, recorded(fit)) for name, fit in fits.items()}
    times = interleaved(functions, ROUNDS, WALL)
    print(json.dumps({"backend": backend, "rows": len(fits["alone"].rows.index), **times}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
