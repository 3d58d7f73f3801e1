"""Every method: a step of each stage, its maps by each identification, its state, and what is special to it."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from avsl.config import METHODS, TWO_WAYS, Config
from avsl.data.loading import Clips, SceneBatch
from avsl.methods import method_class
from avsl.model.encoders import Encoded, Features, Tower
from avsl.model.localizer import Localizer
from torch import Tensor

from sslosses import text_guided_maps, text_guided_queries

from ..conftest import TINY

CLASSES = ("cello", "drum", "flute")
TRAINED = 9  # clips
EPOCHS = 4
#: Options that a method needs to be small.
OPTIONS = {"avgn": ("heads=2", "depth=1")}
STAGED = ("coarse-to-fine", "dsol")
#: What the loss of an epoch does not use, by the beginning of the names of parameters.
HEADS = ("visual.head", "audio.head")
UNUSED = {
    ("coarse-to-fine", 0): (*HEADS, "method.visual_space", "method.audio_space"),
    ("coarse-to-fine", 1): (*HEADS, "method.visual_space", "method.audio_space"),
    ("coarse-to-fine", 2): HEADS,
    ("dmc", 0): HEADS[1:],
    ("dsol", 0): ("method.visual_classes", "method.audio_classes", "method.map_"),
    ("dsol", 1): ("method.map_",),
    ("dsol", 2): ("method.visual_classes", "method.audio_classes"),
    ("mix-and-localize", 0): HEADS[1:],
    ("t-vsl", 0): HEADS[1:],
}
STEPS = [(name, epoch) for name in METHODS for epoch in ((0, 1, 2) if name in STAGED else (0,))]


def build(name: str, epoch: int = -1, **changes: object) -> Localizer:
    """A model of the method, prepared for an epoch."""
    torch.manual_seed(0)
    options = {"method": name, "method_options": OPTIONS.get(name, ()), "embedding_dim": 8, "epochs": EPOCHS}
    config = Config(**TINY | options | {"ori_tol": 0.1} | changes)
    text = 10 if name == "object-aware" else 0
    model = Localizer(config.as_dict(), text, classes=CLASSES, sources=2)
    if text:
        model.method.text.fit(torch.randn(30, text), 1.0)
    if model.method.needs_class_text:
        model.method.set_class_text(torch.randn(len(CLASSES), 10))
    model.log_dict = lambda *_, **__: None
    start(model, *range(epoch + 1))
    return model.train()


def start(model: Localizer, *epochs: int) -> None:
    for epoch in epochs:
        model.eval()
        model.method.start_epoch(epoch, model.encoders, clips())
    model.train()


def inputs(count: int, seed: int, width: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(256, (count, 3, 32, 32 * width), dtype=torch.uint8, generator=generator)
    return frames, 0.1 * torch.randn(count, 4_000, generator=generator)


def clips() -> Iterator[Clips]:
    frames, waveforms = inputs(TRAINED, 2)
    for part in torch.arange(TRAINED).split(5):
        yield Clips(part, frames[part], waveforms[part])


def batch(count: int = 4, width: int = 1, present: tuple[int, ...] = (1,)) -> SceneBatch:
    """Scenes of ``width`` clips; they have in turn as many sources as ``present`` says."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.arange(2) < torch.tensor([present[i % len(present)] for i in range(count)])[:, None]
    return SceneBatch(
        *inputs(count, 1, width),
        torch.randn(count, 2, 10, generator=generator),
        torch.randn(count, 10, generator=generator),
        mask,
        torch.ones(count, dtype=torch.bool),
        torch.tensor([[0, 1], [2, 0], [1, 2]]).repeat(count, 1)[:count].where(mask, -1),
        torch.arange(count * width).view(count, width) % TRAINED,
    )


def encode(model: Localizer, scenes: SceneBatch) -> Encoded:
    with torch.no_grad():
        return model.eval().encode(scenes.frames, scenes.waveforms)


SCENES = {
    "one clip": {},
    "one or two sources": {"present": (1, 2)},
    "no clip of one source": {"present": (2,)},
    "two clips": {"width": 2, "present": (2,)},
}


# Steps


@pytest.mark.parametrize("scenes", SCENES)
@pytest.mark.parametrize(("name", "epoch"), STEPS)
def test_a_step(name: str, epoch: int, scenes: str) -> None:
    """All terms are finite, and so are the gradients, which all parameters have that the loss should use."""
    model = build(name, epoch, mirror=False)
    nothing_to_mix = (name, scenes) == ("mix-and-localize", "no clip of one source")
    told = pytest.warns(UserWarning, match="has 0 scenes of one source") if nothing_to_mix else contextlib.nullcontext()
    with told:
        loss = model.training_step(batch(**SCENES[scenes]), 0)
    loss.backward()
    unused = UNUSED.get((name, epoch), ())
    for parameter_name, parameter in model.named_parameters():
        expected = parameter.requires_grad and not parameter_name.startswith(unused)
        assert (parameter.grad is not None) == expected, parameter_name
        assert parameter.grad is None or parameter.grad.isfinite().all()
    assert not unused or model.method.leaves_parameters_unused  # DistributedDataParallel has to know
    for encoder in ("visual", "audio"):
        trunk = getattr(model, encoder).trunk
        assert nothing_to_mix or any(parameter.grad.abs().max() > 0 for parameter in trunk.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_only_methods_that_leave_parameters_unused_say_so(name: str) -> None:
    assert build(name).method.leaves_parameters_unused == (name in {name for name, _ in UNUSED})


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
@pytest.mark.parametrize(("name", "epoch"), STEPS)
def test_precisions(name: str, epoch: int, precision: str) -> None:
    """Close to float32, also while an epoch is prepared."""
    scenes = batch(8)
    expected = build(name, epoch, mirror=False).training_step(scenes, 0)
    model = build(name, mirror=False)
    if precision == "float64":
        model.double()
        scenes = SceneBatch(*(value.double() if value.is_floating_point() else value for value in scenes))
    start(model, *range(epoch + 1))
    torch.manual_seed(0)
    context = torch.autocast("cpu") if precision == "bfloat16" else contextlib.nullcontext()
    with context:
        loss = model.training_step(scenes, 0)
    loss.backward()
    assert loss.isfinite()
    if name != "avgn":  # drops paths at random
        torch.testing.assert_close(loss.float(), expected, rtol=0.2 if precision == "bfloat16" else 0.01, atol=0.01)


@pytest.mark.parametrize(("name", "epoch"), STEPS)
def test_random_numbers_are_seeded(name: str, epoch: int) -> None:
    """Neither what is prepared nor, with the seed that a batch sets, a step depends on the state before."""
    states = []
    for seed in (5, 6):
        model = build(name, mirror=False)
        torch.manual_seed(seed)
        start(model, *range(epoch + 1))
        torch.manual_seed(0)
        model.training_step(batch(), 0).backward()
        states.append([model.state_dict(), [parameter.grad for parameter in model.parameters()]])
    torch.testing.assert_close(*states, rtol=0, atol=0)


CHANCE = {"attention10k": 0.25, "ez-vsl": 2 * math.log(4), "mix-and-localize": math.log(2), "dsol": math.log(2)}
CHANCE["t-vsl"] = 2 * math.log(3) + math.log(4) + math.log(2)  # both classes, the contrast, the presence


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_learned(name: str) -> None:
    model = build(name, 0, rate=1e-2, visual_rate=1e-2, mirror=False, ori_weight=0.0)
    scenes = batch()
    optimizer = torch.optim.AdamW(model.configure_optimizers().param_groups)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(model.training_step(scenes, 0))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.98 * losses[0]
    assert losses[-1] < CHANCE.get(name, math.inf)


# Maps


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("epoch", [-1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_maps_of_every_identification(name: str, epoch: int, width: int) -> None:
    """Untrained too, when nothing is prepared."""
    model = build(name, epoch)
    encoded = encode(model, batch(3, width))
    shape = encoded.visual.shape[2:]
    assert model.sound_map(encoded).shape == (3, *shape)
    assert model.sound_map(encoded).flatten(1).std(1).min() > 0
    for identification in model.method.identifications:
        classes = torch.tensor([[0, 1], [1, 2], [2, 2]]) if identification == "given" else None
        for number in (1, 2, None):
            maps, valid, _ = model.source_maps(
                encoded, number, identification, classes if classes is None else classes[:, : number or 2]
            )
            assert maps.shape == (*valid.shape, *shape)
            assert maps.isfinite().all()
            assert identification in TWO_WAYS or valid[:, 0].all()  # those may take all pixels for background
            assert number is None or valid.shape[1] == number


@pytest.mark.parametrize(("name", "epoch"), STEPS)
def test_a_checkpoint_has_all_state(name: str, epoch: int) -> None:
    """Opened as a checkpoint is, the model has the same maps, and goes on with the same steps."""
    model = build(name, epoch, mirror=False)
    buffer = io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, buffer)
    buffer.seek(0)
    read = torch.load(buffer, weights_only=True)
    torch.manual_seed(9)
    again = Localizer(**read["hyper_parameters"])
    again.load_state_dict(read["state_dict"])
    again.log_dict = lambda *_, **__: None
    results = []
    for each in (model, again):
        encoded = encode(each, batch(width=2))
        ways = [way for way in each.method.identifications if way != "given"]
        maps = [each.sound_map(encoded), *(each.source_maps(encoded, 2, way)[0] for way in ways)]
        start(each, epoch + 1)
        torch.manual_seed(0)
        each.training_step(batch(), 0).backward()
        results.append([*maps, *(parameter.grad for parameter in each.parameters()), each.state_dict()])
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_frozen_towers(name: str, cached: bool, clip: str, clap: str) -> None:
    """CLIP and CLAP, whose sounds have one vector; also from their features, if the method does not mix sounds."""
    towers = {"backbone": "clip-clap", "visual_weights": clip, "audio_weights": clap, "image_size": 32}
    model = build(name, mirror=False, **towers)
    if cached and model.method.needs_waveforms:
        return

    check_frozen(model, cached=cached)


@pytest.mark.parametrize("name", METHODS)
def test_frozen_towers_with_a_map_of_the_sound(name: str, audioclip: str) -> None:
    """AudioCLIP, whose sounds have a map of features; from its features, unless the method mixes sounds."""
    towers = {"backbone": "audioclip", "visual_weights": audioclip, "audio_weights": audioclip, "smoke_test": True}
    model = build(name, mirror=False, **towers)
    check_frozen(model, cached=not model.method.needs_waveforms, enlarged=3)


def check_frozen(model: Localizer, *, cached: bool, enlarged: int = 1) -> None:
    """Trains for three epochs, with frames of ``enlarged`` times the size."""

    def read(tower: Tower, values: Tensor) -> Tensor | Features:
        if values.ndim == 4:
            values = values.repeat_interleave(enlarged, 2).repeat_interleave(enlarged, 3)
        with torch.no_grad():
            return Features(tower.features(values)) if cached else values

    def all_clips() -> Iterator[Clips]:
        for part in clips():
            yield Clips(part.indices, read(model.visual, part.frames), read(model.audio, part.waveforms))

    scenes = batch()
    scenes = scenes._replace(frames=read(model.visual, scenes.frames), waveforms=read(model.audio, scenes.waveforms))
    for epoch in range(3):
        model.method.start_epoch(epoch, model.encoders, all_clips())
        loss = model.training_step(scenes, 0)
        loss.backward()
        assert loss.isfinite()
    assert all(p.grad is None for encoder in (model.visual, model.audio) for p in encoder.tower.parameters())
    encoded = encode(model, scenes)
    assert model.source_maps(encoded, 2, model.method.identifications[-2])[0].isfinite().all()


# What is special


def test_a_mirrored_mixture_has_its_clips_in_the_order_of_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else methods that know the label of each frame would learn that of another one."""
    model, seen = build("dsol", 1), []
    monkeypatch.setattr(model, "_is_mirrored", lambda _: True)
    monkeypatch.setattr(model.method, "loss", lambda scenes, _: seen.append(scenes) or {"total": torch.zeros(())})
    scenes = batch(width=2)
    model.training_step(scenes, 0)
    assert torch.equal(seen[0].frames[..., :32], scenes.frames[..., 32:].flip(3))
    assert torch.equal(seen[0].clips, scenes.clips.flip(1))


def test_the_second_stage_of_dsol_keeps_the_clusters_that_its_teacher_knows() -> None:
    model = build("dsol", 1)
    method = model.method
    assert not method.second_stage
    dictionary, labels = method.dictionary.clone(), method.labels.clone()
    for head in (method.visual_classes, method.audio_classes):
        torch.nn.init.normal_(head.weight)
    start(model, 2)
    assert method.second_stage
    assert torch.equal(method.dictionary, dictionary)
    assert torch.equal(method.labels, labels)
    assert torch.equal(method.teacher_classes.weight, method.audio_classes.weight)
    torch.testing.assert_close(method.teacher.state_dict(), model.audio.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("epochs", [2, 4, 10])
def test_dsol_has_a_classifier_before_its_second_stage(epochs: int, caplog: pytest.LogCaptureFixture) -> None:
    model = build("dsol", epochs=epochs, method_options=("first_stage=0.5",))
    stages = []
    for epoch in range(epochs):
        start(model, epoch)
        stages.append(model.method.second_stage)
    assert stages == [epoch >= max(2, epochs // 2) for epoch in range(epochs)]
    assert ("at least 3 epochs" in caplog.text) == (epochs < 3)


def test_the_teacher_of_dsol_decides_what_is_heard() -> None:
    """The sound network goes on learning in the second stage, and its classifier does not."""
    model, scenes = build("dsol", 2), batch()
    scores = model.method.own_maps(encode(model, scenes), 2).scores
    assert scores.std(1).min() > 0
    with torch.no_grad():
        for parameter in model.audio.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(model.method.own_maps(encode(model, scenes), 2).scores, scores, rtol=0, atol=0)
    model = build("dsol", 1)
    encoded = encode(model, scenes)
    heard = model.method.audio_classes(encoded.sound.amax((2, 3))).softmax(1)
    torch.testing.assert_close(model.method.own_maps(encoded, 2).scores, heard)


def pixels(encoded: Encoded) -> Iterator[tuple[int, int, int]]:
    yield from torch.cartesian_prod(*map(torch.arange, (len(encoded.visual), *encoded.visual.shape[2:]))).tolist()


def test_the_map_of_ots_is_of_the_products_that_it_learns() -> None:
    model = build("ots")
    with torch.no_grad():
        model.method.correspondence.scale.fill_(0.5)
        model.method.correspondence.bias.fill_(-2.0)
    encoded = encode(model, batch())
    found = model.sound_map(encoded)
    for b, y, x in pixels(encoded):
        torch.testing.assert_close(found[b, y, x], 0.5 * encoded.visual[b, :, y, x] @ encoded.audio[b] - 2)
    model = build("ots", method_options=("normalize=true", "scale=3"))
    cosines = F.cosine_similarity(encoded.visual, encoded.audio[..., None, None], dim=1)
    torch.testing.assert_close(model.sound_map(encoded), 3 * cosines)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_map_of_dmc_is_of_the_distances_that_it_learns(normalize: bool) -> None:
    model = build("dmc", method_options=(f"normalize={normalize}",))
    encoded = encode(model, batch())
    cells, frames = model.method.sound(encoded.sound), encoded.visual
    if normalize:
        cells, frames = F.normalize(cells, dim=1), F.normalize(frames, dim=1)
    found = model.sound_map(encoded)
    for b, y, x in pixels(encoded):
        expected = -(frames[b, :, y, x] - cells[b].mean((1, 2))).norm()
        torch.testing.assert_close(found[b, y, x], expected)


def test_dmc_needs_a_cluster_for_the_background() -> None:
    with pytest.raises(ValueError, match="Expected `visual_clusters` to be at least 2, but got 1"):
        build("dmc", method_options=("visual_clusters=1",))


def test_the_map_of_coarse_to_fine_is_the_mean_of_those_of_the_classes_that_are_heard() -> None:
    model, scenes = build("coarse-to-fine", 2), batch()
    torch.nn.init.normal_(model.method.audio_classes.weight, std=2.0)
    encoded = encode(model, scenes)
    maps, heard, threshold = model.method.own_maps(encoded, None)
    assert (heard > threshold).any()
    assert (heard < threshold).any()
    found = model.sound_map(encoded)
    for b in range(len(found)):
        classes = {i for i, p in enumerate(heard[b]) if p > threshold} | {int(heard[b].argmax())}
        expected = sum(heard[b, i] * maps[b, i] for i in classes) / sum(heard[b, i] for i in classes)
        torch.testing.assert_close(found[b], expected)


def test_the_frames_of_a_mixture_have_to_be_whole_in_its_map() -> None:
    model, scenes = build("mix-and-localize", image_size=36, mirror=False), batch(width=2, present=(2,))
    scenes = scenes._replace(frames=scenes.frames.repeat(1, 1, 1, 2)[..., :72])
    with pytest.raises(ValueError, match=r"Expected `image_size` to be a multiple of the stride .* but got 36"):
        model.training_step(scenes, 0)


@contextlib.contextmanager
def counted_names() -> Iterator[list[int]]:
    """Yields the numbers of names that T-VSL computes maps for, call by call."""
    counts: list[int] = []

    def maps(visual: Tensor, audio: Tensor, text: Tensor, **options: object) -> Tensor:
        counts.append(text.shape[1])
        return text_guided_maps(visual, audio, text, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avsl.methods.t_vsl.text_guided_maps", maps)
        yield counts


def test_the_maps_of_t_vsl_are_those_of_the_names_of_all_classes() -> None:
    model = build("t-vsl", method_options=("normalize_audio=true",))
    method, encoded = model.method, encode(model, batch())
    for parameter in method.heads.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    names = method.names.expand(4, -1, -1)
    inputs = encoded.visual, method.sound(encoded.sound), names
    options = {"heads": method.heads, "normalize_audio": True}
    presence, queries, pixels = text_guided_queries(*inputs, **options)
    maps, scores, threshold = method.own_maps(encoded, 2)
    index = torch.tensor([[2, 0], [1, 1], [0, 2], [1, 0]])
    expected = text_guided_maps(*inputs, **options)[torch.arange(4)[:, None], index]
    torch.testing.assert_close(maps(index), expected)
    for way, chosen in (("given", index), ("own", presence.topk(2).indices)):
        with counted_names() as counts:
            found = model.source_maps(encoded, 2, way, index if way == "given" else None).maps
        assert counts == [2]  # of three: the other maps are not computed
        expected = text_guided_maps(*inputs, **options)[torch.arange(4)[:, None], chosen]
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(scores, presence)
    assert threshold == 0
    sound = torch.einsum("bk,bkc->bc", presence.sigmoid(), queries)
    torch.testing.assert_close(model.sound_map(encoded), F.cosine_similarity(pixels, sound[..., None, None], dim=1))


class Opposite(torch.nn.Module):
    """Says that nothing is there which resembles a vector of ones."""

    def forward(self, both: Tensor) -> Tensor:
        return -torch.ones_like(both)


def test_the_sound_of_t_vsl_has_a_direction_even_if_no_class_is_probable() -> None:
    model = build("t-vsl", method_options=("whiten=false",), embedding_dim=10)
    model.method.set_class_text(1 + 0.1 * torch.randn(3, 10))
    model.method.heads.fusion = Opposite()
    encoded = encode(model, batch())
    assert not model.method.own_maps(encoded, 2).scores.sigmoid().any()  # in float32
    assert model.method.features(encoded)[1].norm(dim=1).min() > 0.1


def test_the_text_of_t_vsl() -> None:
    """Whitened, or as it is, if it has the size of the space that frames and sounds share."""
    generator = torch.Generator().manual_seed(7)
    features = 3 + torch.randn(3, 8, generator=generator)
    model = build("t-vsl", method_options=("whiten=false",), embedding_dim=10)
    with pytest.raises(ValueError, match=r"Expected `embedding_dim` to be 8, the size of the text .* but got 10"):
        model.method.set_class_text(features)
    model = build("t-vsl")
    model.method.set_class_text(features)
    assert F.cosine_similarity(features[0], features[1], dim=0) > 0.8
    assert F.cosine_similarity(*model.method.names[:2], dim=0) < 0.1
    with pytest.raises(ValueError, match=r"at least two classes .* but got 1"):
        model.method.set_class_text(features[:1])
    model = build("t-vsl", method_options=("whiten=false",), embedding_dim=10)
    same = torch.randn(3, 10, generator=generator)
    model.method.set_class_text(same)
    assert torch.equal(model.method.names, same)
    with pytest.raises(ValueError, match=r"Expected `scale` to be above 0, but got -1.0"):
        build("t-vsl", method_options=("scale=-1",))


def test_only_t_vsl_reads_class_names() -> None:
    assert [name for name in METHODS if method_class(name).needs_class_text] == ["t-vsl"]
    with pytest.raises(NotImplementedError, match="Lvs reads no class names"):
        build("lvs").method.set_class_text(torch.zeros(3, 10))
