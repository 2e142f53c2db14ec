"""APIB's dependence measure, HSIC, as a bound."""

from __future__ import annotations

from torch import Tensor

from ibma.features.store import Batch
from ibma.methods.ibma import Frame, representation
from ibma.network import dependence
from ibma.network.method import Output


class Bound(Frame):
    """APIB as a training loss: normalised HSIC on the batch in place of every information.

    songxmu/APIB@6ed8d9d, pruners/HSIClasso.py, is a channel pruner without a training loss, so the
    form is CHOICE: its Laplace kernel and width, a linear kernel on labels, values in [0, 1].
    """

    def compress(self, place: str, modality: str, out: Output, batch: Batch) -> Tensor:
        """Return HSIC of Z and X."""
        return self.hsic(representation(place, out), batch.inputs[modality])

    def relate(self, j: str, other: str, out: Output) -> Tensor:
        """Return HSIC of Z_j and Z_other."""
        return self.hsic(out.z[j], out.z[other])

    def predict(self, out: Output, batch: Batch) -> Tensor:
        """Return HSIC of Z and the labels."""
        kernel = dependence.laplace_kernel(out.fused)
        return dependence.hsic(kernel, dependence.label_kernel(self.spec.systems_of(batch)))

    def hsic(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the normalised HSIC of two batches [B, .] under Laplace kernels."""
        return dependence.hsic(dependence.laplace_kernel(a), dependence.laplace_kernel(b))
