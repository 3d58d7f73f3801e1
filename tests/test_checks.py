"""Messages of the argument checks for wrong types and devices."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from sslosses import (
    OCALoss,
    ORILoss,
    cluster_objects,
    cosine,
    cross_similarity_map,
    hard_mask,
    identify_objects,
    mask_weights,
    masked_pool,
    object_aware_contrastive_loss,
    object_region_isolation_loss,
    object_region_separation_loss,
    similarity_map,
    trimap_contrastive_loss,
)
from sslosses._checks import check_count, check_mask, check_number, check_shapes
from sslosses._optional import MissingDependencyError, require
from sslosses.metrics import protocols
from sslosses.transport import solve


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
        lambda: cluster_objects(visual, vectors),
        lambda: similarity_map(visual, vectors),
        lambda: cross_similarity_map(visual, vectors),
        lambda: masked_pool(visual, torch.ones(2, *shape[2:]), alpha=0.5),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"Expected `\w+` to have shape \(B, C, H, W\) with [CHW] >= 1, but got"):
            call()
    with pytest.raises(ValueError, match=r"Expected `first` to have shape \(..., C\) with C >= 1, but got \(2, 0\)"):
        cosine(torch.ones(2, 0), torch.ones(2, 0))


@pytest.mark.parametrize("value", [10**400, -(10**400), Fraction(10**400), np.float64("inf"), float("nan")])
def test_a_number_beyond_every_float_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="Expected `x` to be a finite number"):
        check_number("x", value)


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(
        MissingDependencyError, match=r"This needs .*`no_such_package`.* pip install 'sslosses\[more\]'"
    ):
        require("no_such_package.part", extra="more", purpose="This")
    with pytest.raises(MissingDependencyError, match=r"pip install sslosses$"):
        require("no_such_package", extra=None, purpose="This")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.float32(0.5), float),
        (np.float16(0.5), float),
        (np.float64(0.5), float),
        (Fraction(1, 2), float),
        (np.int64(2), int),
        (np.uint8(2), int),
        (2, int),
    ],
)
def test_numbers_of_other_kinds_become_numbers_of_python(value: Any, kind: type) -> None:
    number = check_number("x", value, above=0, most=2)
    assert type(number) is kind
    assert number == value
    if kind is int:
        count = check_count("x", value)
        assert type(count) is int
        assert count == value
    else:
        with pytest.raises(TypeError, match="Expected `x` to be an integer >= 1, but got"):
            check_count("x", value)


@pytest.mark.parametrize(
    "value", [True, np.True_, "1", None, 1j, np.array(0.5), np.array([0.5]), torch.tensor(0.5), Decimal("0.5")]
)
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="Expected `x` to be a finite number, but got"):
        check_number("x", value)
    with pytest.raises(TypeError, match="Expected `x` to be an integer >= 1, but got"):
        check_count("x", value)


@pytest.mark.parametrize("value", [np.float32("nan"), np.float32("inf"), np.float32(-0.1), Fraction(-1, 2)])
def test_numbers_of_other_kinds_have_the_same_bounds(value: Any) -> None:
    with pytest.raises(ValueError, match="Expected `x` to be a finite number and >= 0, but got"):
        check_number("x", value, least=0)


def test_options_may_be_numbers_of_any_kind() -> None:
    generator = torch.Generator().manual_seed(0)
    visual, audio, foreground, background = (
        torch.randn(shape, generator=generator) for shape in ((2, 8, 3, 3), (2, 8), (2, 2, 8), (2, 8))
    )
    half, count = Fraction(1, 2), np.int64(7)
    for kind in (np.float32, lambda x: Fraction(float(x))):
        pairs = [
            (OCALoss(temperature=kind(half), tau=kind(half)), OCALoss(temperature=0.5, tau=0.5)),
            (ORILoss(epsilon=kind(half), max_iter=count, tol=kind(half)), ORILoss(epsilon=0.5, max_iter=7, tol=0.5)),
        ]
        for actual, expected in pairs:
            inputs = (
                (visual, audio, foreground, background)
                if isinstance(actual, OCALoss)
                else (visual, foreground, background)
            )
            assert torch.equal(actual(*inputs), expected(*inputs))
            assert repr(actual) == repr(expected)
        temperature = kind(half)
        terms = trimap_contrastive_loss(visual, audio, temperature=temperature)
        assert torch.equal(terms.loss, trimap_contrastive_loss(visual, audio, temperature=0.5).loss)
        separated = object_region_separation_loss(
            visual, foreground, background, margin=kind(half), temperature=temperature
        )
        expected_terms = object_region_separation_loss(visual, foreground, background, margin=0.5, temperature=0.5)
        assert torch.equal(separated.loss, expected_terms.loss)
        similarity = torch.rand(2, 4, 4, generator=generator)
        assert torch.equal(hard_mask(similarity, area=kind(half)), hard_mask(similarity, area=0.5))
        assert torch.equal(mask_weights(similarity, alpha=kind(half)), mask_weights(similarity, alpha=0.5))
        assert protocols.paper.replace(name="x", prior_weight=None, size=np.int64(64)).size == 64
        result = solve(similarity, epsilon=kind(half), scaling=kind(half), tol=kind(half), max_iter=count)
        assert torch.equal(result.value(), solve(similarity, epsilon=0.5, scaling=0.5, tol=0.5, max_iter=7).value())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
def test_a_loss_with_a_scalar_of_numpy_compiles_to_one_graph() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in ((2, 8, 3, 3), (2, 2, 8), (2, 8))]
    loss = ORILoss(epsilon=np.float32(0.5), max_iter=np.int64(3), solver="dense")
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), loss(*inputs))
