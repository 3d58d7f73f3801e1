"""Attention and its pair loss: equal to loops over pixels and pairs, and to the public codes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses import attend, attention_pair_loss

TINY = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.6, 1.0]], [[0.8, 0.0]]]], dtype=torch.float64)
SOUNDS = torch.eye(2, dtype=torch.float64)
DRAWN = torch.tensor([2, 3, 1, 3])  # the last sample has no negative


def make(batch: int = 4, size: tuple[int, int] = (3, 4), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(batch, 5, *size, generator=generator, dtype=torch.float64)
    return visual, torch.randn(batch, 5, generator=generator, dtype=torch.float64)


def pair(batch: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    visual, audio = make(batch, (1, 1), seed)
    return visual.flatten(1), audio


def partners(negatives: str | Tensor, batch: int) -> list[list[int]]:
    if isinstance(negatives, Tensor):
        chosen = [[int(j)] for j in negatives]
    elif negatives == "shift":
        chosen = [[(i + 1) % batch] for i in range(batch)]
    else:
        chosen = [list(range(batch))] * batch
    return [[j for j in others if j != i] for i, others in enumerate(chosen)]


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("rectify", [True, False])
def test_attention_equals_the_loop(temperature: float, rectify: bool) -> None:
    visual, query = make()
    attended = attend(visual, query, temperature=temperature, rectify=rectify)
    for i in range(4):
        weights = torch.zeros(3, 4).double()
        for y in range(3):
            for x in range(4):
                pixel = visual[i, :, y, x]
                cosine = float(pixel @ query[i] / (pixel.norm() * query[i].norm()))
                weights[y, x] = math.exp((max(cosine, 0.0) if rectify else cosine) / temperature)
        weights /= weights.sum()
        torch.testing.assert_close(attended.attention[i], weights, atol=1e-12, rtol=0)
        torch.testing.assert_close(attended.pooled[i], (visual[i] * weights).sum((1, 2)), atol=1e-12, rtol=0)


def loop(
    embedding: Tensor, target: Tensor, negatives: str | Tensor, swap: str, normalize: bool, form: str, margin: float
) -> list[list[float]]:
    """Loss, both distances and accuracy of every sample."""
    if normalize:
        embedding, target = (x / x.norm(dim=1, keepdim=True) for x in (embedding, target))
    terms = []
    for i, others in enumerate(partners(negatives, len(target))):
        near = math.dist(embedding[i].tolist(), target[i].tolist())
        pairs = [(i, j) if swap == "sound" else (j, i) for j in others]
        far = [math.dist(embedding[g].tolist(), target[f].tolist()) for g, f in pairs]
        count = max(len(far), 1)
        if form == "softmax":
            loss = 0.0
            for distance in far:
                total = math.exp(near) + math.exp(distance)
                loss += ((math.exp(near) / total) ** 2 + (math.exp(distance) / total - 1) ** 2) / 2 / count
        else:
            loss = near**2 / 4 + sum(max(0.0, margin - distance) ** 2 for distance in far) / count / 4
        terms.append([loss, near, sum(far) / count, sum(near < distance for distance in far) / count])
    return terms


@pytest.mark.parametrize("swap", ["sound", "frame"])
@pytest.mark.parametrize("negatives", ["all", "shift", DRAWN], ids=["all", "shift", "drawn"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("form", "margin"), [("softmax", 10.0), ("margin", 10.0), ("margin", 1.4)])
def test_loss_equals_the_loop(negatives: str | Tensor, swap: str, normalize: bool, form: str, margin: float) -> None:
    embedding, target = pair()
    options: dict[str, Any] = {"negatives": negatives, "swap": swap, "normalize": normalize}
    options |= {"form": form, "margin": margin}
    expected = torch.tensor(loop(embedding, target, **options), dtype=torch.float64).T
    for reduction in ("none", "sum", "mean"):
        terms = attention_pair_loss(embedding, target, **options, reduction=reduction)
        for term, values in zip(terms, expected, strict=True):
            wanted = values if reduction == "none" else getattr(values, reduction)()
            torch.testing.assert_close(term, wanted, atol=1e-10, rtol=0)


def test_numbers() -> None:
    pooled, attention = attend(TINY, SOUNDS)
    expected = torch.tensor([[0.731059, 0.268941], [0.689974, 0.310026]]).double()
    torch.testing.assert_close(attention[:, 0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(pooled[1], torch.tensor([0.724010, 0.551980]).double(), atol=1e-6, rtol=0)
    terms = attention_pair_loss(pooled, SOUNDS, negatives="shift", normalize=False, reduction="none")
    expected = torch.tensor([[0.117097, 0.311705], [0.380341, 0.851418], [1.033873, 0.617132]]).double()
    torch.testing.assert_close(torch.stack(terms[:3]), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(terms.loss.mean(), torch.tensor(0.214401).double(), atol=1e-6, rtol=0)


def test_equals_the_public_code_of_attention10k() -> None:
    """It adds 1e-6 to each difference."""
    embedding, target = pair()
    drawn = torch.tensor([1, 2, 3, 0])
    distances = [F.pairwise_distance(embedding, f) for f in (target, target[drawn])]
    softmax = torch.stack(distances, 1).softmax(1)
    expected = F.mse_loss(softmax, torch.tensor([0.0, 1.0]).double().expand_as(softmax))
    loss = attention_pair_loss(embedding, target, negatives=drawn, normalize=False).loss
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)


def test_equals_the_public_code_of_dsol() -> None:
    """The contrastive loss of 2B pairs, and attention that pools unit features."""
    visual, query = make()
    features = F.normalize(visual)
    weights = (features * F.normalize(query)[:, :, None, None]).sum(1).flatten(1).softmax(1).view(4, 3, 4)
    attended = attend(features, query, rectify=False)
    torch.testing.assert_close(attended.attention, weights, atol=1e-12, rtol=0)
    torch.testing.assert_close(attended.pooled, (features * weights[:, None]).sum((2, 3)), atol=1e-12, rtol=0)
    embedding, target = attended.pooled * 3, query
    drawn = torch.tensor([1, 2, 3, 0])
    distance = torch.cat([(embedding - target).norm(dim=1), (embedding[drawn] - target).norm(dim=1)])
    match = torch.tensor([1.0] * 4 + [0.0] * 4)
    expected = 0.5 * (match * distance**2 + (1 - match) * (10 - distance).clamp(min=0) ** 2).mean()
    options = {"normalize": False, "form": "margin", "swap": "frame", "negatives": drawn}
    torch.testing.assert_close(attention_pair_loss(embedding, target, **options).loss, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("size", "largest"), [((7, 7), 0.053596), ((14, 14), 0.013748), ((20, 20), 0.006767)])
def test_attention_without_a_temperature_is_nearly_uniform(size: tuple[int, int], largest: float) -> None:
    query = torch.eye(3).double()[:1]
    visual = torch.eye(3).double()[1][:, None, None].repeat(1, *size)[None]
    visual[0, :, 0, 0] = query
    attention = attend(visual, query).attention[0]
    torch.testing.assert_close(attention[0, 0], torch.tensor(largest).double(), atol=1e-6, rtol=0)
    count = attention.numel()
    generator = torch.Generator().manual_seed(0)
    attention = attend(torch.randn(5, 2, *size, generator=generator), torch.ones(5, 2)).attention
    torch.testing.assert_close(attention.sum((1, 2)), torch.ones(5))
    assert attention.max() <= math.e / (math.e + count - 1) + 1e-6
    assert attention.min() >= 1 / (1 + (count - 1) * math.e) - 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale(scale: float) -> None:
    """The attention, and the loss of unit vectors, depend on directions only."""
    visual, query = (t.float() for t in make())
    factors = torch.rand(4, 1, 3, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    expected = attend(visual, query).attention
    torch.testing.assert_close(attend(visual * factors * scale, query / scale).attention, expected)
    embedding, target = (t.float() for t in pair())
    expected = attention_pair_loss(embedding, target).loss
    torch.testing.assert_close(attention_pair_loss(embedding * scale, target / scale).loss, expected)


def test_range_and_symmetry() -> None:
    embedding, target = pair(2)
    values = attention_pair_loss(embedding, target, reduction="none").loss
    low, high = torch.sigmoid(torch.tensor([-2.0, 2.0])) ** 2
    assert ((values > low) & (values < high)).all()
    # Own and other sound change places: the roots add to 1.
    swapped = attention_pair_loss(embedding, target.flip(0), reduction="none").loss
    torch.testing.assert_close(values.sqrt() + swapped.sqrt(), torch.ones(2).double(), atol=1e-12, rtol=0)
    equal = attention_pair_loss(embedding, target[:1].expand(2, -1))
    assert equal.loss == 0.25
    assert equal.accuracy == 0


def test_detach_target() -> None:
    embedding, target = (t.requires_grad_() for t in pair())
    attention_pair_loss(embedding, target, detach_target=True).loss.backward()
    assert target.grad is None
    detached = embedding.grad
    embedding.grad = None
    attention_pair_loss(embedding, target).loss.backward()
    assert torch.equal(embedding.grad, detached)
    assert target.grad.any()


@pytest.mark.parametrize("form", ["softmax", "margin"])
@pytest.mark.parametrize("normalize", [True, False])
def test_equal_vectors_have_a_finite_gradient(form: str, normalize: bool) -> None:
    embedding, target = torch.ones(3, 5, requires_grad=True), torch.ones(3, 5, requires_grad=True)
    attention_pair_loss(embedding, target, form=form, normalize=normalize).loss.backward()
    assert not embedding.grad.any()
    assert not target.grad.any()


@pytest.mark.parametrize("options", [{}, {"form": "margin", "normalize": False, "swap": "frame", "margin": 3.3}])
def test_gradcheck(options: dict[str, Any]) -> None:
    visual, audio = (t.requires_grad_() for t in make(3, (2, 3)))

    def function(visual: Tensor, audio: Tensor) -> Tensor:
        return attention_pair_loss(attend(visual, audio, temperature=0.5).pooled, audio, **options).loss

    assert torch.autograd.gradcheck(function, (visual, audio))
    assert torch.autograd.gradgradcheck(function, (visual, audio), fast_mode=True)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": "1"}, {"rectify": 1}])
def test_wrong_options_of_attention_are_named(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"`{next(iter(options))}`"):
        attend(*make(), **options)
