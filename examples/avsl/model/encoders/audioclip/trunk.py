"""The residual stages of both ResNets of AudioCLIP."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4  # output channels of a block per channel of its narrow part, without groups


class Bottleneck(nn.Module):
    """A 1×1, a 3×3 and a 1×1 convolution with batch normalization, and a shortcut.

    Args:
        channels: channels of the input.
        width: channels of the 3×3 convolution.
        out: channels of the output.
        stride: stride of the block.
        groups: groups of the 3×3 convolution.
        pooled: True if the mean over stride × stride places reduces the map, as in CLIP; False if the 3×3 convolution
            does.
    """

    def __init__(self, channels: int, width: int, out: int, stride: int, groups: int, *, pooled: bool) -> None:
        super().__init__()
        convolved = 1 if pooled else stride
        self.pool = nn.AvgPool2d(stride) if pooled and stride > 1 else nn.Identity()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, convolved, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            # The names "0" and "1" are those of the checkpoint, in which the pooling has none.
            parts = ("pool", self.pool), ("0", nn.Conv2d(channels, out, 1, convolved, bias=False))
            self.downsample = nn.Sequential(OrderedDict([*parts, ("1", nn.BatchNorm2d(out))]))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.pool(F.relu(self.bn2(self.conv2(y))))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def build_stages(width: int, depths: tuple[int, ...], groups: int, *, pooled: bool) -> list[nn.Sequential]:
    """Builds the stages of a ResNet whose stem has ``width`` channels; each doubles the channels of the one before.

    With groups, the 3×3 convolutions of the first stage have twice as many channels (ResNeXt).
    """
    stages, channels = [], width
    for number, depth in enumerate(depths):
        narrow = width * 2**number
        out, inner = EXPANSION * narrow, narrow * (2 if groups > 1 else 1)
        blocks = []
        for i in range(depth):
            stride = 2 if i == 0 and number > 0 else 1
            blocks.append(Bottleneck(channels, inner, out, stride, groups, pooled=pooled))
            channels = out
        stages.append(nn.Sequential(*blocks))
    return stages
