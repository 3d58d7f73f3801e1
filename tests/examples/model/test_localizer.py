"""The Lightning module: one step, frozen statistics, checkpoints, maps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from avsl.config import Config
from avsl.data.loading import SceneBatch
from avsl.data.music import MusicFolder
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.predict import predict
from avsl.model.encoders import build_trunk
from avsl.model.localizer import Localizer
from torch import nn

from ..conftest import TINY

CONFIG = Config(**TINY, freeze_statistics=True, trimap_weight=1.0, mirror=False)


def build(**changes) -> Localizer:
    torch.manual_seed(0)
    model = Localizer(dataclasses.replace(CONFIG, **changes).as_dict(), 10)
    model.method.text.fit(torch.randn(30, 10), 1.0)
    return model.train()


def batch(count: int = 4) -> SceneBatch:
    generator = torch.Generator().manual_seed(1)
    return SceneBatch(
        torch.randint(256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator),
        0.1 * torch.randn(count, 48_000, generator=generator),
        torch.randn(count, 2, 10, generator=generator),
        torch.randn(count, 10, generator=generator),
        torch.tensor([[True, True], [True, False]]).repeat(count // 2, 1),
        torch.ones(count, dtype=torch.bool),
        torch.tensor([[0, 1], [1, -1]]).repeat(count // 2, 1),
        torch.arange(count)[:, None],
    )


def step(
    model: Localizer, monkeypatch: pytest.MonkeyPatch, scenes: SceneBatch | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logged: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(model, "log_dict", lambda values, **_: logged.update(values))
    loss = model.training_step(scenes or batch(), 0)
    loss.backward()
    return loss, logged


def test_a_step_reaches_both_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    loss, logged = step(model, monkeypatch)
    assert set(logged) == {"total", "trimap", "oca", "ori"}
    assert all(v.isfinite() and not v.requires_grad for v in logged.values())
    assert logged["total"] == loss
    expected = CONFIG.trimap_weight * logged["trimap"] + CONFIG.oca_weight * logged["oca"] + 0.1 * logged["ori"]
    torch.testing.assert_close(logged["total"], expected)
    for encoder in (model.visual, model.audio):
        gradients = [p.grad for p in encoder.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert all(g.abs().max() > 0 for g in (encoder.head.weight.grad, gradients[0]))
    assert not list(model.method.text.parameters())


def test_half_of_the_batches_are_mirrored_unless_told_otherwise() -> None:
    def of_epoch(epoch: int, **changes) -> list[bool]:
        model = build(**changes)
        model.trainer = SimpleNamespace(num_training_batches=1000, current_epoch=epoch)
        return [model._is_mirrored(i) for i in range(1000)]

    first = of_epoch(0, mirror=True)
    assert 400 < sum(first) < 600
    assert of_epoch(0, mirror=True) == first != of_epoch(1, mirror=True)
    assert not any(of_epoch(0))


def test_a_mirrored_batch_has_its_frames_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = batch()
    straight, _ = step(build(), monkeypatch, scenes)
    model = build()
    monkeypatch.setattr(model, "_is_mirrored", lambda _: True)
    assert step(model, monkeypatch, scenes._replace(frames=scenes.frames.flip(3)))[0] == straight
    assert step(model, monkeypatch, scenes)[0] != straight


def test_oca_alone_reaches_the_audio_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(trimap_weight=0.0, ori_weight=0.0)
    step(model, monkeypatch)
    assert model.audio.head.weight.grad.abs().max() > 0


def test_the_separation_loss_takes_the_place_of_ori(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, logged = step(build(ori_target="separate", ori_margin=0.5, ori_tol=0.01), monkeypatch)
    _, paper = step(build(), monkeypatch)
    assert loss.isfinite()
    assert logged["oca"] == paper["oca"]
    assert logged["ori"] != paper["ori"]


def test_padding_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = batch()
    padded = scenes._replace(foreground=scenes.foreground.masked_fill(~scenes.source_mask[..., None], 5.0))
    losses = []
    for example in (scenes, padded):
        model = build()
        losses.append(step(model, monkeypatch, example)[0])
    assert losses[0] == losses[1]


def statistics(encoder: nn.Module) -> list[torch.Tensor]:
    return [b.clone() for m in encoder.modules() if isinstance(m, nn.BatchNorm2d) for b in m.buffers()]


def unchanged(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    assert before
    return all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(freeze_statistics=frozen)
    visual, audio = statistics(model.visual), statistics(model.audio)
    step(model, monkeypatch)
    assert unchanged(visual, statistics(model.visual)) is frozen
    assert not unchanged(audio, statistics(model.audio))
    assert model.training
    assert model.visual.training


def test_statistics_shared_by_processes_are_frozen_too() -> None:
    model = build(freeze_statistics=True)
    model.visual = nn.SyncBatchNorm.convert_sync_batchnorm(model.visual)
    norms = [module for module in model.train().visual.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_a_checkpoint_gives_the_same_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    step(model, monkeypatch)
    model.eval()
    path = tmp_path / "model.ckpt"
    saved = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save(saved, path)
    read = torch.load(path, weights_only=True)
    again = Localizer(**read["hyper_parameters"])
    again.load_state_dict(read["state_dict"])
    again.eval()
    assert again.config == model.config
    frames, waveforms, *_ = batch()
    ours, theirs = (m.sound_map(m.encode(frames, waveforms)) for m in (model, again))
    assert torch.equal(ours, theirs)
    assert torch.equal(*(m.method.text(torch.ones(10)) for m in (model, again)))


def test_a_checkpoint_of_an_earlier_version_is_read() -> None:
    """Its captions' projection is not the method's, and it has neither classes nor the number of sources."""
    model = build()
    values = dict(model.hparams)
    del values["classes"], values["sources"]
    names = {name: name.removeprefix("method.") for name in model.state_dict()}
    assert [name for name in names.values() if name.startswith("text.")] == ["text.mean", "text.basis"]
    earlier = {names[name]: value for name, value in model.state_dict().items()}
    again = Localizer(**values)
    again.load_state_dict(earlier)
    assert list(earlier) == list(names.values())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_inference_loads_no_text_encoder(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = {"state_dict": build().state_dict(), "hyper_parameters": dict(build().hparams)}

    def refuse(*_, **__):
        raise AssertionError("inference needs no text encoder")

    for loader in (transformers.AutoModel, transformers.AutoTokenizer, transformers.CLIPTextModelWithProjection):
        monkeypatch.setattr(loader, "from_pretrained", refuse)
    model = Localizer(**saved["hyper_parameters"])
    model.load_state_dict(saved["state_dict"])
    assert predict(model, load_held_out(MusicFolder(music), "duet", 64)).maps.isfinite().all()


def test_maps(music: Path) -> None:
    model, folder = build(), MusicFolder(music)
    for subset, sources in (("solo", 1), ("duet", 2)):
        test = load_held_out(folder, subset, 64)
        found = predict(model, test)
        assert found.sound.shape == (1, 8, 8)
        assert found.maps.shape == (1, sources, 8, 8)
        assert found.valid.shape == (1, sources)
        assert found.sound.abs().max() <= 1
        assert not found.maps.requires_grad
    assert model.training


def test_the_size_of_a_batch_does_not_matter(music: Path) -> None:
    (music / "metadata" / "music_solo_test.csv").write_text("d,cello\na,cello\nb,cello\n")
    boxes = ", ".join(f'{{"file": "{n}", "class": "cello", "bbox": [0.1, 0.1, 0.5, 0.5]}}' for n in "dab")
    (music / "metadata" / "music_solo.json").write_text(f"[{boxes}]")
    test = load_held_out(MusicFolder(music), "solo", 64)
    model = build()
    torch.testing.assert_close(predict(model, test, 2).sound, predict(model, test, 50).sound, atol=1e-5, rtol=0)


def test_a_checkpoint_is_read_where_its_weights_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of a model that began with pretrained weights holds all that building it takes."""
    trunk = build_trunk(None, 3, (4, 8), (1, 1))
    trunk.save_pretrained(tmp_path / "resnet")
    model = build(visual_weights=str(tmp_path / "resnet"), audio_weights=str(tmp_path / "resnet"))
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, path)
    (tmp_path / "resnet").rename(tmp_path / "elsewhere")
    read = torch.load(path, weights_only=True)
    again = Localizer(**read["hyper_parameters"])
    again.load_state_dict(read["state_dict"])
    frames, waveforms, *_ = batch()
    ours, theirs = (m.eval().encode(frames, waveforms) for m in (model, again))
    assert all(map(torch.equal, ours, theirs))
