"""Messages of the argument checks for wrong types and devices."""

import pytest
import torch

from sslosses import (
    cosine,
    cross_similarity_map,
    identify_objects,
    masked_pool,
    object_aware_contrastive_loss,
    object_region_isolation_loss,
    object_region_separation_loss,
    similarity_map,
    trimap_contrastive_loss,
)
from sslosses._checks import check_mask, check_shapes
from sslosses._optional import MissingDependencyError, require


def test_a_mask_has_to_be_a_boolean_tensor() -> None:
    with pytest.raises(TypeError, match="Expected `mask` to be a tensor, but got list"):
        check_mask("mask", [True])
    with pytest.raises(TypeError, match=r"Expected `mask` to have dtype torch.bool, but got torch.float32"):
        check_mask("mask", torch.ones(2))


def test_devices_have_to_agree() -> None:
    with pytest.raises(ValueError, match=r"Expected `b` to be on the device of `a` \(cpu\), but got meta"):
        check_shapes(a=(torch.ones(2), "B"), b=(torch.ones(2, device="meta"), "B"))


@pytest.mark.parametrize("shape", [(2, 0, 3, 3), (2, 4, 0, 3), (2, 4, 3, 0)], ids=["C", "H", "W"])
def test_features_without_entries_or_pixels_are_refused(shape: tuple[int, ...]) -> None:
    """A loss of them would be a number that means nothing, such as 1.15."""
    visual, vectors, foreground = torch.ones(shape), torch.ones(2, shape[1]), torch.ones(2, 2, shape[1])
    calls = (
        lambda: object_aware_contrastive_loss(visual, vectors, foreground, vectors),
        lambda: object_region_isolation_loss(visual, foreground, vectors),
        lambda: object_region_separation_loss(visual, foreground, vectors),
        lambda: trimap_contrastive_loss(visual, vectors),
        lambda: identify_objects(visual, vectors),
        lambda: similarity_map(visual, vectors),
        lambda: cross_similarity_map(visual, vectors),
        lambda: masked_pool(visual, torch.ones(2, *shape[2:]), alpha=0.5),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"Expected `\w+` to have shape \(B, C, H, W\) with [CHW] >= 1, but got"):
            call()
    with pytest.raises(ValueError, match=r"Expected `first` to have shape \(..., C\) with C >= 1, but got \(2, 0\)"):
        cosine(torch.ones(2, 0), torch.ones(2, 0))


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(
        MissingDependencyError, match=r"This needs .*`no_such_package`.* pip install 'sslosses\[more\]'"
    ):
        require("no_such_package.part", extra="more", purpose="This")
    with pytest.raises(MissingDependencyError, match=r"pip install sslosses$"):
        require("no_such_package", extra=None, purpose="This")
