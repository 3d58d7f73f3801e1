"""Soft k-means: equal to a loop over points and centers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import soft_kmeans

SQUARE = torch.tensor([[[0.0, 0.0], [0.0, 0.2], [1.0, 1.0], [1.0, 0.8]]], dtype=torch.float64)


def make(batch: int = 3, count: int = 7, channels: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, channels, generator=generator, dtype=torch.float64)


def loop(points: Tensor, start: Tensor, iterations: int, sharpness: float) -> tuple[Tensor, Tensor]:
    """Centers and shares of one set of points, with the quotients as they stand."""
    centers = [[float(x) for x in center] for center in start]
    u = points.tolist()
    for _ in range(iterations):
        shares = []
        for point in u:
            weights = [math.exp(-sharpness * max(math.dist(center, point), 1e-5)) for center in centers]
            shares.append([weight / sum(weights) for weight in weights])
        for k in range(len(centers)):
            total = sum(share[k] for share in shares)
            centers[k] = [
                sum(share[k] * point[c] for share, point in zip(shares, u, strict=True)) / total
                for c in range(len(u[0]))
            ]
    return torch.tensor(centers, dtype=torch.float64), torch.tensor(shares, dtype=torch.float64).T


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("iterations", [1, 4])
@pytest.mark.parametrize(("sharpness", "centers"), [(1.0, 2), (3.0, 3), (30.0, 2), (2.0, 1), (2.0, 7)])
def test_equals_the_loop(centers: int, sharpness: float, iterations: int, given: bool) -> None:
    points = make()
    init = make(3, centers, seed=1)
    clusters = soft_kmeans(
        points, centers, iterations=iterations, sharpness=sharpness, init=init if given else "strided"
    )
    for i in range(3):
        start = init[i] if given else points[i, [7 // centers * k for k in range(centers)]]
        expected = loop(points[i], start, iterations, sharpness)
        torch.testing.assert_close(clusters.centers[i], expected[0], atol=1e-10, rtol=0)
        torch.testing.assert_close(clusters.assignment[i], expected[1], atol=1e-10, rtol=0)


@pytest.mark.parametrize("iterations", [1, 4])
def test_numbers(iterations: int) -> None:
    centers, assignment = soft_kmeans(SQUARE, 2, iterations=iterations)
    torch.testing.assert_close(centers[0], torch.tensor([[0, 0.1], [1, 0.9]]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(assignment[0, 0], torch.tensor([1, 1, 0, 0]).double(), atol=1e-6, rtol=0)


def test_numbers_of_soft_shares() -> None:
    centers, assignment = soft_kmeans(SQUARE, 2, iterations=1, sharpness=1.0)
    expected = torch.tensor([[0.224480, 0.273802], [0.775520, 0.726198]]).double()
    torch.testing.assert_close(centers[0], expected, atol=1e-6, rtol=0)
    expected = torch.tensor([0.804428, 0.746612, 0.195572, 0.253388]).double()
    torch.testing.assert_close(assignment[0, 0], expected, atol=1e-6, rtol=0)


def test_shares_sum_to_one_and_one_center_is_the_mean() -> None:
    points = make()
    torch.testing.assert_close(soft_kmeans(points, 3).assignment.sum(1), torch.ones(3, 7).double())
    for init in ("strided", make(count=1, seed=1)):
        torch.testing.assert_close(soft_kmeans(points, 1, init=init).centers[:, 0], points.mean(1))
    for count in (2, 9):  # more centers than points too: equal points belong to all alike
        same = soft_kmeans(points[:, :1].expand(-1, 5, -1), count).assignment
        torch.testing.assert_close(same, torch.full_like(same, 1 / count))


def test_rotation_translation_scale_and_order() -> None:
    points, init = make(), make(count=2, seed=1)
    centers, assignment = soft_kmeans(points, 2, sharpness=2.0, init=init)
    rotation = torch.linalg.qr(make(1, 4, 4, seed=2)[0]).Q
    moved = soft_kmeans(points @ rotation + 1.5, 2, sharpness=2.0, init=init @ rotation + 1.5)
    torch.testing.assert_close(moved.centers, centers @ rotation + 1.5)
    torch.testing.assert_close(moved.assignment, assignment)
    scaled = soft_kmeans(points * 4, 2, sharpness=0.5, init=init * 4)
    torch.testing.assert_close(scaled.assignment, assignment)
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    mixed = soft_kmeans(points[:, order], 2, sharpness=2.0, init=init)
    torch.testing.assert_close(mixed.centers, centers)
    torch.testing.assert_close(mixed.assignment, assignment[..., order])


@pytest.mark.parametrize("distance", [4.0, 1e3, 1e15])
def test_far_points_do_not_underflow(distance: float) -> None:
    """All of e^(-30 d) is 0 in float32 there, and so is the sum of the shares of a center that no point is near."""
    points = torch.tensor([[[0.0], [0.1], [distance]]], requires_grad=True)
    centers, assignment = soft_kmeans(points, 3, init=torch.tensor([[[-distance], [2 * distance], [3 * distance]]]))
    assert ((centers >= 0) & (centers <= distance)).all()
    assert assignment.isfinite().all()
    (gradient,) = torch.autograd.grad(centers.sum(), points)
    assert gradient.isfinite().all()


def test_gradient_through_all_iterations() -> None:
    points, init = (t.requires_grad_() for t in (make(2, 5, 3), make(2, 2, 3, seed=1)))

    def function(points: Tensor, init: Tensor | None = None) -> tuple[Tensor, ...]:
        return soft_kmeans(points, 2, sharpness=2.0, iterations=3, init="strided" if init is None else init)

    for inputs in ((points, init), (points,)):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("filler", [torch.nan, torch.inf])
def test_a_set_with_nan_or_inf_does_not_affect_the_others(filler: float) -> None:
    points = make()
    spoiled = points.clone()
    spoiled[1, 2, 0] = filler
    spoiled.requires_grad_()
    expected, result = soft_kmeans(points, 2), soft_kmeans(spoiled, 2)
    for value, wanted in zip(result, expected, strict=True):
        assert value[1].isnan().any()
        torch.testing.assert_close(value[::2], wanted[::2])
    (gradient,) = torch.autograd.grad(result.centers[::2].sum(), spoiled)
    assert gradient[::2].isfinite().all()


def test_dtypes_and_an_empty_batch() -> None:
    points = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clusters = soft_kmeans(points.bfloat16(), 2)
    assert {x.dtype for x in clusters} == {torch.float32}
    for value, wanted in zip(clusters, soft_kmeans(points.bfloat16().double(), 2), strict=True):
        torch.testing.assert_close(value, wanted.float(), atol=1e-3, rtol=0)
    assert soft_kmeans(points.float(), 2, init=make(count=2)).centers.dtype == torch.float64
    assert soft_kmeans(points[:0], 2).assignment.shape == (0, 2, 7)


def test_compiles_to_one_graph_for_every_batch_size() -> None:
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(soft_kmeans, fullgraph=True, backend=counter)
    for batch in (4, 3):
        points = make(batch)
        torch._dynamo.mark_dynamic(points, 0)
        torch.testing.assert_close(compiled(points, 2), soft_kmeans(points, 2))
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"num_centers": 0}, ValueError),
        ({"num_centers": 2.0}, TypeError),
        ({"iterations": 0}, ValueError),
        ({"sharpness": 0.0}, ValueError),
        ({"init": "first"}, ValueError),
        ({"init": torch.zeros(3, 3, 4)}, ValueError),
        ({"init": torch.zeros(3, 2, 5)}, ValueError),
        ({"init": torch.zeros(3, 2, 4, dtype=torch.int64)}, TypeError),
        ({"points": torch.zeros(3, 0, 4)}, ValueError),
        ({"points": torch.zeros(3, 4)}, ValueError),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Expected `{next(iter(change))}` to .*, but got"):
        soft_kmeans(**{"points": make(), "num_centers": 2} | change)
