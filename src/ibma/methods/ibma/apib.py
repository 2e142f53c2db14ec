"""APIB's dependence measure, HSIC, as a bound."""

from __future__ import annotations

from torch import Tensor

from ibma.methods.ibma import Frame, Step
from ibma.network import dependence
from ibma.network.method import FUSED
from ibma.network.tasks import Task, per_class


def label_kernel(task: Task, systems: Tensor) -> Tensor:
    """Return the linear kernel [B, B] of one-hot classes or 0/1 labels."""
    y = per_class(task, systems)
    return y @ y.T


class Bound(Frame):
    """APIB as a training loss: normalised HSIC on the batch in place of every information.

    songxmu/APIB@6ed8d9d, pruners/HSIClasso.py, is a channel pruner without a training loss, so the
    form is CHOICE: its Laplace kernel and width, a linear kernel on labels, values in [0, 1].
    """

    def compress(self, place: str, modality: str, step: Step) -> Tensor:
        """Return HSIC of Z and X."""
        return self.hsic(step.z[place], step.inputs[modality])

    def relate(self, j: str, other: str, step: Step) -> Tensor:
        """Return HSIC of Z_j and Z_other."""
        return self.hsic(step.z[j], step.z[other])

    def predict(self, step: Step) -> Tensor | None:
        """Return HSIC of Z and the labels."""
        if FUSED not in step.z:
            return None
        kernel = dependence.laplace_kernel(step.z[FUSED])
        return dependence.hsic(kernel, label_kernel(self.spec.task, step.systems))

    def hsic(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the normalised HSIC of two batches [B, .] under Laplace kernels."""
        return dependence.hsic(dependence.laplace_kernel(a), dependence.laplace_kernel(b))
