"""What IBB adds to a training step on paper sizes, over the same network with cross-entropy alone.

Two ResNet-18 (3 frames of 224 x 224, a 128 x 188 log-mel spectrogram), width 512, 6 classes, batch
64; `--batch 8` for a short look. Steps of both losses alternate in one process on one batch.
"""

import argparse
import statistics
import time

import torch

from ibma import methods, tasks, train
from ibma.centroids import Assignment
from ibma.methods import Modality, Spec
from ibma.store import Batch

CLASSES = tuple("012345")
SHAPES = {"audio": (128, 188), "visual": (3, 3, 224, 224)}


def spec() -> Spec:
    return Spec(
        modalities={
            "audio": Modality("audio", SHAPES["audio"], {"name": "resnet", "channels": 1}),
            "visual": Modality("frames", SHAPES["visual"], {"name": "resnet", "channels": 3}),
        },
        task=tasks.build("classify", CLASSES),
        width=512,
        heads=8,
        epochs=500,
        systems=(1, len(CLASSES)),
        assignment=Assignment(),
        eta=0.5,
        u=dict.fromkeys(SHAPES, 0.1),
    )


def make_batch(n: int, device: torch.device) -> Batch:
    x = {
        "audio": torch.randn(n, *SHAPES["audio"], device=device),
        "visual": torch.randint(0, 256, (n, *SHAPES["visual"]), dtype=torch.uint8, device=device),
    }
    return Batch(x, (torch.arange(n) % len(CLASSES)).to(device), torch.arange(n))


def wait(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def one_step(model: methods.Method, optimiser: torch.optim.Optimizer, batch: Batch) -> float:
    start = wait(batch.y.device)
    optimiser.zero_grad(set_to_none=True)
    with train.autocast(batch.y.device):
        out = model(batch.x)
    torch.stack(list(model.losses(out, batch).values())).sum().backward()
    optimiser.step()
    return wait(batch.y.device) - start


def term_alone(model: methods.Method, batch: Batch) -> float:
    """IBB's own terms, forward and backward, on given representations."""
    with torch.no_grad():
        out = model(batch.x)
    z = {name: value.detach().float().requires_grad_() for name, value in out.z.items()}
    held = methods.Output(z, out.fused.detach().float().requires_grad_(), out.logits, {})
    columns = []
    for _ in range(20):
        start = wait(batch.y.device)
        torch.stack(list(model.bound.terms(held, batch).values())).sum().backward()
        columns.append(wait(batch.y.device) - start)
    return statistics.median(columns[5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    device = train.device("auto")
    torch.manual_seed(0)
    batch = make_batch(arguments.batch, device)
    models = {name: methods.build(name, spec()).to(device) for name in ("ce3", "ibma")}
    optimisers = {name: torch.optim.Adam(m.parameters(), lr=1e-4) for name, m in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(arguments.steps + 1):
        for name, model in models.items():
            times[name].append(one_step(model, optimisers[name], batch))
    plain, ibma = (statistics.median(column[1:]) for column in times.values())
    alone = term_alone(models["ibma"], batch)
    print(f"device {device}, batch {arguments.batch}, median of {arguments.steps} steps")
    print("measure: training step | with IBB | cross-entropy alone | difference | goal under 2 %")
    print(f"whole step | {ibma:.4f} s | {plain:.4f} s | {100 * (ibma / plain - 1):+.2f} %")
    print(
        f"IBB's terms by themselves | {alone:.5f} s | {plain:.4f} s | {100 * alone / plain:.3f} %"
    )


if __name__ == "__main__":
    main()
