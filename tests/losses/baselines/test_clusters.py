"""The cluster correspondence loss: equal to loops over clips, cells and centers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sslosses import cluster_correspondence_loss

DRAWN = torch.tensor([2, 3, 1, 3])  # the last sample has no negative
SQUARE = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.2, 1.0, 0.8]], dtype=torch.float64).reshape(1, 2, 2, 2)


def make(batch: int = 4, size: tuple[int, int] = (2, 3), cells: tuple[int, int] = (2, 2)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    visual = torch.randn(batch, 3, *size, generator=generator, dtype=torch.float64)
    return visual, torch.randn(batch, 3, *cells, generator=generator, dtype=torch.float64)


def partners(negatives: str | Tensor, batch: int) -> list[list[int]]:
    if isinstance(negatives, Tensor):
        chosen = [[int(j)] for j in negatives]
    elif negatives == "shift":
        chosen = [[(i + 1) % batch] for i in range(batch)]
    else:
        chosen = [list(range(batch))] * batch
    return [[j for j in others if j != i] for i, others in enumerate(chosen)]


def clusters(points: list[list[float]], count: int, iterations: int, sharpness: float) -> Any:
    """Centers and, for each center, the shares of the points."""
    centers = [points[len(points) // count * k] for k in range(count)]
    shares: list[list[float]] = []
    for _ in range(iterations):
        shares = []
        for point in points:
            distances = [math.sqrt(max(math.dist(center, point) ** 2, 1e-10)) for center in centers]
            weights = [math.exp(-sharpness * distance) for distance in distances]
            shares.append([weight / sum(weights) for weight in weights])
        totals = [sum(share[k] for share in shares) for k in range(count)]
        centers = [
            [sum(c[k] * u[d] for c, u in zip(shares, points, strict=True)) / totals[k] for d in range(3)]
            for k in range(count)
        ]
    return centers, [[share[k] for share in shares] for k in range(count)]


def loop(visual: Tensor, audio: Tensor, options: dict[str, Any]) -> tuple[list[list[float]], Any, Any]:
    """Loss, positive and negative of every sample, the assignments, and the distances of the centers."""

    def points(features: Tensor) -> list[list[float]]:
        rows = features.flatten(1).T
        if options["normalize"]:
            rows = rows / rows.norm(dim=1, keepdim=True)
        return rows.tolist()

    how = options["iterations"], options["sharpness"]
    parts, shares = zip(*(clusters(points(v), options["visual_clusters"], *how) for v in visual), strict=True)
    sounds = [clusters(points(a), options["audio_clusters"], *how)[0] for a in audio]

    def q(frame: int, sound: int) -> float:
        return sum(min(math.dist(part, center) for part in parts[frame]) ** 2 for center in sounds[sound])

    terms = []
    for i, others in enumerate(partners(options["negatives"], len(visual))):
        pairs = [(i, j) if options["swap"] == "sound" else (j, i) for j in others]
        hinges = [0.5 * max(0.0, options["margin"] - math.sqrt(q(*pair) + 1e-9)) ** 2 for pair in pairs]
        positive, negative = 0.5 * q(i, i), sum(hinges) / max(len(hinges), 1)
        terms.append([(positive + negative) / 2, positive, negative])
    distances = [[[math.dist(p, s) for s in sounds[i]] for p in parts[i]] for i in range(len(visual))]
    return terms, shares, distances


OPTIONS = {"visual_clusters": 2, "audio_clusters": 1, "iterations": 4, "sharpness": 30.0, "margin": 5.0}


@pytest.mark.parametrize("swap", ["sound", "frame"])
@pytest.mark.parametrize("negatives", ["all", "shift", DRAWN], ids=["all", "shift", "drawn"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    "change", [{}, {"visual_clusters": 3, "audio_clusters": 2, "iterations": 2, "sharpness": 3.0, "margin": 1.4}]
)
def test_equals_the_loop(negatives: str | Tensor, swap: str, normalize: bool, change: dict[str, Any]) -> None:
    visual, audio = make()
    options = OPTIONS | {"normalize": normalize, "negatives": negatives, "swap": swap} | change
    values, shares, distances = loop(visual, audio, options)
    expected = torch.tensor(values, dtype=torch.float64).T
    for reduction in ("none", "sum", "mean"):
        terms = cluster_correspondence_loss(visual, audio, **options, reduction=reduction)
        for term, value in zip(terms[:3], expected, strict=True):
            wanted = value if reduction == "none" else getattr(value, reduction)()
            torch.testing.assert_close(term, wanted, atol=1e-10, rtol=0)
        assignment = torch.tensor(shares, dtype=torch.float64).view(terms.assignment.shape)
        torch.testing.assert_close(terms.assignment, assignment, atol=1e-10, rtol=0)
        torch.testing.assert_close(terms.distance, torch.tensor(distances, dtype=torch.float64), atol=1e-10, rtol=0)


def test_equals_the_public_code() -> None:
    """The mean of 2B pairs: each sound with its own frame and with a drawn one."""
    visual, audio = make()
    drawn = torch.tensor([1, 2, 3, 0])

    def centers(points: Tensor, count: int) -> Tensor:
        start = points.shape[-1] // count
        result = points[..., [start * k for k in range(count)]]
        for _ in range(4):
            square = ((result[..., :, None] - points[..., None, :]) ** 2).sum(1)
            weights = torch.exp(-30 * square.clamp(min=1e-10).sqrt())
            weights = weights / weights.sum(1, keepdim=True)
            result = torch.einsum("bkn,bcn->bck", weights, points) / weights.sum(2)[:, None]
        return result

    parts, sounds = centers(visual.flatten(2), 2), centers(audio.flatten(2), 1)
    pairs = torch.cat([parts, parts[drawn]]), torch.cat([sounds, sounds])
    distance = (pairs[0] - pairs[1]).norm(dim=1).amin(1)
    match = torch.tensor([1.0] * 4 + [0.0] * 4)
    hinge = (5 - torch.sqrt(distance**2 + 1e-9)).clamp(min=0)
    expected = (0.5 * (match * distance**2 + (1 - match) * hinge**2)).mean()
    loss = cluster_correspondence_loss(visual, audio, negatives=drawn).loss
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)


def test_numbers() -> None:
    """The centers are (0, 0.1) and (1, 0.9); own sound at the second, other sound at (0, 1)."""
    visual = torch.cat([SQUARE, SQUARE + 100])
    audio = torch.tensor([[1.0, 0.9], [0.0, 1.0]]).double()[..., None, None]
    terms = cluster_correspondence_loss(visual, audio, negatives="shift", swap="sound", reduction="none")
    assert terms.positive[0] < 1e-12
    torch.testing.assert_close(terms.negative[0], torch.tensor(8.405).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(terms.loss[0], torch.tensor(4.2025).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(terms.distance[0], torch.tensor([[1.64**0.5], [0.0]]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(terms.assignment[0, 1], torch.tensor([[0, 0], [1, 1]]).double(), atol=1e-6, rtol=0)


def test_properties() -> None:
    visual, audio = make()
    terms = cluster_correspondence_loss(visual, audio, margin=2.0, reduction="none")
    assert (terms.positive >= 0).all()
    assert ((terms.negative >= 0) & (terms.negative <= 2)).all()
    torch.testing.assert_close(terms.assignment.sum(1), torch.ones(4, 2, 3).double())
    assert not any(term.requires_grad for term in terms[1:])
    # Both swaps have the same pairs.
    sound = cluster_correspondence_loss(visual, audio, swap="sound")
    torch.testing.assert_close(sound.loss, cluster_correspondence_loss(visual, audio).loss)
    # Scaled features with a scaled sharpness and margin: the same clusters, and a loss of the scale squared.
    scaled = cluster_correspondence_loss(visual * 3, audio * 3, sharpness=10.0, margin=6.0, reduction="none")
    torch.testing.assert_close(scaled.assignment, terms.assignment)
    torch.testing.assert_close(scaled.loss, terms.loss * 9, atol=1e-6, rtol=0)  # the 1e-9 under the root
    # Cosine features of any scale.
    unit = cluster_correspondence_loss(visual.float(), audio.float(), normalize=True)
    for scale in (1e-30, 1e30):
        other = cluster_correspondence_loss(visual.float() * scale, audio.float() / scale, normalize=True)
        torch.testing.assert_close(other, unit, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options", [{"sharpness": 2.0}, {"sharpness": 2.0, "audio_clusters": 2, "normalize": True, "swap": "sound"}]
)
def test_gradcheck(options: dict[str, Any]) -> None:
    visual, audio = make(3, (2, 2), (1, 3))
    inputs = visual.requires_grad_(), audio.requires_grad_()

    def function(visual: Tensor, audio: Tensor) -> Tensor:
        return cluster_correspondence_loss(visual, audio, **options).loss

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("shape", [(4, 3, 0, 2), (4, 3, 2, 0)])
def test_a_sound_has_cells(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `audio` to have shape .* with T, F >= 1, but got"):
        cluster_correspondence_loss(make()[0], torch.zeros(shape))
