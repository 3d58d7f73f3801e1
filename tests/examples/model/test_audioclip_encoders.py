"""AudioCLIP as a pair of encoders: inputs, heads, freezing, and features from the disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from avsl.config import Config
from avsl.data.scenes import Scenes
from avsl.model.encoders import AudioClipAudioEncoder, AudioClipVisualEncoder, Features, Tower
from avsl.model.encoders.clip import MEAN, STD
from avsl.model.feature_file import BATCH, compute_features
from avsl.model.localizer import Localizer
from scipy.signal import firwin, resample_poly
from torch import Tensor


@pytest.fixture
def config(audioclip: str) -> Config:
    return Config(
        backbone="audioclip",
        visual_weights=audioclip,
        text_encoder="audioclip",
        embedding_dim=16,
        image_size=64,
        smoke_test=True,
    )


def frames(height: int, width: int, count: int = 2) -> Tensor:
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def waveforms(count: int = 2, samples: int = 16_000) -> Tensor:
    return 0.2 * torch.randn(count, samples, generator=torch.Generator().manual_seed(1))


def pair(source: str, out: int = 5) -> tuple[AudioClipVisualEncoder, AudioClipAudioEncoder]:
    torch.manual_seed(0)
    return (
        AudioClipVisualEncoder(source, out, allow_stand_in=True).eval(),
        AudioClipAudioEncoder(source, out, allow_stand_in=True).eval(),
    )


# Inputs and outputs


def test_frames(audioclip: str) -> None:
    visual, _ = pair(audioclip)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    trunk, output = visual.encode(frames(64, 96))
    torch.testing.assert_close(trunk, visual.tower((frames(64, 96) / 255 - mean) / std))
    assert (trunk.shape, output.shape) == ((2, 16, 2, 3), (2, 5, 2, 3))
    torch.testing.assert_close(output, visual.head(trunk))


def test_frames_of_a_mixture_are_read_one_by_one(audioclip: str) -> None:
    visual, _ = pair(audioclip)
    alone = [visual(frame) for frame in frames(64, 192).chunk(3, 3)]
    torch.testing.assert_close(visual(frames(64, 192)), torch.cat(alone, 3), atol=1e-6, rtol=1e-4)


def test_sounds(audioclip: str) -> None:
    """Resampled to 44.1 kHz, in the range of 16-bit integers."""
    _, audio = pair(audioclip)
    taps = firwin(64 * 441 + 1, 1 / 441, window=("kaiser", 9.0))
    sounds = 32768 * torch.from_numpy(resample_poly(waveforms().double().numpy(), 441, 160, axis=1, window=taps))
    trunk, output = audio.encode(waveforms())
    torch.testing.assert_close(trunk, audio.tower.features(sounds), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(output, audio.head(audio.tower(sounds)), atol=1e-5, rtol=1e-4)
    assert (trunk.shape, output.shape) == ((2, 512, 11, 3), (2, 5))
    assert audio.features(waveforms(1, 48_000)).shape == (1, 512, 11, 8)
    assert audio.trunk_channels == 512


def test_quiet_sounds_are_no_reason_for_a_warning(audioclip: str) -> None:
    """One step of 16 bits: among warnings that are errors, this would fail."""
    pair(audioclip)[1](waveforms() / 32768)


def test_the_map_of_tokens(config: Config) -> None:
    one, other = (Localizer(dataclasses.replace(config, audioclip_map=kind).as_dict(), 16).visual for kind in MAPS)
    assert one.architecture != other.architecture  # their features have files of their own
    assert (one.tower.kind, other.tower.kind) == MAPS
    assert (one(frames(64, 64)) - other(frames(64, 64))).abs().max() > 1e-4


MAPS = ("values", "tokens")


# Heads


def test_heads_of_equal_dimensions_start_as_the_identity(audioclip: str) -> None:
    visual, audio = pair(audioclip, 16)
    encoding = visual.encode(frames(64, 64))
    torch.testing.assert_close(encoding.output, encoding.trunk)
    encoding = audio.encode(waveforms())
    torch.testing.assert_close(encoding.output, audio.tower.embed(encoding.trunk))
    visual, _ = pair(audioclip, 15)
    assert visual.head.weight.abs().min() > 0


def loss(model: Localizer, *, cached: bool = False) -> Tensor:
    inputs = []
    for encoder, values in ((model.visual, frames(64, 128)), (model.audio, waveforms())):
        inputs.append(Features(encoder.features(values).half()) if cached else values)
    visual, audio = model.method.features(model.encode(*inputs))
    return torch.einsum("bchw,bc->b", visual, audio).sum()


def test_frozen_towers(config: Config) -> None:
    model = Localizer(config.as_dict(), 16).train()
    assert not any(m.training for e in (model.visual, model.audio) for m in e.tower.modules())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = model.configure_optimizers()
    loss(model).backward()
    optimizer.step()
    changed = {k.rpartition(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"visual.head", "audio.head"}


@pytest.mark.parametrize("kind", MAPS)
def test_towers_with_a_rate_of_their_own(config: Config, kind: str) -> None:
    changed = dataclasses.replace(config, tower_rate=1e-5, rate=1e-3, visual_rate=1e-2, audioclip_map=kind)
    model = Localizer(changed.as_dict(), 16).train()
    modules = [m for e in (model.visual, model.audio) for m in e.tower.modules()]
    assert {m.training for m in modules if not isinstance(m, torch.nn.BatchNorm2d)} == {True}
    assert {m.training for m in modules if isinstance(m, torch.nn.BatchNorm2d)} == {False}
    optimizer = model.configure_optimizers()
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2, 1e-5]
    wavelets = model.audio.tower.fbsp.state_dict()
    before = {k: v.clone() for k, v in wavelets.items()}
    loss(model).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in wavelets.items())


def test_trained_towers_keep_their_batch_statistics(config: Config) -> None:
    """So a batch can have one scene, and a scene has the same features in training and at test time."""
    model = Localizer(dataclasses.replace(config, tower_rate=1e-5).as_dict(), 16)
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    visual, audio = model.visual(frames(64, 64, 1)), model.audio(waveforms(1))
    (visual.sum() + audio.sum()).backward()
    assert model.audio.tower.att5.bn.weight.grad.abs().max() > 0
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.eval()
    torch.testing.assert_close(model.visual(frames(64, 64, 1)), visual)
    torch.testing.assert_close(model.audio(waveforms(1)), audio)


@pytest.mark.parametrize("rate", [0.0, 1e-5])
def test_no_scenes(config: Config, rate: float) -> None:
    model = Localizer(dataclasses.replace(config, tower_rate=rate).as_dict(), 16).train()
    visual, audio = model.visual(frames(64, 128)[:0]), model.audio(waveforms()[:0])
    assert (visual.shape, audio.shape) == ((0, config.embedding_dim, 2, 4), (0, config.embedding_dim))


# Checkpoints of runs


def test_a_run_needs_no_file_afterwards(config: Config) -> None:
    torch.manual_seed(0)
    model = Localizer(config.as_dict(), 16).eval()
    moved = config.as_dict() | {"visual_weights": "gone.pt", "audio_weights": "gone.pt", "text_encoder": "gone.pt"}
    again = Localizer(**model.hparams | {"config": moved}).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(loss(again), loss(model))


# Features from the disk


def test_features_from_the_disk_give_the_same(config: Config) -> None:
    """Values and gradients of the heads, to half precision."""
    torch.manual_seed(0)
    model = Localizer(dataclasses.replace(config, embedding_dim=5).as_dict(), 16).train()
    results = []
    for cached in (False, True):
        model.zero_grad()
        value = loss(model, cached=cached)
        value.backward()
        grads = [p.grad.clone() for e in (model.visual, model.audio) for p in e.head.parameters()]
        results.append([value.detach(), *grads])
        assert all(grad.abs().max() > 1e-3 for grad in grads)
    torch.testing.assert_close(*results, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("kind", ["frames", "sounds"])
def test_a_killed_pass_is_resumed(audioclip: str, tmp_path: Path, kind: str) -> None:
    encoder = dict(zip(("frames", "sounds"), pair(audioclip), strict=True))[kind]
    inputs = frames(32, 32, BATCH + 3) if kind == "frames" else waveforms(BATCH + 3, 1000)
    keys, loaded = [b"%016d" % i for i in range(len(inputs))], []

    def load_until(index: int) -> Tensor:
        if index == BATCH + 1:
            raise KeyboardInterrupt
        return inputs[index]

    with pytest.raises(KeyboardInterrupt):
        compute_features(encoder, keys, load_until, tmp_path, kind=kind)
    file = compute_features(encoder, keys, lambda i: (loaded.append(i), inputs[i])[1], tmp_path, kind=kind)
    assert loaded == [0, *range(BATCH, BATCH + 3)]  # the first one gives the shape
    for i in (0, BATCH - 1, BATCH + 2):
        expected = encoder.features(inputs[i : i + 1])[0]
        torch.testing.assert_close(file.read(keys[i]).values.float(), expected, atol=1e-3, rtol=1e-3)


def test_scenes_hold_both_kinds_of_features(audioclip: str, music: Path, tmp_path: Path) -> None:
    plain, kept = (Scenes(music, ["a", "b"], 64) for _ in range(2))
    for kind, encoder in zip(("frames", "sounds"), pair(audioclip), strict=True):
        assert isinstance(encoder, Tower)
        kept.use_features(kind, encoder, tmp_path)
    frame, waveform, _ = kept[1]
    assert (frame.values.shape, waveform.values.shape) == ((16, 2, 2), (512, 11, 8))
    visual, audio = pair(audioclip)
    torch.testing.assert_close(frame.values.float(), visual.features(plain[1].frame[None])[0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        waveform.values.float(), audio.features(plain[1].waveform[None])[0], atol=1e-3, rtol=1e-3
    )


def test_other_weights_have_features_of_their_own(audioclip: str, tmp_path: Path) -> None:
    files = set()
    for change in (0, 1):
        visual, _ = pair(audioclip)
        visual.tower.out.bias.data += change
        files.add(compute_features(visual, [b"a"], lambda _: frames(32, 32)[0], tmp_path, kind="frames").path)
    assert len(files) == 2


# Configurations


def test_one_file_for_all_three(audioclip: str) -> None:
    config = Config.load(["audioclip"], {"visual_weights": audioclip})
    assert (config.visual_weights, config.audio_weights, config.text_encoder) == (audioclip,) * 3
    assert Config.from_dict(config.as_dict()) == config
    assert (config.embedding_dim, config.tower_rate, config.cache_features, config.mirror) == (1024, 0, True, False)
    default = Config.load(["audioclip"], {})
    assert {default.visual_weights, default.audio_weights, default.text_encoder} == {"AudioCLIP-Full-Training.pt"}
    assert Config(backbone="audioclip", audio_weights="other.pt").audio_weights == "other.pt"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_encoder": "audioclip"}, "`text_encoder` of the backbone resnet to be another, .* but got 'audioclip'"),
        (
            {"backbone": "audioclip", "visual_weights": None},
            "`visual_weights` of the backbone audioclip to name such a model, as AudioCLIP-Full-.* but got None",
        ),
        (
            {"backbone": "audioclip", "audio_weights": None},
            "`audio_weights` of the backbone audioclip to name such a model, .* but got None",
        ),
        ({"audioclip_map": "pooled"}, "`audioclip_map` to be one of values, tokens, but got 'pooled'"),
        ({"backbone": "audioclip", "image_size": 31}, "`image_size` of audioclip to be at least 32, but got 31"),
    ],
)
def test_a_configuration_that_makes_no_sense(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**changes)


def test_a_stand_in_is_for_smoke_tests_only(config: Config) -> None:
    with pytest.raises(ValueError, match=r"`visual_weights` .* is a stand-in .* --smoke-test true"):
        Localizer(dataclasses.replace(config, smoke_test=False).as_dict(), 16)
