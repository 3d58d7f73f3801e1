"""Clustering of objects: equal to loops over samples, centers and pixels; right on planted scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sslosses import IdentifiedObjects, cluster_objects, similarity_map

OPTIONS: dict[str, Any] = {
    "weight_temperature": 0.5,
    "start_weight": 0.6,
    "iterations": 10,
    "membership_temperature": 0.1,
    "contrast_weight": 2.0,
    "sound_weight": 1.0,
}
OTHER_OPTIONS: dict[str, Any] = dict(zip(OPTIONS, (0.8, 1.5, 3, 0.3, 0.7, 0.4), strict=True))


def planted(
    batch: int = 3,
    objects: int = 2,
    channels: int = 16,
    noise: float = 0.1,
    seed: int = 0,
    size: tuple[int, int] = (8, 9),
) -> tuple[Tensor, Tensor, Tensor]:
    """Scenes with blocks of 3 × 3 pixels per object, and the label of each pixel: its object, or -1.

    The sound points between the objects, as after training: all of them are about equally similar to it.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64)).Q
    label = torch.full((batch, *size), -1)
    for b in range(batch):
        corners = torch.randperm(6, generator=generator)[:objects]
        for k, corner in enumerate(corners.tolist()):
            y, x = 4 * (corner // 3), 3 * (corner % 3)
            label[b, y : y + 3, x : x + 3] = k
    visual = directions[label].movedim(-1, 1)  # the background has the last direction
    visual = visual + noise * torch.randn(visual.shape, generator=generator, dtype=torch.float64)
    loudness = 1 + 0.1 * torch.rand(batch, objects, generator=generator, dtype=torch.float64)
    return visual, loudness @ directions[:objects], label


def cos(a: Tensor, b: Tensor) -> float:
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths else 0.0


def over_deviation(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    return [v / deviation if deviation > 1e-5 else 0.0 for v in values]


def softmax(values: list[float], temperature: float) -> list[float]:
    parts = [np.exp((v - max(values)) / temperature) for v in values]
    return [part / sum(parts) for part in parts]


def loop(visual: Tensor, audio: Tensor, sources: int, **changed: Any) -> list[tuple[float, list[float], Tensor]]:
    """The four steps for one sample of pixels (N, C): (peak, map, center) per source, by decreasing peak."""
    o = OPTIONS | changed
    u = [v / v.norm() for v in visual]
    pixels = range(len(u))
    similarity = [cos(v, audio) for v in u]
    sound = over_deviation(similarity)
    weights = softmax(sound, o["weight_temperature"])

    centers = [u[max(pixels, key=lambda x: similarity[x])]]
    while len(centers) < sources:
        near = over_deviation([max(cos(v, e) for e in centers) for v in u])
        centers.append(u[max(pixels, key=lambda x: sound[x] - o["start_weight"] * near[x])])
    for _ in range(o["iterations"]):
        sums = [torch.zeros_like(audio) for _ in centers]
        for x in pixels:
            shares = softmax([cos(u[x], e) for e in centers], o["membership_temperature"])
            for k, share in enumerate(shares):
                sums[k] += weights[x] * share * u[x]
        centers = [total / total.norm() for total in sums]

    objects = []
    for k, center in enumerate(centers):
        others = [e for j, e in enumerate(centers) if j != k]
        own = [cos(v, center) for v in u]
        contrast = over_deviation(
            [c - max((cos(v, e) for e in others), default=0) for c, v in zip(own, u, strict=True)]
        )
        a, b = (1, o["contrast_weight"]) if others else (o["sound_weight"], 1)
        image = [a * s + b * d for s, d in zip(sound, contrast, strict=True)]
        objects.append((similarity[max(pixels, key=lambda x: image[x])], image, center))
    return sorted(objects, key=lambda item: -item[0])


def agree(actual: IdentifiedObjects, visual: Tensor, audio: Tensor, counts: list[int], **options: Any) -> None:
    for b, count in enumerate(counts):
        expected = loop(visual[b].flatten(1).T, audio[b], count, **options) if count else []
        assert actual.valid[b].tolist() == [k < count for k in range(actual.valid.shape[1])]
        for k, (peak, image, center) in enumerate(expected):
            assert float(actual.peaks[b, k]) == pytest.approx(peak, abs=1e-10)
            torch.testing.assert_close(
                actual.maps[b, k].flatten(), torch.tensor(image, dtype=torch.float64), atol=1e-8, rtol=0
            )
            torch.testing.assert_close(actual.prototypes[b, k], center, atol=1e-9, rtol=0)
        for values in (actual.maps, actual.peaks, actual.prototypes):
            assert not values[b][~actual.valid[b]].any()


def equal(actual: IdentifiedObjects, expected: IdentifiedObjects, tolerance: float = 1e-9) -> None:
    for value, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(value.double(), wanted.double(), atol=tolerance, rtol=tolerance)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10_000),
    objects=st.integers(1, 4),
    noise=st.sampled_from([0.1, 0.3, 1.0]),
    options=st.sampled_from([OPTIONS, OTHER_OPTIONS]),
)
def test_equals_the_loop(seed: int, objects: int, noise: float, options: dict[str, Any]) -> None:
    visual, audio, _ = planted(2, objects, noise=noise, seed=seed, size=(7, 9))
    for sources in (1, 2, 3):
        agree(cluster_objects(visual, audio, num_sources=sources, **options), visual, audio, [sources] * 2, **options)
    counts = torch.tensor([0, 3])
    agree(cluster_objects(visual, audio, num_sources=counts, **options), visual, audio, [0, 3], **options)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_each_map_is_highest_on_its_own_object(sources: int, noise: float) -> None:
    visual, audio, label = planted(20, sources, noise=noise)
    objects = cluster_objects(visual, audio, num_sources=sources)
    assert objects.valid.all()
    found = label.flatten(1).gather(1, objects.maps.flatten(2).argmax(-1))
    assert found.sort(1).values.tolist() == [list(range(sources))] * 20


def test_the_map_of_the_sound_alone_is_not_enough() -> None:
    """The scenes are hard: the largest similarities of the sound do not tell which object is which."""
    visual, audio, label = planted(20, 2)
    best = similarity_map(visual, audio).flatten(1).topk(9).indices
    both = [len(set(labels)) == 2 for labels in label.flatten(1).gather(1, best).tolist()]
    assert sum(both) > 15


def test_finds_the_number_of_planted_objects() -> None:
    for sources in (1, 2, 3):
        visual, audio, _ = planted(20, sources)
        objects = cluster_objects(visual, audio, max_sources=4)
        assert objects.valid.sum(1).tolist() == [sources] * 20
        assert objects.maps.shape == (20, sources, 8, 9)
        equal(objects, cluster_objects(visual, audio, num_sources=sources))
        few = cluster_objects(visual, audio)  # at most 2
        assert few.valid.sum(1).tolist() == [min(sources, 2)] * 20


def test_the_number_found_depends_on_the_threshold() -> None:
    visual, audio, _ = planted(4, 2)
    assert cluster_objects(visual, audio, separation_threshold=0.0).valid.sum(1).tolist() == [2] * 4
    assert cluster_objects(visual, audio, separation_threshold=2.0).valid.sum(1).tolist() == [1] * 4
    one_pixel = cluster_objects(torch.ones(1, 1, 1, 1), torch.ones(1, 1), separation_threshold=0.0)
    assert one_pixel.valid.tolist() == [[True, True]]  # a difference of 0 is enough
    known = cluster_objects(visual, audio, num_sources=2).prototypes
    distance = float((1 - (known[:, 0] * known[:, 1]).sum(-1)).median())
    found = cluster_objects(visual, audio, separation_threshold=distance).valid.sum(1)
    assert set(found.tolist()) == {1, 2}


def test_a_number_per_sample_is_each_number_alone() -> None:
    visual, audio, _ = planted(4, 3)
    for dtype in (torch.int64, torch.uint8):
        counts = torch.tensor([2, 0, 3, 1], dtype=dtype)
        together = cluster_objects(visual, audio, num_sources=counts)
        assert together.maps.shape == (4, 3, 8, 9)
        for b, count in enumerate(counts.tolist()):
            one = IdentifiedObjects(*(x[b : b + 1, :count] for x in together))
            assert together.valid[b].sum() == count
            assert not together.maps[b, count:].any()
            if count:
                equal(one, cluster_objects(visual[b : b + 1], audio[b : b + 1], num_sources=count))
    none = cluster_objects(visual, audio, num_sources=torch.zeros(4, dtype=torch.int64))
    assert none.maps.shape == (4, 0, 8, 9)


def test_sorted_by_peak_at_the_largest_value_of_each_map() -> None:
    visual, audio, _ = planted(10, 3, noise=0.3)
    objects = cluster_objects(visual, audio, num_sources=3)
    assert (objects.peaks[:, :-1] >= objects.peaks[:, 1:]).all()
    similarity = similarity_map(visual, audio).flatten(1)
    torch.testing.assert_close(objects.peaks, similarity.gather(1, objects.maps.flatten(2).argmax(-1)))
    torch.testing.assert_close(objects.prototypes.norm(dim=-1), torch.ones(10, 3).double())


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    sources=st.sampled_from([1, 2, 3, None]),
    scale=st.sampled_from([1e-30, 1e-3, 7.0, 1e30]),
)
def test_pixels_may_come_in_any_order_and_at_any_scale(seed: int, sources: int | None, scale: float) -> None:
    visual, audio, _ = planted(2, 3, noise=0.5, seed=seed)
    options = {"num_sources": sources, "max_sources": 3}
    expected = cluster_objects(visual, audio, **options)
    order = torch.randperm(72, generator=torch.Generator().manual_seed(seed))
    shuffled = cluster_objects(visual.flatten(2)[..., order].view(visual.shape), audio, **options)
    equal(shuffled, expected._replace(maps=expected.maps.flatten(2)[..., order].view(expected.maps.shape)), 1e-7)
    flipped = cluster_objects(visual.flip(-1), audio, **options)
    equal(flipped, expected._replace(maps=expected.maps.flip(-1)), 1e-7)
    lengths = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(seed)).double() + 0.1
    equal(cluster_objects(visual * lengths * scale, audio / scale, **options), expected, 1e-7)


@pytest.mark.parametrize("filler", [0.0, 1e30, torch.nan, torch.inf])
@pytest.mark.parametrize("sources", [1, 2, None])
def test_padding_is_like_cropping(filler: float, sources: int | None) -> None:
    visual, audio, _ = planted(3, 2)
    padded, mask = torch.full((3, 16, 10, 12), filler).double(), torch.zeros(3, 10, 12, dtype=torch.bool)
    padded[..., 1:9, 2:11], mask[:, 1:9, 2:11] = visual, True
    expected = cluster_objects(visual, audio, num_sources=sources)
    actual = cluster_objects(padded, audio, num_sources=sources, mask=mask)
    equal(actual._replace(maps=actual.maps[..., 1:9, 2:11]), expected)
    lowest = expected.maps.flatten(2).amin(-1, keepdim=True)
    outside = actual.maps.flatten(2)[..., ~mask[0].flatten()]
    torch.testing.assert_close(outside, lowest.expand(outside.shape))
    odd = mask.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    equal(cluster_objects(padded, audio, num_sources=sources, mask=odd), actual)
    none = cluster_objects(
        padded, audio, num_sources=sources, mask=mask & torch.tensor([True, False, True])[:, None, None]
    )
    assert none.valid.any(1).tolist() == [True, False, True]
    equal(IdentifiedObjects(*(x[::2] for x in none)), IdentifiedObjects(*(x[::2] for x in actual)))
    assert not any(x[1].any() for x in none)


def test_padding_does_not_count_even_where_all_similarities_are_negative() -> None:
    """The similarity of padding, 0, is then the largest of all pixels."""
    visual, audio, _ = planted(3, 2, noise=0.3)
    visual, audio = visual.abs(), -audio.abs()
    assert (similarity_map(visual, audio) < 0).all()
    padded, mask = torch.nn.functional.pad(visual, (0, 3, 0, 2)), torch.zeros(3, 10, 12, dtype=torch.bool)
    mask[:, :8, :9] = True
    for temperature in (0.5, 1e-3):
        options = {"num_sources": 2, "weight_temperature": temperature}
        actual = cluster_objects(padded, audio, mask=mask, **options)
        equal(actual._replace(maps=actual.maps[..., :8, :9]), cluster_objects(visual, audio, **options))


def test_peaks_of_constant_maps_are_of_pixels_that_count() -> None:
    mask = torch.tensor([[[False, True]]])
    objects = cluster_objects(torch.ones(1, 2, 1, 2), torch.ones(1, 2), num_sources=2, mask=mask)
    torch.testing.assert_close(objects.peaks, torch.ones(1, 2))


def test_equal_centers_give_equal_maps() -> None:
    """One distinct feature besides the silent one, however many sources are asked for."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        sounding, silent = torch.randn(2, 64, generator=generator).to(dtype)
        visual = torch.stack([sounding, silent, sounding, silent, silent, silent, silent], 1)[None, :, None]
        for sources in (2, 3):
            objects = cluster_objects(visual, sounding[None], num_sources=sources, start_weight=0.0)
            assert objects.valid.all()
            assert torch.equal(objects.maps, objects.maps[:, :1].expand_as(objects.maps))
            assert torch.equal(objects.prototypes, objects.prototypes[:, :1].expand_as(objects.prototypes))
            assert objects.maps[0, 0, 0].argsort(descending=True)[:2].sort().values.tolist() == [0, 2]
        assert cluster_objects(visual, sounding[None], max_sources=3, start_weight=0.0).valid.shape == (1, 1)


def test_a_difference_within_rounding_is_no_contrast() -> None:
    """In float64 too, which could resolve it."""
    for difference, seen in ((1e-6, False), (1e-3, True)):
        left, right = torch.tensor([1.0, difference]), torch.tensor([1.0, -difference])
        visual = torch.stack([left, right], 1)[None, :, None].double()
        for dtype in (torch.float32, torch.float64):
            maps = cluster_objects(visual.to(dtype), torch.tensor([[0.0, 1.0]])).maps
            assert bool(maps.any()) == seen


def test_rounding_does_not_drive_equal_centers_apart() -> None:
    """All centers start at copies of one pixel, which differ by rounding. Alone, they would drift apart."""
    ends = set()
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        first, second = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q[:2]
        copies = torch.stack([first] * 128 + [second] * 128, 1) * (1 + 1e-6 * torch.randn(16, 256, generator=generator))
        options = {"num_sources": 4, "start_weight": 0.9, "weight_temperature": 10.0, "iterations": 50}
        centers = cluster_objects(copies[None, :, None], first[None], **options).prototypes
        ends |= {round(cosine, 3) for cosine in (centers @ first).flatten().tolist()}
    assert ends == {0.774}


def test_of_equal_pixels_the_first_is_taken() -> None:
    left, right = torch.eye(2).double()
    visual = torch.stack([left, right], 1)[None, :, None]
    objects = cluster_objects(visual, torch.ones(1, 2), num_sources=2)
    assert objects.maps[0, :, 0].argmax(-1).tolist() == [0, 1]
    flipped = cluster_objects(visual.flip(-1), torch.ones(1, 2), num_sources=2)
    torch.testing.assert_close(flipped.maps, objects.maps)


@pytest.mark.parametrize("sources", [1, 2, 3])
def test_constant_maps_are_zero(sources: int) -> None:
    flat = torch.randn(2, 8, 1, 1, generator=torch.Generator().manual_seed(0)).expand(2, 8, 4, 5)
    for visual, audio in ((flat, flat[..., 0, 0]), (flat, torch.zeros(2, 8)), (flat * 0, flat[..., 0, 0])):
        objects = cluster_objects(visual, audio, num_sources=sources)
        assert objects.valid.all()
        assert not objects.maps.any()
        assert objects.prototypes.isfinite().all()
    objects = cluster_objects(flat[..., :1, :1], flat[..., 0, 0], num_sources=sources)
    torch.testing.assert_close(objects.peaks, torch.ones(2, sources))


def test_a_center_without_members_stays() -> None:
    """At a tiny temperature, no pixel with a weight is nearer to the second center than to the first."""
    visual = torch.eye(3)[:, [0, 1, *[2] * 62]].reshape(1, 3, 8, 8)
    objects = cluster_objects(
        visual, torch.tensor([[1.0, 0.5, 0.0]]), num_sources=2, weight_temperature=1e-44, membership_temperature=1e-44
    )
    torch.testing.assert_close(objects.prototypes[0], torch.eye(3)[:2])


@pytest.mark.parametrize("filler", [torch.nan, torch.inf, -torch.inf])
def test_a_sample_with_nan_or_inf_has_no_objects(filler: float) -> None:
    visual, audio, _ = planted(3, 2)
    spoiled = visual.clone()
    spoiled[1, 3, 2, 2] = filler
    sound = audio.clone()
    sound[1, 0] = filler
    for sources in (1, 2, None):
        expected = cluster_objects(visual, audio, num_sources=sources)
        for inputs in ((spoiled, audio), (visual, sound)):
            objects = cluster_objects(*inputs, num_sources=sources)
            assert not any(x[1].any() for x in objects)
            equal(IdentifiedObjects(*(x[::2] for x in objects)), IdentifiedObjects(*(x[::2] for x in expected)))


def test_limits() -> None:
    visual, audio, _ = planted()
    assert cluster_objects(visual[:0], audio[:0]).maps.shape == (0, 0, 8, 9)
    assert cluster_objects(visual[:0], audio[:0], num_sources=3).maps.shape == (0, 3, 8, 9)
    none = torch.zeros(0, dtype=torch.int64)
    assert cluster_objects(visual[:0], audio[:0], num_sources=none).maps.shape == (0, 0, 8, 9)
    assert cluster_objects(visual[..., :1, :1], audio).maps.shape == (3, 1, 1, 1)
    assert cluster_objects(visual, audio, num_sources=np.int64(2)).maps.shape == (3, 2, 8, 9)
    many = cluster_objects(visual[..., :2, :2], audio, num_sources=20)
    assert many.maps.shape == (3, 20, 2, 2)
    assert all(x.isfinite().all() for x in many)
    assert not cluster_objects(visual, audio, mask=torch.zeros(3, 8, 9, dtype=torch.bool)).valid.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_and_no_gradient(dtype: torch.dtype) -> None:
    visual, audio, _ = planted()
    visual = visual.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objects = cluster_objects(visual, audio.to(dtype), num_sources=2)
    assert objects.maps.dtype == objects.peaks.dtype == objects.prototypes.dtype == torch.float32
    assert not objects.maps.requires_grad
    equal(objects, cluster_objects(visual.double(), audio.to(dtype).double(), num_sources=2), 1e-4)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_sources": 0}, ValueError),
        ({"num_sources": 1.5}, TypeError),
        ({"num_sources": torch.ones(3)}, TypeError),
        ({"num_sources": torch.ones(2, dtype=torch.int64)}, ValueError),
        ({"num_sources": torch.tensor([1, -1, 2])}, ValueError),
        ({"mask": torch.ones(3, 8, 9)}, TypeError),
        ({"mask": [True]}, TypeError),
        ({"mask": torch.ones(3, 9, 8, dtype=torch.bool)}, ValueError),
        ({"mask": torch.ones(3, 8, 9, dtype=torch.bool, device="meta")}, ValueError),
        ({"max_sources": 0}, ValueError),
        ({"separation_threshold": 2.1}, ValueError),
        ({"separation_threshold": -0.1}, ValueError),
        ({"weight_temperature": 0.0}, ValueError),
        ({"membership_temperature": 0.0}, ValueError),
        ({"start_weight": -1.0}, ValueError),
        ({"contrast_weight": -1.0}, ValueError),
        ({"sound_weight": -1.0}, ValueError),
        ({"iterations": 0}, ValueError),
        ({"iteration": 1}, TypeError),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        cluster_objects(*planted()[:2], **options)
