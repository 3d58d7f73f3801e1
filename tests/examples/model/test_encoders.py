"""Encoders from a local path and from scratch, and their pretraining on crops."""

from __future__ import annotations

import pytest
import torch
from avsl.config import Config
from avsl.model.encoders import AudioEncoder, VisualEncoder, build_trunk
from avsl.training.pretraining import crop_captions, crop_labels, pretrain, render_crops
from torch import nn
from transformers import ResNetConfig, ResNetModel


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("resnet")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(path)
    return str(path)


def stem_of(trunk: ResNetModel) -> nn.Conv2d:
    return trunk.embedder.embedder.convolution


def test_a_visual_trunk_keeps_the_weights_of_its_path(weights: str) -> None:
    trunk, saved = build_trunk(weights, 3, (99,), (9,)), ResNetModel.from_pretrained(weights)
    assert all(torch.equal(v, saved.state_dict()[k]) for k, v in trunk.state_dict().items())
    assert VisualEncoder(trunk, 5)(torch.zeros(2, 3, 64, 96, dtype=torch.uint8)).shape == (2, 5, 8, 12)


def test_an_audio_trunk_gets_a_stem_with_one_channel(weights: str) -> None:
    trunk, saved = build_trunk(weights, 1, (99,), (9,)), ResNetModel.from_pretrained(weights)
    stem = "embedder.embedder.convolution.weight"
    assert trunk.state_dict()[stem].shape == (8, 1, 7, 7)
    assert all(torch.equal(v, saved.state_dict()[k]) for k, v in trunk.state_dict().items() if k != stem)
    assert (stem_of(trunk).kernel_size, stem_of(trunk).stride, stem_of(trunk).padding) == ((7, 7), (2, 2), (3, 3))
    assert AudioEncoder(trunk, 5)(torch.zeros(2, 48_000)).shape == (2, 5)


def test_the_papers_networks() -> None:
    """ResNet-18 twice: 11,176,512 weights without the classifier, the audio stem 64 × 2 × 7 × 7 fewer."""
    widths, depths = Config().visual_widths, Config().visual_depths
    visual, audio = (build_trunk(None, channels, widths, depths) for channels in (3, 1))
    assert sum(p.numel() for p in visual.parameters()) == 11_176_512
    assert sum(p.numel() for p in audio.parameters()) == 11_176_512 - 64 * 2 * 49
    stem = stem_of(audio)
    assert (stem.in_channels, stem.out_channels, stem.kernel_size) == (1, 64, (7, 7))
    assert (stem.stride, stem.padding, stem.bias) == ((2, 2), (3, 3), None)
    features = visual(torch.zeros(1, 3, 224, 448)).last_hidden_state
    assert features.shape == (1, 512, 7, 14)


def test_weights_that_are_no_resnet(bert: str) -> None:
    with pytest.raises(ValueError, match=r"`audio_weights` to be a model of type resnet, but .* is bert"):
        build_trunk(bert, 1, (4,), (1,))


@pytest.mark.parametrize("channels", [1, 3])
def test_from_scratch(channels: int) -> None:
    trunk = build_trunk(None, channels, (4, 8, 16), (1, 2, 1))
    assert trunk(torch.zeros(1, channels, 64, 64)).last_hidden_state.shape == (1, 16, 4, 4)


def test_pixels_are_normalized_as_for_imagenet() -> None:
    encoder = VisualEncoder(build_trunk(None, 3, (4,), (1,)), 2).eval()
    seen = []
    encoder.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    assert seen[0].abs().max() < 0.02


def test_the_maximum_over_the_map_reaches_the_embedding() -> None:
    """Two maps with the same mean and another maximum give other embeddings."""
    encoder = AudioEncoder(build_trunk(None, 1, (4,), (1,)), 3).eval()
    flat, peaked = torch.ones(1, 4, 4, 4), torch.zeros(1, 4, 4, 4)
    peaked[..., 0, 0] = 16
    outputs = []
    for maps in (flat, peaked):
        encoder.trunk.forward = lambda _, maps=maps: type("Output", (), {"last_hidden_state": maps})
        outputs.append(encoder(torch.zeros(1, 512)))
    assert not torch.allclose(*outputs)


@pytest.mark.usefixtures("serial")
def test_crops() -> None:
    images, labels = render_crops(200, 32, 0, None)
    assert (images.shape, images.dtype) == ((200, 3, 32, 32), torch.uint8)
    names = crop_labels(None)
    assert len(crop_captions(None)) == len(names) == len(set(names)) == len(set(crop_captions(None)))
    sounding = {name for name, plays in names if plays}
    shown = [names[int(label)] for label in labels]
    assert sum(plays for _, plays in shown) == 100
    assert sum(name in sounding and not plays for name, plays in shown) == 50
    again, _ = render_crops(100, 32, 0, None)
    assert torch.equal(again, images[:100])
    other, _ = render_crops(100, 32, 1, None)
    assert not torch.equal(other, again)


def test_pretraining_tells_two_colors_apart() -> None:
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.randint(0, 60, (64, 3, 32, 32), dtype=torch.uint8)
    images[labels == 0, 0] += 150
    images[labels == 1, 2] += 150
    encoder = VisualEncoder(build_trunk(None, 3, (8,), (1,)), 4)
    losses = pretrain(encoder, images, labels, torch.eye(4)[:2], steps=30, batch=16, rate=3e-3)
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.1 * sum(losses[:5])
