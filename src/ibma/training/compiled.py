"""Run a network's layers through `torch.compile`.

The layers of a transformer share one compiled function: compiling one takes seconds, compiling all
of a network takes minutes, and its steps are no faster. Encoders without such layers are compiled
whole; so is a network that has no other ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ibma.network.encoders import Standardise
from ibma.network.method import Method


class CompiledLayers:
    """The layers of a network that can be compiled, and what they were compiled to.

    Args:
        model: stays as it is; its layers run compiled `in_use` only.
    """

    def __init__(self, model: Method) -> None:
        from transformers.modeling_layers import GradientCheckpointingLayer  # of a transformer

        layers = {
            encoder: [
                one for one in encoder.modules() if isinstance(one, GradientCheckpointingLayer)
            ]
            for encoder in model.encoders.values()
        }
        whole: list[nn.Module] = [encoder for encoder, found in layers.items() if not found]
        if len(whole) == len(layers):
            whole = [model]
        # encoders share code: without `dynamic` the second would be compiled for any shape, slowly
        self.fast = {part: torch.compile(part.forward, dynamic=False) for part in whole}
        for layer in itertools.chain(*layers.values()):
            self.fast[layer] = torch.compile(layer.forward)
        for module in model.modules():
            if isinstance(module, Standardise):  # it counts batches on the host
                eager: Any = torch.compiler.disable  # which torch gives no types
                self.fast[module] = eager(module.forward)

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
