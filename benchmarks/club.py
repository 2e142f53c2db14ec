"""CLUB by moments against CLUB over all pairs: time and peak memory against n, in one process."""

import statistics
import time
from collections.abc import Callable

import torch

from ibma import bounds

D = 512
REPEATS = 7


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def step(form: Callable[..., torch.Tensor], z: torch.Tensor, mean: torch.Tensor) -> None:
    """Value and gradient, as training needs them."""
    z.grad = None
    form(z, mean, torch.zeros_like(mean)).backward()


def main() -> None:
    torch.manual_seed(0)
    print(f"measure: CLUB with gradient, d = {D} | moments | pairs | ratio | tensor of the pairs")
    for n in (64, 128, 256, 512):
        z, mean = torch.randn(n, D, requires_grad=True), torch.randn(n, D)
        times: dict[str, list[float]] = {"moments": [], "pairs": []}
        for _ in range(REPEATS + 1):  # interleaved; the first round warms up
            times["moments"].append(seconds(lambda a=z, b=mean: step(bounds.club, a, b)))
            times["pairs"].append(seconds(lambda a=z, b=mean: step(bounds.club_pairwise, a, b)))
        moments, pairs = (statistics.median(column[1:]) for column in times.values())
        mebibytes = 4 * n * n * D / 2**20
        ratio = f"{pairs / moments:6.1f} x | {mebibytes:.0f} MiB"
        print(f"n={n:4d} | {moments:.2e} s | {pairs:.2e} s | {ratio}")


if __name__ == "__main__":
    main()
