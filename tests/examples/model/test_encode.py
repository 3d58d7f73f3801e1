"""What encoders give beside their outputs: their trunks' features, from inputs or from features on disk."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from avsl.config import Config
from avsl.model.encoders import (
    AudioEncoder,
    ClapAudioEncoder,
    ClipVisualEncoder,
    EfficientNetVisualEncoder,
    Encoders,
    Features,
    Tower,
    VisualEncoder,
    build_encoders,
    build_trunk,
)
from avsl.model.encoders.resnet import use_stride_16
from avsl.model.localizer import Localizer
from avsl.training.model_setup import _fingerprint
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from ..conftest import TINY

CONFIG = Config(**TINY)
VISUAL = ("resnet", "efficientnet", "clip")


def frames(size: int = 64, frames_per_scene: int = 2, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, frames_per_scene * size), dtype=torch.uint8, generator=generator)


def waveforms(count: int = 2) -> Tensor:
    return 0.1 * torch.randn(count, 48_000, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Any:
    def made(name: str) -> nn.Module:
        torch.manual_seed(0)
        if name == "resnet":
            encoder = VisualEncoder(build_trunk(None, 3, (4, 8), (1, 1)), 5)
        elif name == "efficientnet":
            encoder = EfficientNetVisualEncoder(None, 5)
            encoder.head.fit(encoder.features(frames()))
        elif name == "clip":
            encoder = ClipVisualEncoder(request.getfixturevalue("clip"), 5)
        elif name == "audio resnet":
            encoder = AudioEncoder(build_trunk(None, 1, (4, 8), (1, 1)), 5)
        else:
            encoder = ClapAudioEncoder(request.getfixturevalue("clap"), 5)
        return encoder.eval()

    return made


@pytest.mark.parametrize(("name", "channels", "size"), [("resnet", 8, 8), ("efficientnet", 432, 4), ("clip", 16, 8)])
def test_visual_encoders(build: Any, name: str, channels: int, size: int) -> None:
    """The head makes the output of the trunk's features pixel by pixel, so both have one resolution."""
    encoder = build(name)
    trunk, output = encoder.encode(frames())
    assert trunk.shape == (2, channels, size, 2 * size)
    assert encoder.trunk_channels == channels
    assert output.shape == (2, 5, size, 2 * size)
    assert torch.equal(output, encoder(frames()))
    torch.testing.assert_close(output, encoder.head(trunk))
    pixel = encoder.head(trunk[:, :, 1:2, 2:3])
    torch.testing.assert_close(output[:, :, 1, 2], pixel[:, :, 0, 0])


def test_the_trunk_of_a_resnet_is_its_last_map(build: Any) -> None:
    encoder = build("resnet")
    pixels = (frames() / 255 - encoder.mean) / encoder.std
    torch.testing.assert_close(encoder.encode(frames()).trunk, encoder.trunk(pixels).last_hidden_state)


def test_the_trunk_of_clip_is_its_tower(build: Any) -> None:
    encoder = build("clip")
    assert torch.equal(encoder.encode(frames()).trunk, encoder.features(frames()))


def test_the_trunk_of_efficientnet_is_standardized_and_of_both_scales(build: Any) -> None:
    """On the frames that it was fitted to, every channel has mean 0 and deviation 1."""
    encoder = build("efficientnet")
    pixels = encoder.encode(frames()).trunk.transpose(0, 1).flatten(1)
    assert pixels.shape == (432, 2 * 4 * 8)
    torch.testing.assert_close(pixels.mean(1), torch.zeros(432), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.std(1), torch.ones(432), atol=1e-3, rtol=0)


def test_the_audio_resnet(build: Any) -> None:
    """257 frequencies and 201 times, of which every eighth remains."""
    encoder = build("audio resnet")
    trunk, output = encoder.encode(waveforms())
    assert trunk.shape == (2, 8, 33, 25)
    assert encoder.trunk_channels == 8
    torch.testing.assert_close(trunk, encoder.trunk(encoder.spectrogram(waveforms())).last_hidden_state)
    assert torch.equal(output, encoder(waveforms()))
    assert output.shape == (2, 5)


@pytest.mark.parametrize(
    ("pooling", "pools"),
    [("mean+max", (torch.mean, torch.amax)), ("mean", (torch.mean,)), ("max", (torch.amax,))],
)
def test_the_pooling_of_an_audio_resnet(pooling: str, pools: tuple[Any, ...]) -> None:
    _, encoder = build_encoders(dataclasses.replace(CONFIG, audio_pooling=pooling))
    trunk, output = encoder.eval().encode(waveforms())
    assert encoder.head.in_features == 8 * len(pools)
    torch.testing.assert_close(output, encoder.head(torch.cat([pool(trunk, (2, 3)) for pool in pools], 1)))


def test_an_unknown_pooling() -> None:
    with pytest.raises(ValueError, match=r"`audio_pooling` to be one of mean\+max, mean, max, but got 'sum'"):
        Config(audio_pooling="sum")


def test_clap_pools_itself(build: Any) -> None:
    encoder = build("clap")
    trunk, output = encoder.encode(waveforms())
    assert trunk.shape == (2, encoder.trunk_channels, 1, 1)
    assert torch.equal(trunk[:, :, 0, 0], encoder.features(waveforms()))
    assert torch.equal(output, encoder(waveforms()))
    torch.testing.assert_close(output, encoder.head(trunk.flatten(1)))


@pytest.mark.parametrize("name", ["efficientnet", "clip", "clap"])
def test_features_from_the_disk_give_the_same(build: Any, name: str) -> None:
    """Half precision, which features are kept in, is widened before anything is computed."""
    encoder = build(name)
    assert isinstance(encoder, Tower)
    inputs = waveforms() if name == "clap" else frames()
    features = encoder.features(inputs)
    for ours, expected in zip(encoder.encode(Features(features)), encoder.encode(inputs), strict=True):
        assert torch.equal(ours, expected)
    half = features.half()
    for ours, expected in zip(encoder.encode(Features(half)), encoder.encode(Features(half.float())), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)


def test_both_encoders_together(build: Any) -> None:
    encoders = Encoders(build("resnet"), build("audio resnet"))
    encoded = encoders.encode(frames(), waveforms())
    (trunk, visual), (sound, audio) = encoders.visual.encode(frames()), encoders.audio.encode(waveforms())
    for ours, expected in zip(encoded, (visual, audio, trunk, sound), strict=True):
        assert torch.equal(ours, expected)
    assert (encoded.visual.shape[1], encoded.trunk.shape[1]) == (5, 8)


# Stride 16


@pytest.mark.parametrize("layer", ["basic", "bottleneck"])
def test_stride_16_doubles_the_map_of_pretrained_weights(tmp_path_factory: Any, layer: str) -> None:
    path = tmp_path_factory.mktemp(layer)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 2]}
    saved = ResNetModel(ResNetConfig(**sizes, layer_type=layer))
    saved.save_pretrained(path)
    wide, usual = (
        build_encoders(dataclasses.replace(CONFIG, visual_weights=str(path), visual_stride=stride))[0].eval()
        for stride in (16, 32)
    )
    for encoder in (wide, usual):
        assert encoder.trunk.state_dict().keys() == saved.state_dict().keys()
        assert all(torch.equal(value, saved.state_dict()[k]) for k, value in encoder.trunk.state_dict().items())
    assert usual(frames()).shape == (2, 5 + 1, 2, 4)
    assert wide(frames()).shape == (2, 5 + 1, 4, 8)
    # The stages below are the same. The last one has more places among those that it had.
    stages = [encoder.trunk(frames() / 255, output_hidden_states=True).hidden_states[-2] for encoder in (wide, usual)]
    assert torch.equal(*stages)
    shortcuts = [encoder.trunk.encoder.stages[-1].layers[0].shortcut(stages[0]) for encoder in (wide, usual)]
    torch.testing.assert_close(shortcuts[0][:, :, ::2, ::2], shortcuts[1])


def test_stride_16_is_part_of_a_checkpoint() -> None:
    config = dataclasses.replace(CONFIG, visual_widths=(4, 4, 4, 8), visual_depths=(1, 1, 1, 1), visual_stride=16)
    torch.manual_seed(0)
    model = Localizer(config.as_dict() | {"method": "lvs"}, 0).eval()
    again = Localizer(**model.hparams).eval()
    again.load_state_dict(model.state_dict())
    maps = [made.encode(frames(), waveforms()).visual for made in (model, again)]
    assert maps[0].shape == (2, 6, 4, 8)
    assert torch.equal(*maps)


def test_the_usual_stride_changes_nothing() -> None:
    plain, changed = build_trunk(None, 3, (4, 4, 4, 8), (1, 1, 1, 1)), build_trunk(None, 3, (4, 4, 4, 8), (1, 1, 1, 1))
    use_stride_16(changed)

    def strides(trunk: ResNetModel) -> list[tuple[int, int]]:
        return [module.stride for module in trunk.modules() if isinstance(module, nn.Conv2d)]

    differing = [(one, other) for one, other in zip(strides(plain), strides(changed), strict=True) if one != other]
    assert differing == [((2, 2), (1, 1))] * 2  # the first convolution and the shortcut of the last stage
    encoder, _ = build_encoders(dataclasses.replace(CONFIG, visual_widths=(4, 4, 4, 8), visual_depths=(1, 1, 1, 1)))
    assert strides(encoder.trunk) == strides(plain)


def test_weights_that_were_pretrained_with_another_stride_are_not_taken() -> None:
    names = {_fingerprint(Config(**TINY, visual_stride=stride), None, torch.eye(2)) for stride in (16, 32)}
    assert len(names) == 2


@pytest.mark.parametrize("stride", [8, 0, 64])
def test_another_stride(stride: int) -> None:
    with pytest.raises(ValueError, match=f"Expected `visual_stride` to be 16 or 32, but got {stride}"):
        Config(visual_stride=stride)
