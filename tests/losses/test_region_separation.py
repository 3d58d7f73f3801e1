"""Separation: equal to a loop with the exact distance; its properties, and where optimizing it and ORI leads."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import (
    ObjectAwareObjective,
    ObjectRegionSeparationLoss,
    ORILoss,
    object_region_separation_loss,
    similarity_map,
)
from sslosses.transport import ConvergenceWarning, Problem, Solution
from sslosses.transport.solvers.exact import ExactSolver

Batch = tuple[Tensor, Tensor, Tensor]
OPTIONS: dict[str, Any] = {"margin": 0.6, "temperature": 0.4}
EXACT: dict[str, Any] = OPTIONS | {"solver": "exact", "epsilon": 0}
TIGHT: dict[str, Any] = OPTIONS | {"solver": "dense", "epsilon": 0.1, "max_iter": 1000, "tol": 1e-11}
MASK = torch.tensor([[True, True], [True, False], [False, True]])


def make(batch: int = 3, sources: int = 2, size: tuple[int, int] = (2, 3), channels: int = 5, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, channels, *size), (batch, sources, channels), (batch, channels))
    visual, foreground, background = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return visual, foreground, background


def prescribed(maps: Tensor) -> Batch:
    """Features and references whose maps are ``maps`` (S, H, W), with Σ S² at most 1 in every pixel."""
    rest = (1 - maps.square().sum(0)).clamp(min=0).sqrt()
    references = torch.eye(len(maps) + 1, dtype=maps.dtype)[: len(maps)]
    return torch.cat([maps, rest[None]])[None], references[None, :-1], references[None, -1]


def loop(
    inputs: Batch, mask: Tensor | None, margin: float, temperature: float, background_mask: Tensor | None = None
) -> list[float]:
    """The formula for each sample and pair, with the exact distance by POT."""
    ot = pytest.importorskip("ot")
    visual, foreground, background = inputs
    height, width = visual.shape[-2:]
    pixels = [(y, x) for y in range(height) for x in range(width)]
    position = [((y + 0.5) / max(height, width), (x + 0.5) / max(height, width)) for y, x in pixels]
    cost = torch.tensor([[math.dist(p, q) for q in position] for p in position], dtype=torch.float64).numpy()
    losses = []
    for i in range(len(visual)):
        references = [r for k, r in enumerate(foreground[i]) if mask is None or mask[i, k]]
        if background_mask is None or background_mask[i]:
            references.append(background[i])
        measures = []
        for r in references:
            pixel = [visual[i, :, y, x] for y, x in pixels]
            weights = [math.exp(float(v @ r / (v.norm() * r.norm())) / temperature) for v in pixel]
            measures.append(torch.tensor(weights, dtype=torch.float64).numpy() / math.fsum(weights))
        total = 0.0
        for n in range(len(measures)):
            for m in range(n + 1, len(measures)):
                total += max(0.0, margin - float(ot.emd2(measures[n], measures[m], cost)))
        losses.append(total)
    return losses


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize(("margin", "temperature"), [(0.6, 0.4), (0.9, 0.1), (0.3, 1.0)])
@pytest.mark.parametrize("size", [(2, 3), (4, 3)])
def test_equals_the_loop(mask: Tensor | None, margin: float, temperature: float, size: tuple[int, int]) -> None:
    inputs = make(size=size)
    expected = torch.tensor(loop(inputs, mask, margin, temperature), dtype=torch.float64)
    assert bool(expected.any())
    options = EXACT | {"margin": margin, "temperature": temperature}
    for reduction, wanted in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
        actual = object_region_separation_loss(*inputs, mask, **options, reduction=reduction)
        torch.testing.assert_close(actual.loss, wanted, atol=1e-10, rtol=0)


def test_samples_without_a_background_caption_equal_the_loop() -> None:
    """Their pairs are those of the sources; the second sample has a single source, so no pair, and is left out."""
    visual, foreground, background = inputs = make(4)
    mask = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    background_mask = torch.tensor([False, False, True, True])
    expected = torch.tensor(loop(inputs, mask, 0.6, 0.4, background_mask), dtype=torch.float64)
    assert (expected != 0).tolist() == [True, False, True, True]
    background = background.where(background_mask[:, None], torch.nan)
    for reduction, wanted in (("none", expected), ("sum", expected.sum()), ("mean", expected.sum() / 3)):
        actual = ObjectRegionSeparationLoss(**EXACT, reduction=reduction)(
            visual, foreground, background, mask, background_mask
        )
        torch.testing.assert_close(actual, wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", ["transport", "divergence"])
def test_tends_to_the_exact_distance(kind: str) -> None:
    inputs = make(size=(3, 3))
    expected = object_region_separation_loss(*inputs, **EXACT).distances
    gaps = []
    for epsilon in (0.2, 0.05, 0.0125):
        options = TIGHT | {"epsilon": epsilon, "tol": 1e-9, "kind": kind}
        gaps.append(float((object_region_separation_loss(*inputs, **options).distances - expected).abs().max()))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]


def test_defaults() -> None:
    inputs = make()
    loss = ObjectRegionSeparationLoss(max_iter=1000)
    assert loss.kind == "divergence"
    spelled = ObjectRegionSeparationLoss(margin=0.2, temperature=0.1, kind="divergence", max_iter=1000)
    assert torch.equal(loss(*inputs), spelled(*inputs))
    # At ε = 0 there is nothing to debias.
    exact = {kind: ObjectRegionSeparationLoss(epsilon=0, kind=kind)(*inputs) for kind in ("divergence", "transport")}
    assert torch.equal(exact["divergence"], exact["transport"])
    paper = ORILoss(max_iter=1000)
    assert (paper.formulation, paper.kind) == ("pointcloud", "transport")
    expected = ORILoss(formulation="pointcloud", kind="transport", max_iter=1000)
    assert torch.equal(paper(*inputs), expected(*inputs))


def test_at_epsilon_0_no_self_problem_is_solved() -> None:
    solver = CountingSolver()
    object_region_separation_loss(*make(), epsilon=0, solver=solver)
    assert solver.problems == 9  # three samples with three pairs each


class CountingSolver:
    """The exact solver, counting its problems."""

    name, entropic, unrolled, lazy = "counting", False, False, False

    def __init__(self) -> None:
        self.problems = 0

    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: Any) -> Solution:
        self.problems += problem.a.shape[0]
        return ExactSolver().solve(problem, max_iter=max_iter, tol=tol, init=init)


@pytest.mark.parametrize("options", [EXACT, TIGHT])
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_equal_maps_cost_the_margin_per_pair(options: dict[str, Any], sources: int) -> None:
    visual, _, background = make(2)
    for features in (visual, torch.ones_like(visual)):  # one map for all references, and a constant one
        terms = object_region_separation_loss(
            features, background[:, None].expand(-1, sources, -1), background, **options
        )
        assert float(terms.loss) == pytest.approx(0.6 * sources * (sources + 1) / 2, abs=1e-9)
        torch.testing.assert_close(terms.distances, torch.zeros_like(terms.distances), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", ["transport", "regularized"])
def test_without_debiasing_constant_maps_reach_the_margin(kind: str) -> None:
    """Why the divergence is the default: at a large ε ⟨P, C⟩ of equal maps reaches the margin."""
    visual, foreground, background = make(1, size=(8, 8))
    inputs = torch.ones_like(visual), foreground, background
    options: dict[str, Any] = {"epsilon": 0.2}
    assert float(object_region_separation_loss(*inputs, **options, kind=kind).loss) == 0
    assert float(object_region_separation_loss(*inputs, **options).loss) == pytest.approx(0.6)


@pytest.mark.parametrize("options", [EXACT, TIGHT, TIGHT | {"kind": "transport"}])
def test_single_pixels_further_apart_than_the_margin_cost_nothing(options: dict[str, Any]) -> None:
    maps = torch.zeros(3, 4, 4, dtype=torch.float64)
    maps[0, 0, 0] = maps[1, 3, 3] = maps[2, 0, 3] = 1
    inputs = prescribed(maps)
    side, far = 0.75, 0.75 * math.sqrt(2)
    sharp = options | {"temperature": 0.02}
    terms = object_region_separation_loss(*inputs, **sharp)
    assert float(terms.loss) == 0
    expected = torch.tensor([[0, far, side], [far, 0, side], [side, side, 0]], dtype=torch.float64)
    torch.testing.assert_close(terms.distances[0], expected, atol=1e-9, rtol=0)
    assert float(object_region_separation_loss(*inputs, **(sharp | {"margin": 1.0})).loss) == pytest.approx(0.5)


@pytest.mark.parametrize("options", [EXACT, TIGHT])
def test_invariances(options: dict[str, Any]) -> None:
    visual, foreground, background = make()
    expected = object_region_separation_loss(visual, foreground, background, MASK, **options, reduction="none")
    assert torch.equal(expected.distances, expected.distances.mT)

    order = torch.tensor([2, 0, 1])
    moved = object_region_separation_loss(
        *(t[order] for t in (visual, foreground, background)), MASK[order], **options, reduction="none"
    )
    torch.testing.assert_close(moved.loss, expected.loss[order], atol=1e-10, rtol=0)
    alone = [
        object_region_separation_loss(
            visual[i : i + 1], foreground[i : i + 1], background[i : i + 1], MASK[i : i + 1], **options
        )
        for i in range(3)
    ]
    mean = object_region_separation_loss(visual, foreground, background, MASK, **options).loss
    torch.testing.assert_close(mean, torch.stack([each.loss for each in alone]).mean(), atol=1e-10, rtol=0)

    # The background is a reference like the others: every order of all references has the same loss.
    references = torch.cat([foreground, background[:, None]], 1)
    losses = [
        object_region_separation_loss(visual, references[:, p[:2]], references[:, p[2]], **options).loss
        for p in map(list, itertools.permutations(range(3)))
    ]
    torch.testing.assert_close(torch.stack(losses), losses[0].expand(6), atol=1e-10, rtol=0)

    # Adding a constant to a map changes nothing.
    maps = 0.5 * torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 2
    shifted = maps + torch.tensor([0.2, -0.3, 0.1], dtype=torch.float64)[:, None, None]
    one, other = (object_region_separation_loss(*prescribed(m), **options).loss for m in (maps, shifted))
    assert float(one) > 0
    torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_padded_references_stay_out() -> None:
    visual, foreground, background = make()
    expected = object_region_separation_loss(visual, foreground, background, MASK, **TIGHT, reduction="none").loss
    unseen = foreground.where(MASK[..., None], torch.nan).requires_grad_()
    terms = object_region_separation_loss(visual, unseen, background, MASK, **TIGHT, reduction="none")
    torch.testing.assert_close(terms.loss, expected, atol=0, rtol=0)
    terms.loss.sum().backward()
    assert unseen.grad is not None
    assert torch.isfinite(unseen.grad).all()
    assert not unseen.grad[~MASK].any()
    assert unseen.grad[MASK].any(-1).all()


@pytest.mark.parametrize("options", [EXACT, TIGHT])
@pytest.mark.parametrize(
    ("batch", "sources", "mask"), [(3, 2, torch.zeros(3, 2, dtype=torch.bool)), (0, 2, None), (2, 0, None)]
)
def test_nothing_left_is_a_zero_with_its_graph(
    batch: int, sources: int, mask: Tensor | None, options: dict[str, Any]
) -> None:
    visual, foreground, background = make(batch, sources)
    visual.requires_grad_()
    for reduction in ("mean", "sum", "none"):
        loss = object_region_separation_loss(visual, foreground, background, mask, **options, reduction=reduction).loss
        assert not loss.any()
        (gradient,) = torch.autograd.grad(loss.sum(), visual)
        assert not gradient.any()


@pytest.mark.parametrize("kind", ["divergence", "transport", "regularized"])
def test_exact_gradient_is_that_of_the_value(kind: str) -> None:
    inputs = tuple(t.requires_grad_() for t in make(1, 3, (1, 3), 3))
    mask = torch.tensor([[True, True, False]])
    options = TIGHT | {"kind": kind, "epsilon": 0.3}
    with torch.no_grad():
        distances = object_region_separation_loss(*inputs, mask, **options).distances[0, [0, 0, 1], [1, 3, 3]]
    # A margin between the distances: some pairs have a loss, others have none.
    options["margin"] = float(distances.sort().values[:2].mean())
    assert torch.autograd.gradcheck(lambda *t: object_region_separation_loss(*t, mask, **options).loss, inputs)


def test_gradient_of_the_exact_solver() -> None:
    inputs = tuple(t.requires_grad_() for t in make(1, 2, (2, 2), 4))
    assert torch.autograd.gradcheck(lambda *t: object_region_separation_loss(*t, **EXACT).loss, inputs)


def equal_maps(kind: str) -> Batch:
    visual, foreground, background = make(size=(4, 4))
    if kind == "constant":
        return torch.ones_like(visual), foreground, background
    return visual, background[:, None].expand(-1, 2, -1).clone(), background


@pytest.mark.parametrize("options", [EXACT, OPTIONS, OPTIONS | {"kind": "transport"}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["constant", "equal"])
def test_equal_maps_give_finite_gradients(kind: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    visual, foreground, background = (t.to(dtype) for t in equal_maps(kind))
    visual.requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype.itemsize == 2):
        loss = ObjectRegionSeparationLoss(**(options | {"max_iter": 500}))(visual, foreground, background)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    loss.backward()
    assert visual.grad is not None
    assert torch.isfinite(visual.grad).all()


def test_the_kink_has_a_finite_gradient() -> None:
    maps = torch.zeros(2, 1, 2, dtype=torch.float64)
    maps[0, 0, 0] = maps[1, 0, 1] = 1
    visual, foreground, background = prescribed(maps)
    distance = float(object_region_separation_loss(visual, foreground, background, **EXACT).distances[0, 0, 1])
    visual.requires_grad_()
    loss = object_region_separation_loss(visual, foreground, background, **(EXACT | {"margin": distance})).loss
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, visual)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("kind", ["constant"])
def test_equal_maps_are_a_maximum_that_any_difference_leaves(kind: str) -> None:
    """Equal maps have no gradient, but noise of 0.001 is enough to descend to the margin."""
    visual, foreground, background = equal_maps(kind)
    options = TIGHT | {"temperature": 0.1, "margin": 0.2, "tol": 1e-10, "max_iter": 1000}
    visual.requires_grad_()
    start = object_region_separation_loss(visual, foreground, background, **options).loss
    (gradient,) = torch.autograd.grad(start, visual)
    assert float(gradient.abs().max()) < 1e-8

    noise = torch.randn(2, *foreground.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moved = visual.detach() + 1e-3 * torch.randn(visual.shape, generator=torch.Generator().manual_seed(3)).double()
    separation = ObjectRegionSeparationLoss(solver="dense", max_iter=1000, epsilon=0.1)
    loss = optimize(separation, moved, foreground + 1e-3 * noise[0], background, steps=60, rate=0.05)[0]
    assert start.item() == pytest.approx(0.6, abs=1e-9)
    assert loss < 0.01


def optimize(
    loss: nn.Module, visual: Tensor, foreground: Tensor, background: Tensor, *, steps: int, rate: float
) -> tuple[float, Tensor, Tensor]:
    """Optimize the features by Adam; return the last loss, the maps and their exact distances."""
    visual = visual.clone().requires_grad_()
    optimizer = torch.optim.Adam([visual], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(visual, foreground, background)
        value.backward()
        optimizer.step()
        schedule.step()
    maps = similarity_map(visual.detach(), torch.cat([foreground, background[:, None]], 1))
    exact = object_region_separation_loss(visual.detach(), foreground, background, solver="exact", epsilon=0)
    return value.item(), maps, exact.distances


def test_where_separation_and_ori_lead() -> None:
    """From one start: separation moves the maps apart, ORI flattens them, which is its flaw."""
    visual, _, _ = make(1, 2, (4, 4), 6)
    references = torch.eye(6, dtype=torch.float64)[None, :3]
    free = visual, references[:, :2], references[:, 2]
    pairs = torch.triu(torch.ones(1, 3, 3, dtype=torch.bool), 1)
    before = object_region_separation_loss(*free, temperature=0.2, solver="exact", epsilon=0)
    assert float(before.distances[pairs].max()) < 0.45
    spread = float(similarity_map(visual, references).flatten(2).std(-1).mean())

    options: dict[str, Any] = {"solver": "dense", "max_iter": 1000, "epsilon": 0.1}
    separation = ObjectRegionSeparationLoss(margin=0.6, temperature=0.2, **options)
    loss, maps, distances = optimize(separation, *free, steps=80, rate=0.05)
    assert loss < 0.15  # of 1.8
    assert float(distances[pairs].min()) > 0.55
    assert float(maps.flatten(2).std(-1).min()) > 0.5 * spread

    # The divergence of constant maps is 0; their ⟨P, C⟩ is above 0, because the plan has a width.
    loss, maps, distances = optimize(ORILoss(kind="divergence", **options), *free, steps=200, rate=0.05)
    assert loss < 0.05
    collapsed = maps.flatten(2).std(-1)
    assert float(collapsed.max()) < 0.01 * spread
    torch.testing.assert_close(maps, torch.full_like(maps, 0.5), atol=0.01, rtol=0)


def test_module_is_the_function_and_keeps_its_options() -> None:
    inputs = make()
    options: dict[str, Any] = OPTIONS | {"solver": "dense", "epsilon": 0.2, "max_iter": 300, "kind": "regularized"}
    loss = ObjectRegionSeparationLoss(**options)
    expected = object_region_separation_loss(*inputs, MASK, **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(*inputs, MASK), expected)
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())
    objective = ObjectAwareObjective(oca_weight=0, ori_weight=0.5, ori=loss)
    visual, foreground, background = inputs
    terms = objective.terms(visual, background, foreground, background, MASK)
    assert torch.equal(terms.ori, expected)
    assert torch.equal(terms.total, 0.5 * expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"margin": 0}, ValueError, "`margin` to be a finite number and > 0"),
        ({"margin": "0.2"}, TypeError, "`margin`"),
        ({"temperature": 0.0}, ValueError, "`temperature`"),
        ({"target": "separate"}, TypeError, "unexpected keyword argument 'target'"),
        ({"formulation": "distribution"}, TypeError, "unexpected keyword argument 'formulation'"),
        ({"normalize": "softmax"}, TypeError, "unexpected keyword argument 'normalize'"),
        ({"kind": "loss"}, ValueError, "`kind`"),
        ({"epsilon": -1}, ValueError, "`epsilon`"),
        ({"epsilon": "0"}, TypeError, "`epsilon`"),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ObjectRegionSeparationLoss(**options)
    with pytest.raises(error, match=message):
        object_region_separation_loss(*make(), **options)


def test_warm_start_serves_the_halved_pairs() -> None:
    inputs = make()
    options: dict[str, Any] = {"solver": "dense", "kind": "transport", "tol": 1e-6}
    loss = ObjectRegionSeparationLoss(**options, max_iter=2000, warm_start=True)
    first = loss(*inputs, MASK)
    assert object_region_separation_loss(*inputs, MASK, **options).potentials[0].shape == (3, 3, 6)
    loss.max_iter = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        torch.testing.assert_close(loss(*inputs, MASK), first, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
def test_compiles_to_one_graph() -> None:
    torch.compiler.reset()
    loss = ObjectRegionSeparationLoss(**OPTIONS, solver="dense", max_iter=2)
    loss._warned = True
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch in (3, 2):
        inputs = *make(batch), MASK[:batch].clone()
        inputs[3][0] = False
        for t in inputs:
            torch._dynamo.mark_dynamic(t, 0)
        inputs[0].requires_grad_()
        expected, actual = loss(*inputs), compiled(*inputs)
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)
        (wanted,), (got,) = torch.autograd.grad(expected, inputs[0]), torch.autograd.grad(actual, inputs[0])
        torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)
    assert counter.frame_count == 1
