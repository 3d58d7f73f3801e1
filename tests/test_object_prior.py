"""Maps of objects and their blend with the map of a sound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sslosses import blend_maps, object_prior
from sslosses.metrics import protocols

FEATURES = torch.tensor([[[[1.0, -3.0], [2.0, 0.0]], [[0.0, 1.0], [4.0, -2.0]]]], dtype=torch.float64)
PRIOR = torch.tensor([[[0.5, 2.0], [3.0, 1.0]]], dtype=torch.float64)
SOUND = torch.tensor([[[0.1, 0.5], [0.3, 0.2]]], dtype=torch.float64)
FINAL = torch.tensor([[[0.0, 0.95], [1.0, 0.275]]], dtype=torch.float64)


def test_numbers() -> None:
    torch.testing.assert_close(object_prior(FEATURES), PRIOR)
    torch.testing.assert_close(blend_maps(SOUND, PRIOR), FINAL)
    torch.testing.assert_close(blend_maps(SOUND, PRIOR, weight=1.0), SOUND.sub(0.1) / 0.4)
    torch.testing.assert_close(blend_maps(SOUND, PRIOR, weight=0.0), PRIOR.sub(0.5) / 2.5)


def test_the_default_weight_is_that_of_the_protocol() -> None:
    weight = protocols.ez_vsl.prior_weight
    assert weight is not None
    assert torch.equal(blend_maps(SOUND, PRIOR), blend_maps(SOUND, PRIOR, weight=weight))


def test_positive_affine_changes_do_not_matter() -> None:
    for sound, prior in ((SOUND * 3 - 7, PRIOR), (SOUND, PRIOR / 9 + 2)):
        torch.testing.assert_close(blend_maps(sound, prior), FINAL)


def test_a_constant_map_is_zero() -> None:
    constant = torch.full_like(SOUND, 0.3)
    torch.testing.assert_close(blend_maps(constant, PRIOR), PRIOR.sub(0.5) / 2.5)
    assert not blend_maps(constant, constant).any()


def test_the_largest_numbers_do_not_overflow() -> None:
    largest = torch.finfo(torch.float32).max
    assert object_prior(torch.full((1, 7, 1, 1), largest)).isfinite().all()
    maps = torch.tensor([[[-largest, largest, 0.0]]])
    torch.testing.assert_close(blend_maps(maps, maps), torch.tensor([[[0.0, 1.0, 0.5]]]))


def bilinear(maps: Tensor, height: int, width: int) -> Tensor:
    """With aligned corners, from its definition."""
    result = torch.empty(maps.shape[0], height, width, dtype=maps.dtype)
    for y in range(height):
        for x in range(width):
            v, u = (y * (maps.shape[1] - 1) / (height - 1), x * (maps.shape[2] - 1) / (width - 1))
            top, left = min(int(v), maps.shape[1] - 2), min(int(u), maps.shape[2] - 2)
            v, u = v - top, u - left
            upper = (1 - u) * maps[:, top, left] + u * maps[:, top, left + 1]
            lower = (1 - u) * maps[:, top + 1, left] + u * maps[:, top + 1, left + 1]
            result[:, y, x] = (1 - v) * upper + v * lower
    return result


def test_maps_of_different_sizes_are_resized() -> None:
    torch.manual_seed(0)
    sound, prior = torch.rand(2, 3, 4).double(), torch.rand(2, 5, 2).double()
    expected = blend_maps(bilinear(sound, 6, 7), bilinear(prior, 6, 7))
    torch.testing.assert_close(blend_maps(sound, prior, size=(6, 7)), expected)
    assert blend_maps(sound[:0], prior[:0], size=(6, 7)).shape == (0, 6, 7)
    with pytest.raises(ValueError, match="Expected `prior` to have shape"):
        blend_maps(sound, prior)
    with pytest.raises(ValueError, match="Expected `prior` to have shape"):
        blend_maps(sound, prior[:1], size=(6, 7))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"weight": 1.1}, ValueError),
        ({"weight": True}, TypeError),
        ({"size": 4}, TypeError),
        ({"size": (4, 0)}, ValueError),
        ({"size": (4, 4, 4)}, TypeError),
        ({"size": (4.0, 4)}, TypeError),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Expected `{next(iter(options))}`.*but got"):
        blend_maps(SOUND, PRIOR, **options)
