"""Cost of the IBB term: bilinear V against the naive [B, C, C] sum, side by side in one process."""

import statistics
import time
from collections.abc import Callable

import torch

from ibma import bounds


def naive_v(phi_z: torch.Tensor, phi_other: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    joint = phi_z[:, :, :, None] * phi_other[:, :, None, :]
    return (joint * torch.log(q)[None]).sum((2, 3)).mean(1)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    torch.manual_seed(0)
    print("measure: V of a batch | ours: bilinear | reference: naive sum | ratio (median of 30)")
    for n, k in ((64, 6), (64, 64), (4096, 6), (4096, 64)):
        phi_z, phi_other = (torch.softmax(torch.randn(n, 1, k), -1) for _ in range(2))
        q = torch.softmax(torch.randn(1, k, k), 1)
        pairs = [
            (
                seconds(lambda a=phi_z, b=phi_other, c=q: bounds.v_term(a, b, c)),
                seconds(lambda a=phi_z, b=phi_other, c=q: naive_v(a, b, c)),
            )
            for _ in range(35)
        ][5:]
        ours, reference = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"n={n:5d} K={k:3d} | {ours:.2e} s | {reference:.2e} s | {reference / ours:.1f} x")


if __name__ == "__main__":
    main()
