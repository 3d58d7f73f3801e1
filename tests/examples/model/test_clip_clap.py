"""CLIP and CLAP as a pair of encoders: features against transformers' own, sizes, freezing, errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from avsl.config import Config
from avsl.model.encoders import ClapAudioEncoder, ClipVisualEncoder, VisualEncoder, build_encoders, parameter_groups
from avsl.model.encoders.clap import ClapLogMel
from avsl.model.encoders.resampling import Upsample
from avsl.model.localizer import Localizer
from scipy.signal import firwin, resample_poly
from torch import nn
from transformers import ClapAudioModel, ClapFeatureExtractor, ClapModel, CLIPVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


def frames(height: int, width: int, count: int = 2) -> torch.Tensor:
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def waveforms(count: int = 3) -> torch.Tensor:
    noise = 0.3 * torch.randn(count, 48_000, generator=torch.Generator().manual_seed(1))
    noise[0] *= torch.linspace(0, 1e-3, 48_000)  # nearly silent
    return noise


def normalized(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (images / 255 - mean) / std


# CLIP


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 32), (32, 96), (36, 47)])
def test_features_are_values_of_the_last_block(clip: str, height: int, width: int) -> None:
    model = CLIPVisionModel.from_pretrained(clip)
    images = frames(height, width)
    with torch.no_grad():
        ours = ClipVisualEncoder(clip, 5).tower(normalized(images))
        passed = model(normalized(images), output_hidden_states=True, interpolate_pos_encoding=True)
        last = model.encoder.layers[-1]
        for row, column in ((0, 0), (height // 8 - 1, width // 8 - 1), (1, 0)):
            token = passed.hidden_states[-2][:, 1 + row * (width // 8) + column]
            value = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(token)))
            torch.testing.assert_close(ours[:, :, row, column], model.post_layernorm(value), atol=1e-5, rtol=0)
    assert ours.shape == (2, 16, height // 8, width // 8)


@pytest.mark.parametrize("count", [2, 3])
def test_frames_of_a_mixture_are_read_one_by_one(clip: str, count: int) -> None:
    encoder = ClipVisualEncoder(clip, 5)
    alone = [encoder(frame) for frame in frames(32, 32 * count).chunk(count, 3)]
    torch.testing.assert_close(encoder(frames(32, 32 * count)), torch.cat(alone, 3), atol=1e-5, rtol=0)


def test_positions_within_a_frame(clip: str) -> None:
    """Where all patches look alike, features still differ by place."""
    encoder = ClipVisualEncoder(clip, 5)
    features = encoder(torch.full((1, 3, 32, 32), 128, dtype=torch.uint8))[0]
    assert features.shape == (5, 4, 4)
    assert (features[:, :, 0] - features[:, :, -1]).abs().max() > 1e-4
    assert (features[:, 0] - features[:, -1]).abs().max() > 1e-4


def test_a_picture_that_is_not_square_is_one_frame(clip: str) -> None:
    encoder, seen = ClipVisualEncoder(clip, 5), []
    encoder.tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    for height, width in ((64, 32), (32, 48)):
        encoder(frames(height, width))
    assert seen == [(2, 3, 64, 32), (2, 3, 32, 48)]


def test_pixels_are_normalized_as_for_clip(clip: str) -> None:
    encoder, seen = ClipVisualEncoder(clip, 5), []
    encoder.tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(frames(32, 32))
    torch.testing.assert_close(seen[0], normalized(frames(32, 32)))


def test_a_vision_tower_of_its_own(clip: str, tmp_path: Path) -> None:
    CLIPVisionModel.from_pretrained(clip).save_pretrained(tmp_path)
    torch.manual_seed(0)
    alone = ClipVisualEncoder(str(tmp_path), 5)
    torch.manual_seed(0)
    torch.testing.assert_close(alone(frames(32, 32)), ClipVisualEncoder(clip, 5)(frames(32, 32)))


def test_half_precision_weights_are_widened(clip: str, tmp_path: Path) -> None:
    CLIPVisionModel.from_pretrained(clip).half().save_pretrained(tmp_path)
    encoder = ClipVisualEncoder(str(tmp_path), 5)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


# CLAP


@pytest.mark.parametrize("length", [48_000, 12_345, 161, 1])
@pytest.mark.parametrize(("up", "down"), [(2, 1), (3, 1), (3, 2), (441, 160)])
def test_upsampling_equals_scipy(up: int, down: int, length: int) -> None:
    samples = waveforms()[:, :length].double()
    taps = firwin(64 * up + 1, 1 / up, window=("kaiser", 9.0))
    expected = resample_poly(samples.numpy(), up, down, axis=1, window=taps)
    ours = Upsample(up, down)(samples.float())
    assert ours.dtype == torch.float64
    np.testing.assert_allclose(ours, expected, atol=1e-7)


@pytest.mark.parametrize("frequency", [50.0, 440.0, 5000.0, 7000.0])
def test_upsampling_keeps_tones(frequency: float) -> None:
    def tone(rate: int) -> torch.Tensor:
        return torch.sin(2 * torch.pi * frequency * torch.arange(rate, dtype=torch.float64) / rate)

    ours = Upsample(3)(tone(16_000)[None])[0]
    inner = slice(300, -300)  # the ends know nothing of what comes before and after
    torch.testing.assert_close(ours[inner], tone(48_000)[inner], atol=1e-4, rtol=0)


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
def test_log_mel_features_equal_the_extractors(truncation: str, padding: str) -> None:
    extractor = ClapFeatureExtractor(truncation=truncation, padding=padding)
    t = torch.arange(144_000) / 48_000
    sounds = torch.stack([0.9 * torch.sin(2 * torch.pi * 440 * t), torch.zeros(144_000), 1e-4 * torch.sin(9000 * t)])
    sounds[2, 70_000:] = 0.5 * torch.randn(74_000, generator=torch.Generator().manual_seed(0))
    expected = extractor(list(sounds.numpy()), sampling_rate=48_000, return_tensors="pt")["input_features"]
    ours = ClapLogMel(extractor)(sounds)
    assert (ours.shape, ours.dtype) == ((3, 1, 1001, 64), torch.float32)
    torch.testing.assert_close(ours.expand_as(expected), expected, atol=1e-4, rtol=0)


def test_many_clips_equal_few() -> None:
    extractor = ClapFeatureExtractor(feature_size=8, hop_length=9600, max_length_s=1)
    sounds = torch.randn(35, 16_000, generator=torch.Generator().manual_seed(0))
    log_mel = ClapLogMel(extractor)
    torch.testing.assert_close(log_mel(sounds)[30:], log_mel(sounds[30:]))


@pytest.mark.parametrize("samples", [0, 480_001])
def test_a_length_that_does_not_fit(samples: int) -> None:
    with pytest.raises(ValueError, match=f"`waveforms` of 1 to 480000 samples, but got {samples}"):
        ClapLogMel(ClapFeatureExtractor())(torch.zeros(1, samples))


@pytest.mark.parametrize("path", ["clap", "fused_clap"])
def test_embeddings_are_claps(path: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(path)
    encoder, model = ClapAudioEncoder(source, 5), ClapModel.from_pretrained(source)
    sounds = resample_poly(waveforms().numpy(), 3, 1, axis=1, window=firwin(193, 1 / 3, window=("kaiser", 9.0)))
    inputs = ClapFeatureExtractor.from_pretrained(source)(list(sounds), sampling_rate=48_000, return_tensors="pt")
    inputs["is_longer"] = torch.zeros_like(torch.as_tensor(inputs["is_longer"]))  # picked at random there
    with torch.no_grad():
        pooled = model.audio_model(**inputs).pooler_output
        torch.testing.assert_close(encoder(waveforms()), encoder.head(pooled), atol=1e-4, rtol=0)


def test_an_audio_tower_of_its_own(clap: str, tmp_path: Path) -> None:
    ClapModel.from_pretrained(clap).audio_model.save_pretrained(tmp_path)
    ClapFeatureExtractor.from_pretrained(clap).save_pretrained(tmp_path)
    assert ClapAudioModel.from_pretrained(tmp_path).config.architectures == ["ClapAudioModel"]
    towers = (ClapAudioEncoder(source, 5).tower for source in (clap, str(tmp_path)))
    for one, other in zip(*(t.state_dict().values() for t in towers), strict=True):
        assert torch.equal(one, other)


def test_autocast_leaves_the_log_mel_features_alone(clap: str) -> None:
    encoder, seen = ClapAudioEncoder(clap, 5), []
    encoder.tower.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(inputs["input_features"]), with_kwargs=True
    )
    encoder(waveforms())
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(waveforms()).dtype == torch.bfloat16
    assert torch.equal(*seen)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_log_mel_on_a_gpu(clap: str) -> None:
    encoder = ClapAudioEncoder(clap, 5)
    expected = encoder.log_mel(encoder.upsample(waveforms()))
    encoder.cuda()
    ours = encoder.log_mel(encoder.upsample(waveforms().cuda()))
    torch.testing.assert_close(ours.cpu(), expected, atol=1e-4, rtol=0)


# As a pair


@pytest.fixture
def config(clip: str, clap: str) -> Config:
    return Config(backbone="clip-clap", visual_weights=clip, audio_weights=clap, embedding_dim=6, image_size=32)


def loss(model: Localizer) -> torch.Tensor:
    visual, audio = model.method.features(model.encode(frames(32, 32), waveforms(2)))
    return torch.einsum("bchw,bc->b", visual, audio).sum()


def test_frozen_towers(config: Config) -> None:
    model = Localizer(config.as_dict(), 10).train()
    assert model.visual.training
    assert not any(m.training for e in (model.visual, model.audio) for m in e.tower.modules())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = model.configure_optimizers()
    loss(model).backward()
    optimizer.step()
    changed = {k.rpartition(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"visual.head", "audio.head"}


def test_towers_with_a_rate_of_their_own(config: Config) -> None:
    model = Localizer(dataclasses.replace(config, tower_rate=1e-5, rate=1e-3, visual_rate=1e-2).as_dict(), 10).train()
    assert all(m.training for e in (model.visual, model.audio) for m in e.tower.modules())
    optimizer = model.configure_optimizers()
    assert [g["lr"] for g in optimizer.param_groups] == [1e-3, 1e-2, 1e-5]
    held = [p for g in optimizer.param_groups for p in g["params"]]
    assert len(held) == len({id(p) for p in held}) == len([*model.parameters()])
    # Checkpoints hold the optimizer's state in this order.
    ordered = (model.audio.head, model.visual.head, model.visual.tower, model.audio.tower)
    assert [id(p) for p in held] == [id(p) for part in ordered for p in part.parameters()]
    loss(model).backward()
    idle = {n for n, p in model.named_parameters() if p.grad is None}
    assert not idle  # nothing that DistributedDataParallel would wait for


def test_resnets_keep_their_two_rates() -> None:
    config = Config(visual_weights=None, audio_weights=None, rate=1e-3, visual_rate=1e-2)
    visual, audio = build_encoders(config)
    assert isinstance(visual, VisualEncoder)
    groups = parameter_groups(visual, audio, nn.Identity(), config)
    assert [(g["lr"], len(g["params"])) for g in groups] == [
        (1e-3, len(list(audio.parameters()))),
        (1e-2, len(list(visual.parameters()))),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"backbone": "clipclap"},
            "`backbone` to be one of resnet, efficientnet-lite0, clip-clap, audioclip, but got 'clipclap'",
        ),
        (
            {"backbone": "clip-clap", "visual_weights": "microsoft/resnet-18"},
            "`visual_weights` of the backbone clip-clap to name such a model, as openai/.* got 'microsoft/resnet-18'",
        ),
        (
            {"backbone": "clip-clap", "visual_weights": "x", "audio_weights": None},
            "`audio_weights` of the backbone clip-clap to name such a model, as laion/.* got None",
        ),
        ({"tower_rate": -1.0}, "`tower_rate` to be at least 0, but got -1.0"),
    ],
)
def test_a_configuration_that_makes_no_sense(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**changes)


def test_weights_of_another_kind(config: Config, bert: str, tmp_path: Path) -> None:
    clip, clap = config.visual_weights, config.audio_weights
    for source, kind in ((clap, "clap"), (bert, "bert")):
        with pytest.raises(ValueError, match=rf"`visual_weights` to be a model of type clip or .* is {kind}"):
            ClipVisualEncoder(source, 5)
    with pytest.raises(ValueError, match=r"`audio_weights` to be a model of type clap or .* is clip"):
        ClapAudioEncoder(clip, 5)
    with pytest.raises(FileNotFoundError, match=r"`visual_weights` .* there is no folder '.*nowhere'"):
        ClipVisualEncoder(str(tmp_path / "nowhere"), 5)
    ClapModel.from_pretrained(clap).save_pretrained(tmp_path)
    with pytest.raises(
        OSError, match=r"`audio_weights` to hold CLAP's feature extractor, .* no preprocessor_config\.json"
    ):
        ClapAudioEncoder(str(tmp_path), 5)
    ClapFeatureExtractor(sampling_rate=44_100).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"at a multiple of 16000 Hz, but .* takes 44100 Hz"):
        ClapAudioEncoder(str(tmp_path), 5)


def test_weights_that_are_missing(clip: str, tmp_path: Path) -> None:
    """The text tower alone, under the configuration of the whole model: the vision tower would be random."""
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_bytes((Path(clip) / "config.json").read_bytes())
    weights = load_file(Path(clip) / "model.safetensors")
    text = {k: v for k, v in weights.items() if k.startswith("text_")}
    save_file(text, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"`visual_weights` to hold all weights, but .* lacks .* among them"):
        ClipVisualEncoder(str(tmp_path), 5)
