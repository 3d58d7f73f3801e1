"""AudioCLIP's networks computed step by step from the names of the checkpoint, without the example's modules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from avsl.model.encoders.audioclip.sizes import SMALL, Sizes
from avsl.model.encoders.audioclip.stand_in import stand_in_weights
from torch import Tensor

Values = dict[str, Tensor]
LAYERS = range(1, 5)


def varied_weights(sizes: Sizes = SMALL, seed: int = 0) -> Values:
    """A stand-in in float64 whose statistics, scales, shifts and wavelets differ from their starting values."""
    generator = torch.Generator().manual_seed(seed)
    values = stand_in_weights(seed, sizes)
    for name, value in values.items():
        if name.endswith(("running_mean", "bias")) and value.numel():
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif name.endswith("running_var") or ("bn" in name and name.endswith("weight")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    values["audio.fbsp.m"] = 0.5 * torch.rand(1025, generator=generator)
    values["audio.fbsp.fb"] = 0.2 + 0.5 * torch.rand(1025, generator=generator)
    values["audio.fbsp.fc"] += 0.1 * torch.randn(1025, generator=generator)
    return {name: value.double() if value.is_floating_point() else value for name, value in values.items()}


def part(values: Values, prefix: str) -> Values:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def normalized(x: Tensor, name: str, values: Values) -> Tensor:
    mean, variance, scale, shift = (
        values[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def block(x: Tensor, name: str, values: Values, stride: int, *, clip: bool) -> Tensor:
    """A bottleneck: CLIP's has its stride in mean pooling, ResNeXt's in a convolution of 32 groups."""

    def convolved(y: Tensor, number: int, **options: int) -> Tensor:
        return normalized(F.conv2d(y, values[f"{name}.conv{number}.weight"], **options), f"{name}.bn{number}", values)

    groups, inner = (1, 1) if clip else (32, stride)
    y = convolved(x, 1).relu()
    y = convolved(y, 2, padding=1, stride=inner, groups=groups).relu()
    y = convolved(F.avg_pool2d(y, stride) if clip else y, 3)
    if f"{name}.downsample.0.weight" in values:
        x = F.avg_pool2d(x, stride) if clip else x[:, :, ::stride, ::stride]
        x = normalized(F.conv2d(x, values[f"{name}.downsample.0.weight"]), f"{name}.downsample.1", values)
    return (x + y).relu()


def stage(x: Tensor, number: int, values: Values, *, clip: bool) -> Tensor:
    blocks = 1 + max(int(name.split(".")[1]) for name in values if name.startswith(f"layer{number}."))
    for i in range(blocks):
        stride = 2 if i == 0 and number > 1 else 1
        x = block(x, f"layer{number}.{i}", values, stride, clip=clip)
    return x


def image_map(pixels: Tensor, values: Values) -> Tensor:
    """The last map of the image tower."""
    x = pixels
    for i in (1, 2, 3):
        weight, stride = values[f"conv{i}.weight"], 2 if i == 1 else 1
        x = normalized(F.conv2d(x, weight, padding=1, stride=stride), f"bn{i}", values).relu()
    x = F.avg_pool2d(x, 2)
    for number in LAYERS:
        x = stage(x, number, values, clip=True)
    return x


def attention(tokens: Tensor, values: Values) -> Tensor:
    """The pooling's attention over the tokens (B, N, D), head by head."""
    query, key, value = (tokens @ values[f"{n}_proj.weight"].T + values[f"{n}_proj.bias"] for n in "qkv")
    heads = [
        ((q @ k.transpose(1, 2)) / 8).softmax(2) @ v
        for q, k, v in zip(*(x.split(64, dim=2) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(heads, 2) @ values["c_proj.weight"].T + values["c_proj.bias"]


def gate(x: Tensor, number: int, size: tuple[int, int], values: Values) -> Tensor:
    kernel = {1: (3, 1), 2: (1, 5), 3: (3, 1), 4: (1, 5), 5: (3, 5)}[number]
    name, padding = f"att{number}", (kernel[0] // 2, kernel[1] // 2)
    x = F.adaptive_max_pool2d(x, size)
    x = F.conv2d(
        x, values[f"{name}.conv_depth.weight"], values[f"{name}.conv_depth.bias"], padding=padding, groups=x.shape[1]
    )
    x = F.conv2d(x, values[f"{name}.conv_point.weight"], values[f"{name}.conv_point.bias"])
    return normalized(x, f"{name}.bn", values).sigmoid()


def sound_map(spectrogram: Tensor, values: Values) -> Tensor:
    """The last map of the audio tower."""
    x = F.conv2d(spectrogram, values["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(normalized(x, "bn1", values).relu(), 3, 2, 1)
    for number in LAYERS:
        y = stage(x, number, values, clip=False)
        x = y * gate(x, number, y.shape[2:], values)
    return x


def text_embedding(tokens: Tensor, values: Values, heads: int = 8) -> Tensor:
    """The text tower on the numbers of the tokens of one text, (N,)."""
    x = values["token_embedding.weight"][tokens] + values["positional_embedding"][: len(tokens)]
    later = torch.ones(len(tokens), len(tokens)).triu(1).bool()
    layers = 1 + max(int(name.split(".")[2]) for name in values if name.startswith("transformer.resblocks."))
    for i in range(layers):
        w = part(values, f"transformer.resblocks.{i}.")
        y = F.layer_norm(x, x.shape[-1:], w["ln_1.weight"], w["ln_1.bias"])
        q, k, v = (y @ w["attn.in_proj_weight"].T + w["attn.in_proj_bias"]).chunk(3, 1)
        size = q.shape[1] // heads
        mixed = []
        for one, other, third in zip(q.split(size, 1), k.split(size, 1), v.split(size, 1), strict=True):
            mixed.append((one @ other.T / size**0.5).masked_fill(later, -torch.inf).softmax(1) @ third)
        x = x + torch.cat(mixed, 1) @ w["attn.out_proj.weight"].T + w["attn.out_proj.bias"]
        y = F.layer_norm(x, x.shape[-1:], w["ln_2.weight"], w["ln_2.bias"])
        y = y @ w["mlp.c_fc.weight"].T + w["mlp.c_fc.bias"]
        x = x + (y * (1.702 * y).sigmoid()) @ w["mlp.c_proj.weight"].T + w["mlp.c_proj.bias"]
    x = F.layer_norm(x, x.shape[-1:], values["ln_final.weight"], values["ln_final.bias"])
    return x[tokens.argmax()] @ values["text_projection"]
