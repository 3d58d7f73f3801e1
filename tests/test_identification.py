"""Iterative object identification: equal to a loop over samples, iterations and pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sslosses import identify_objects


def scene(
    batch: int = 3,
    objects: int = 3,
    channels: int = 8,
    size: tuple[int, int] = (4, 5),
    noise: float = 0.1,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Objects and a background, each with its own feature, and a sound that is a mixture of the objects."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64)).Q
    label = torch.randint(0, objects + 2, (batch, *size), generator=generator)
    visual = directions[label].movedim(-1, 1)
    visual = visual + noise * torch.randn(visual.shape, generator=generator, dtype=torch.float64)
    weights = torch.rand(batch, objects, generator=generator, dtype=torch.float64) + 0.5
    return visual, weights @ directions[:objects] + 0.2 * directions[-1]


def cos(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def loop(
    visual: Tensor, audio: Tensor, background_threshold: float = 0.7, merge_threshold: float = 0.6
) -> list[tuple[float, Tensor, Tensor]]:
    """The public code's algorithm for one sample: (peak, map, prototype) of every object."""
    channels, height, width = visual.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    s = {q: cos(visual[:, q[0], q[1]], audio) for q in pixels}
    e = {q: visual[:, q[0], q[1]] * s[q] for q in pixels}
    background = torch.zeros(channels).double()
    for q in pixels:
        background += e[q] * (1 - torch.sigmoid(torch.tensor((s[q] - 0.4) / 0.03).double())) / len(pixels)

    claimed: set[tuple[int, int]] = set()
    candidates: list[tuple[float, Tensor, Tensor]] = []
    while True:
        peak = max((q for q in pixels if q not in claimed), key=lambda q: s[q])
        distance = {q: float((e[q] - e[peak]).norm()) for q in pixels}
        image = torch.tensor([[-distance[y, x] for x in range(width)] for y in range(height)], dtype=torch.float64)
        candidates.append((s[peak], image, e[peak]))
        new = {q for q in pixels if distance[q] < float((e[q] - background).norm())} - claimed
        claimed |= new
        if not new or max((s[q] for q in pixels if q not in claimed), default=0.0) < 0.1:
            break

    group = list(range(len(candidates)))  # union-find without its trees: the group of each prototype
    silent = [cos(c[2], background) > background_threshold for c in candidates]
    for j in range(len(candidates)):
        for k in range(j):
            if not silent[j] and cos(candidates[j][2], candidates[k][2]) > merge_threshold:
                group = [group[j] if g == group[k] else g for g in group]
    members: dict[int, list[int]] = {}
    for j in range(len(candidates)):
        if not silent[j]:
            members.setdefault(group[j], []).append(j)
    return [
        (
            candidates[o[0]][0],
            torch.stack([candidates[i][1] for i in o]).mean(0),
            torch.stack([candidates[i][2] for i in o]).mean(0),
        )
        for o in members.values()
    ]


def agree(actual: Any, visual: Tensor, audio: Tensor, limit: list[int | None]) -> None:
    for b in range(visual.shape[0]):
        expected = loop(visual[b], audio[b])[: limit[b]]
        assert actual.valid[b].tolist() == [i < len(expected) for i in range(actual.valid.shape[1])]
        for m, (peak, image, prototype) in enumerate(expected):
            assert float(actual.peaks[b, m]) == pytest.approx(peak, abs=1e-10)
            torch.testing.assert_close(actual.maps[b, m], image, atol=1e-10, rtol=0)
            torch.testing.assert_close(actual.prototypes[b, m], prototype, atol=1e-10, rtol=0)
        for values in (actual.maps, actual.peaks, actual.prototypes):
            assert not values[b][~actual.valid[b]].any()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), objects=st.integers(1, 4), noise=st.sampled_from([0.02, 0.1, 0.3, 0.6]))
def test_equals_the_loop(seed: int, objects: int, noise: float) -> None:
    visual, audio = scene(2, objects, noise=noise, seed=seed)
    unknown = identify_objects(visual, audio)
    agree(unknown, visual, audio, [None, None])
    assert unknown.maps.shape == (2, int(unknown.valid.sum(1).max()), 4, 5)
    agree(identify_objects(visual, audio, num_sources=2), visual, audio, [2, 2])
    counts = torch.tensor([1, 3])
    known = identify_objects(visual, audio, num_sources=counts)
    assert known.maps.shape == (2, 3, 4, 5)
    agree(known, visual, audio, [1, 3])


def random_maps(seed: int) -> tuple[Tensor, Tensor]:
    """Random unit features, as before training: the largest similarity of some samples is below 0.1."""
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(4, 512, 4, 4, generator=generator, dtype=torch.float64)
    audio = torch.randn(4, 512, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(visual, dim=1), audio


def test_the_first_peak_is_taken_however_low_it_is() -> None:
    low = 0
    for seed in range(5):
        visual, audio = random_maps(seed)
        objects = identify_objects(visual, audio)
        agree(objects, visual, audio, [None] * 4)
        agree(identify_objects(visual, audio, num_sources=2), visual, audio, [2] * 4)
        assert objects.valid.any(1).all()
        low += int((objects.peaks[:, 0] < 0.1).sum())
    assert low > 5
    # Even a sound that fits no pixel has a first peak.
    objects = identify_objects(visual, torch.zeros_like(audio))
    assert objects.valid.tolist() == [[True]] * 4
    assert not objects.peaks.any()


def smooth_maps(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(1, 8, 5, 5, generator=generator, dtype=torch.float64)
    visual = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(visual, (1, 1, 1, 1), "replicate"), 3, 1)
    return visual, torch.randn(1, 8, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("seed", "objects"), [(5, 2), (34, 3), (97, 1), (143, 4)])
def test_objects_are_linked_through_an_earlier_background_prototype(seed: int, objects: int) -> None:
    """Links among the prototypes that are not background alone would leave one object more."""
    visual, audio = smooth_maps(seed)
    found = identify_objects(visual, audio)
    assert found.valid.sum() == objects
    agree(found, visual, audio, [None])


@pytest.mark.parametrize("length", [1e-34, 1e-30, 1e-20, 1e20, 1e30, 1e37])
def test_very_long_and_short_features_are_localized(length: float) -> None:
    """Their squares are outside the range of float32."""
    visual, audio = (x.float() for x in scene())
    visual = visual / visual.abs().max()
    expected, actual = identify_objects(visual, audio), identify_objects(visual * length, audio)
    assert torch.equal(actual.valid, expected.valid)
    torch.testing.assert_close(actual.maps.double() / length, expected.maps.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(actual.prototypes.double() / length, expected.prototypes.double(), atol=1e-5, rtol=0)


def test_the_scenes_exercise_merging_and_the_background() -> None:
    """The result differs if either rule is turned off, so the comparison above covers both."""
    counts = {}
    for name, options in {
        "all": {},
        "unmerged": {"merge_threshold": 1.0},
        "no background": {"background_threshold": 1.0},
    }.items():
        counts[name] = sum(
            int(identify_objects(*scene(3, 3, noise=0.6, seed=seed), **options).valid.sum()) for seed in range(20)
        )
    assert counts["unmerged"] > counts["all"]
    assert counts["no background"] > counts["all"]


def test_finds_the_objects_of_a_clean_scene() -> None:
    left, middle, silent = torch.eye(3).double()
    visual = torch.stack([left, left, middle, silent, silent], 1)[None, :, None]
    objects = identify_objects(visual, torch.tensor([[3.0, 2.0, 0.6]]))
    assert objects.valid.tolist() == [[True, True]]
    assert objects.maps[0, 0, 0].argsort(descending=True)[:2].sort().values.tolist() == [0, 1]
    assert int(objects.maps[0, 1, 0].argmax()) == 2
    padded = identify_objects(visual, torch.tensor([[3.0, 2.0, 0.6]]), num_sources=4)
    assert padded.valid.tolist() == [[True, True, False, False]]
    assert padded.maps.shape == (1, 4, 1, 5)


def test_a_chain_of_links_is_one_object() -> None:
    """Neighbors at a cosine of 0.65, the ends at -0.05; the lengths keep each from claiming the next."""
    angles, lengths = torch.tensor([0.0, 60.0, 120.0]).double().deg2rad(), torch.tensor([2.0, 1.0, 0.6])
    chain = torch.stack([0.7**0.5 * angles.cos(), 0.7**0.5 * angles.sin(), 0.3**0.5 * torch.ones(3)]) * lengths
    visual = torch.zeros(4, 4).double()
    visual[:3, :3], visual[3, 3] = chain, 1
    visual, audio = visual[None, :, None], torch.tensor([[0.3, 0.0, 1.0, 0.3]]).double()
    assert identify_objects(visual, audio, merge_threshold=0.7).valid.sum() == 3
    objects = identify_objects(visual, audio)
    assert objects.valid.sum() == 1
    agree(objects, visual, audio, [None])


def test_limits() -> None:
    visual, audio = scene()
    high: dict[str, Any] = {"peak_threshold": 1.1, "background_threshold": 1.0}
    assert identify_objects(visual, audio, **high).valid.tolist() == [[True]] * 3
    assert identify_objects(visual, audio, **high, num_sources=2).valid.tolist() == [[True, False]] * 3
    assert not identify_objects(visual * torch.nan, audio, num_sources=2).valid.any()
    one = identify_objects(visual, audio, max_iterations=1, background_threshold=1.0)
    assert one.maps.shape[1] == 1
    empty = identify_objects(visual[:0], audio[:0])
    assert empty.maps.shape == (0, 0, 4, 5)
    assert identify_objects(visual[:0], audio[:0], num_sources=2).maps.shape == (0, 2, 4, 5)
    assert identify_objects(visual[..., :1, :1], audio).maps.shape[2:] == (1, 1)


def test_numpy_integers_are_numbers_of_sources() -> None:
    visual, audio = scene()
    objects = identify_objects(visual, audio, num_sources=np.int64(2), max_iterations=np.uint8(5))
    assert torch.equal(objects.maps, identify_objects(visual, audio, num_sources=2, max_iterations=5).maps)


def test_no_cosine_is_above_one() -> None:
    """A threshold of 1 turns its rule off, although rounding makes cosines of equal directions larger than 1."""
    visual = torch.randn(50, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    # The background of a single pixel has the direction of the pixel.
    objects = identify_objects(visual, visual[..., 0, 0], background_threshold=1.0)
    assert objects.valid.all()
    assert objects.valid.shape == (50, 1)
    # Two pixels with one direction: the first is much longer, so it does not claim the second.
    pairs = torch.cat([128 * visual, visual], -1)
    objects = identify_objects(pairs, visual[..., 0, 0], background_threshold=1.0, merge_threshold=1.0)
    assert (objects.valid.sum(1) == 2).all()


def test_samples_do_not_affect_each_other() -> None:
    visual, audio = scene(4)
    together = identify_objects(visual, audio, num_sources=3)
    for b in range(4):
        alone = identify_objects(visual[b : b + 1], audio[b : b + 1], num_sources=3)
        torch.testing.assert_close(alone.maps[0], together.maps[b])
        assert torch.equal(alone.valid[0], together.valid[b])


def test_scale_and_layout() -> None:
    visual, audio = scene()
    expected = identify_objects(visual, audio, num_sources=3)
    scaled = identify_objects(visual * 7, audio * 1e-20, num_sources=3)
    torch.testing.assert_close(scaled.maps, expected.maps * 7)
    assert torch.equal(scaled.valid, expected.valid)
    odd = visual.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    torch.testing.assert_close(identify_objects(odd, audio, num_sources=3).maps, expected.maps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_and_no_gradient(dtype: torch.dtype) -> None:
    visual, audio = scene()
    visual = visual.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objects = identify_objects(visual, audio.to(dtype), num_sources=2)
    assert objects.maps.dtype == objects.peaks.dtype == objects.prototypes.dtype == torch.float32
    assert not objects.maps.requires_grad
    expected = identify_objects(visual.double(), audio.to(dtype).double(), num_sources=2)
    torch.testing.assert_close(objects.maps.double(), expected.maps, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_sources": 0}, ValueError),
        ({"num_sources": 1.5}, TypeError),
        ({"num_sources": torch.ones(3)}, TypeError),
        ({"num_sources": torch.ones(2, dtype=torch.int64)}, ValueError),
        ({"merge_threshold": 2.0}, ValueError),
        ({"peak_treshold": 0.1}, TypeError),
        ({"max_iterations": 0}, ValueError),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        identify_objects(*scene(), **options)
