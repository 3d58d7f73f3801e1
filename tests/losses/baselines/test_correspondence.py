"""The multiple-instance correspondence loss: equal to loops over pairs, pixels and cells, and to the public code."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses import MultipleInstanceCorrespondenceLoss, multiple_instance_correspondence_loss

TINY = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.6, 1.0]], [[0.8, 0.0]]]], dtype=torch.float64)
SOUNDS = torch.eye(2, dtype=torch.float64)
DRAWN = torch.tensor([2, 3, 1, 3])  # the last sample has no negative


def make(batch: int = 4, size: tuple[int, int] = (3, 4), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(batch, 5, *size, generator=generator, dtype=torch.float64)
    return visual, torch.randn(batch, 5, generator=generator, dtype=torch.float64)


def partners(negatives: str | Tensor, batch: int) -> list[list[int]]:
    if isinstance(negatives, Tensor):
        chosen = [[int(j)] for j in negatives]
    elif negatives == "shift":
        chosen = [[(i + 1) % batch] for i in range(batch)]
    else:
        chosen = [list(range(batch))] * batch
    return [[j for j in others if j != i] for i, others in enumerate(chosen)]


def loop(
    visual: Tensor, audio: Tensor, w: float, b: float, normalize: bool, negatives: str | Tensor, swap: str, bins: int
) -> list[list[float]]:
    """Loss, positive, negative and accuracy of every sample, with sigmoids and logarithms as in the equations."""
    batch, _, height, width = visual.shape

    def largest(frame: int, sound: int, rows: range, columns: range) -> float:
        values = []
        for y in rows:
            for x in columns:
                pixel, vector = visual[frame, :, y, x], audio[sound]
                s = float(pixel @ vector)
                if normalize:
                    s /= float(pixel.norm() * vector.norm())
                values.append(1 / (1 + math.exp(-(w * s + b))))
        return max(values)

    def cells(size: int) -> list[range]:
        return [range(math.floor(i * size / bins), math.ceil((i + 1) * size / bins)) for i in range(bins)]

    terms = []
    for i, others in enumerate(partners(negatives, batch)):
        own = largest(i, i, range(height), range(width))
        mismatched = []
        for j in others:
            frame, sound = (i, j) if swap == "sound" else (j, i)
            mismatched += [largest(frame, sound, rows, columns) for rows in cells(height) for columns in cells(width)]
        positive = -math.log(own)
        negative = sum(-math.log(1 - p) for p in mismatched) / max(len(mismatched), 1)
        accuracy = float(own > 0.5)
        if mismatched:
            accuracy = (accuracy + sum(p < 0.5 for p in mismatched) / len(mismatched)) / 2
        terms.append([(positive + negative) / 2, positive, negative, accuracy])
    return terms


@pytest.mark.parametrize("swap", ["sound", "frame"])
@pytest.mark.parametrize("negatives", ["all", "shift", DRAWN], ids=["all", "shift", "drawn"])
@pytest.mark.parametrize(("normalize", "w", "b"), [(False, 0.7, -0.4), (True, 5.0, 0.0), (True, -3.0, 0.5)])
@pytest.mark.parametrize(("bins", "size"), [(1, (3, 4)), (2, (3, 4)), (2, (1, 5)), (3, (4, 2))])
def test_equals_the_loop(
    normalize: bool, w: float, b: float, negatives: str | Tensor, swap: str, bins: int, size: tuple[int, int]
) -> None:
    visual, audio = make(size=size)
    expected = torch.tensor(loop(visual, audio, w, b, normalize, negatives, swap, bins), dtype=torch.float64).T
    options = {"normalize": normalize, "negatives": negatives, "swap": swap, "negative_bins": bins}
    for reduction in ("none", "sum", "mean"):
        terms = multiple_instance_correspondence_loss(visual, audio, w, b, **options, reduction=reduction)
        for term, values in zip(terms, expected, strict=True):
            wanted = values if reduction == "none" else getattr(values, reduction)()
            torch.testing.assert_close(term, wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("swap", ["sound", "frame"])
@pytest.mark.parametrize(
    ("w", "b", "expected"), [(5.0, 0.0, (2.509574, 0.012433, 5.006715)), (5.0, -3.0, (1.173511, 0.220095, 2.126928))]
)
def test_numbers(w: float, b: float, expected: tuple[float, ...], swap: str) -> None:
    terms = multiple_instance_correspondence_loss(TINY, SOUNDS, w, b, swap=swap)
    torch.testing.assert_close(torch.stack(terms[:3]), torch.tensor(expected).double(), atol=1e-6, rtol=0)


def test_numbers_of_stage_one_of_dsol() -> None:
    options = {"normalize": True, "swap": "frame", "negatives": "shift", "reduction": "none"}
    terms = multiple_instance_correspondence_loss(TINY, SOUNDS, **options)
    torch.testing.assert_close(terms.positive, torch.tensor([0.006715, 0.018150]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(terms.negative, torch.tensor([5.006715, 5.006715]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(terms.loss.mean(), torch.tensor(2.509574).double(), atol=1e-6, rtol=0)
    loss = multiple_instance_correspondence_loss(TINY, SOUNDS, 1.0, **options | {"reduction": "mean"}).loss
    torch.testing.assert_close(loss, torch.tensor(0.827721).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bins", [1, 2])
def test_equals_the_public_code_of_dsol(bins: int) -> None:
    """Stage one is the mean cross-entropy of 2B pairs; the negatives of stage two are 2 × 2 cells."""
    visual, audio = make(size=(4, 6))
    drawn = torch.tensor([1, 2, 3, 0])

    def probability(frames: Tensor, sounds: Tensor, cells: int) -> Tensor:
        cosines = (F.normalize(frames) * F.normalize(sounds)[:, :, None, None]).sum(1, keepdim=True)
        return F.adaptive_max_pool2d(torch.sigmoid(5 * cosines), cells)

    own, other = probability(visual, audio, 1), probability(visual[drawn], audio, bins)
    expected = F.binary_cross_entropy(own, torch.ones_like(own)) / 2
    expected = expected + F.binary_cross_entropy(other, torch.zeros_like(other)) / 2
    options = {"normalize": True, "swap": "frame", "negatives": drawn, "negative_bins": bins}
    loss = multiple_instance_correspondence_loss(visual, audio, 5.0, **options).loss
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)


def test_properties() -> None:
    visual, audio = make()
    unit = {"normalize": True, "reduction": "none"}
    zero = multiple_instance_correspondence_loss(visual, audio, 0.0, 0.0).loss
    torch.testing.assert_close(zero, torch.tensor(math.log(2), dtype=torch.float64), atol=1e-15, rtol=0)
    terms = multiple_instance_correspondence_loss(visual, audio, 2.0, -0.5, reduction="none")
    assert (terms.loss > 0).all()
    # The order of the pixels, and the scale of the features and of w together, do not matter.
    mixed = visual.flatten(2)[..., torch.randperm(12, generator=torch.Generator().manual_seed(1))].view(visual.shape)
    for other in (
        multiple_instance_correspondence_loss(mixed, audio, 2.0, -0.5, reduction="none"),
        multiple_instance_correspondence_loss(visual * 3, audio, 2 / 3, -0.5, reduction="none"),
    ):
        torch.testing.assert_close(other, terms, atol=1e-12, rtol=0)
    # More pixels: the matching pair looks better, and so do the mismatched ones.
    fewer = multiple_instance_correspondence_loss(visual[..., :2], audio, 2.0, -0.5, reduction="none")
    assert (fewer.positive >= terms.positive).all()
    assert (fewer.negative <= terms.negative).all()
    # With cosines, the positive term is between those of cosine 1 and -1.
    terms = multiple_instance_correspondence_loss(visual, audio, 4.0, 1.0, **unit)
    low, high = F.softplus(torch.tensor([-5.0, 3.0]))
    assert ((terms.positive >= low) & (terms.positive <= high)).all()
    # The loss is convex in (w, b).
    ends = torch.tensor([[5.0, 2.0], [0.5, -3.0]])
    values = [multiple_instance_correspondence_loss(visual, audio, *end).loss for end in (*ends, ends.mean(0))]
    assert values[2] <= (values[0] + values[1]) / 2


@pytest.mark.parametrize("bins", [1, 2])
def test_the_means_of_both_swaps_are_equal_for_all_negatives(bins: int) -> None:
    visual, audio = make()
    values = [
        multiple_instance_correspondence_loss(visual, audio, negative_bins=bins, swap=swap).loss
        for swap in ("sound", "frame")
    ]
    torch.testing.assert_close(values[0], values[1], atol=1e-12, rtol=0)


def test_the_gradient_reaches_one_pixel_per_pair_and_the_scalars() -> None:
    visual, audio = (t.requires_grad_() for t in make(1))
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (2.0, -0.5))
    multiple_instance_correspondence_loss(visual, audio, scale, bias).loss.backward()
    assert visual.grad is not None
    assert visual.grad.any(1).sum() == 1
    assert scale.grad is not None
    assert bias.grad is not None
    largest = torch.einsum("chw,c->hw", visual[0], audio[0]).max().detach()
    slope = -torch.sigmoid(-(2 * largest - 0.5)) / 2
    torch.testing.assert_close(bias.grad, slope)
    torch.testing.assert_close(scale.grad, slope * largest)


@pytest.mark.parametrize("options", [{}, {"normalize": True, "negative_bins": 2, "swap": "frame"}])
def test_gradcheck(options: dict[str, object]) -> None:
    visual, audio = make(3, (2, 3))
    scale, bias = torch.tensor(0.7).double(), torch.tensor(-0.2).double()
    inputs = tuple(t.requires_grad_() for t in (visual, audio, scale, bias))

    def function(*x: Tensor) -> Tensor:
        return multiple_instance_correspondence_loss(*x, **options).loss

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_logits_do_not_saturate(dtype: torch.dtype) -> None:
    """A sigmoid and a logarithm would give inf or a gradient of 0."""
    visual, audio = torch.full((2, 1, 1, 1), -1.0), torch.full((2, 1), 1.0)
    visual, audio = (t.to(dtype).requires_grad_() for t in (visual, audio))
    loss = multiple_instance_correspondence_loss(visual, audio, 1000.0).loss
    torch.testing.assert_close(loss.detach(), torch.tensor(500.0))
    (gradient,) = torch.autograd.grad(loss, visual)
    torch.testing.assert_close(gradient, torch.full_like(visual, -250.0))


def test_the_module_learns_scale_and_bias() -> None:
    loss = MultipleInstanceCorrespondenceLoss(normalize=True)
    assert {name: float(value) for name, value in loss.state_dict().items()} == {"scale": 5.0, "bias": 0.0}
    assert all(value.requires_grad for value in loss.parameters())
    visual, audio = (t.float() for t in make())
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    before = loss(visual, audio)
    for _ in range(20):
        optimizer.zero_grad()
        loss(visual, audio).backward()
        optimizer.step()
    assert loss(visual, audio) < before
    assert "scale=5.0" not in repr(loss)
    fresh = MultipleInstanceCorrespondenceLoss(normalize=True)
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(fresh(visual, audio), loss(visual, audio))
    assert "scale='meta'" in repr(fresh.to("meta"))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((torch.ones(2),), ValueError, r"`scale` to be a number or a tensor with one entry, but got \(2,\)"),
        ((1.0, torch.ones(2)), ValueError, "`bias`"),
        ((torch.tensor(1),), TypeError, "`scale` to have a floating dtype"),
        ((torch.tensor(1.0, device="meta"),), ValueError, "`scale` to be on the device of `visual`"),
        (("5",), TypeError, "`scale`"),
        ((torch.inf,), ValueError, "`scale`"),
    ],
)
def test_wrong_scalars_are_named(arguments: tuple[object, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        multiple_instance_correspondence_loss(*make(), *arguments)


def test_the_module_starts_with_a_positive_scale() -> None:
    with pytest.raises(ValueError, match="`scale` to be a finite number and > 0"):
        MultipleInstanceCorrespondenceLoss(scale=0.0)
