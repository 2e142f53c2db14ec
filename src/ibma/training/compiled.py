"""Run a network's layers through `torch.compile`.

The layers of a transformer share one compiled function: compiling one takes seconds, compiling all
of a network takes minutes, and its steps are no faster. Any other encoder is compiled whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ibma.network.method import Method


class CompiledLayers:
    """The layers of a network that can be compiled, and what they were compiled to.

    Args:
        model: stays as it is; its layers run compiled `in_use` only.
    """

    def __init__(self, model: Method) -> None:
        self.fast = {
            layer: torch.compile(layer.forward)
            for encoder in model.encoders.values()
            for layer in _layers(encoder)
        }

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Run the layers compiled; what runs is compiled at its first use."""
        for layer, fast in self.fast.items():
            layer.forward = fast
        try:
            yield
        finally:
            for layer in self.fast:
                del layer.forward  # its class has the plain one


def _layers(encoder: nn.Module) -> list[nn.Module]:
    """Return the layers of a transformer, or the whole encoder where it is none."""
    from transformers.modeling_layers import GradientCheckpointingLayer  # the base of its layers

    found: list[nn.Module] = [
        one for one in encoder.modules() if isinstance(one, GradientCheckpointingLayer)
    ]
    return found or [encoder]
