"""ORI: equal to a Sinkhorn loop and to the exact distance; identities, invariances and degenerate batches."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import ObjectRegionIsolationLoss, ORILoss, object_region_isolation_loss
from sslosses.transport import ConvergenceWarning, available
from sslosses.transport.solvers.dense import DenseSolver

Batch = tuple[Tensor, Tensor, Tensor]
KEOPS = pytest.mark.skipif(not available()["geomloss-keops"], reason=str(available()["geomloss-keops"]))
TIGHT: dict[str, Any] = {"solver": "dense", "epsilon": 0.1, "max_iter": 5000, "tol": 1e-13}
MASK = torch.tensor([[True, True], [True, False], [False, True]])


def make(batch: int = 3, sources: int = 2, size: tuple[int, int] = (2, 3), channels: int = 5, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return normal(batch, channels, *size), normal(batch, sources, channels), normal(batch, channels)


def loop_sinkhorn(cost: list[list[float]], a: list[float], b: list[float], epsilon: float) -> float:
    """<P, C> of the entropic plan: rows and columns with mass are scaled until nothing changes."""
    rows, columns = [x for x in range(len(a)) if a[x] > 0], [y for y in range(len(b)) if b[y] > 0]
    kernel = {(x, y): a[x] * b[y] * math.exp(-cost[x][y] / epsilon) for x in rows for y in columns}
    v = dict.fromkeys(columns, 1.0)
    for _ in range(3000):
        u = {x: a[x] / sum(kernel[x, y] * v[y] for y in columns) for x in rows}
        new = {y: b[y] / sum(kernel[x, y] * u[x] for x in rows) for y in columns}
        moved, v = max(abs(math.log(new[y] / v[y])) for y in columns), new
        if moved < 1e-14:
            break
    return sum(u[x] * kernel[x, y] * v[y] * cost[x][y] for x in rows for y in columns)


def exact_distance(cost: list[list[float]], a: list[float], b: list[float], epsilon: float) -> float:
    """The linear program, solved by scipy."""
    optimize = pytest.importorskip("scipy.optimize")
    n, m = len(a), len(b)
    sums = [[1.0 if z // m == x else 0.0 for z in range(n * m)] for x in range(n)]
    sums += [[1.0 if z % m == y else 0.0 for z in range(n * m)] for y in range(m)]
    return float(optimize.linprog([c for row in cost for c in row], A_eq=sums, b_eq=[*a, *b], method="highs").fun)


def measure(values: list[float], normalize: str) -> list[float]:
    if normalize == "softmax":
        values = [math.exp(v) for v in values]
    elif normalize == "relu":
        values = [max(v, 0.0) for v in values]
    else:
        values = [v - min(values) for v in values]
    return [v / sum(values) if sum(values) > 0 else 1 / len(values) for v in values]


def loop(
    inputs: Batch,
    mask: Tensor | None = None,
    formulation: str = "pointcloud",
    normalize: str = "softmax",
    weights: tuple[float, float] = (1.0, 1.0),
    epsilon: float = 0.1,
    distance: Any = loop_sinkhorn,
    background_mask: Tensor | None = None,
) -> list[float]:
    """Eq. 7 and Algorithm 1, over all ordered pairs of references that exist, sample by sample."""
    visual, foreground, background = inputs
    batch, _, height, width = visual.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    position = [((y + 0.5) / max(height, width), (x + 0.5) / max(height, width)) for y, x in pixels]
    losses = []
    for i in range(batch):
        references = [foreground[i, k] for k in range(foreground.shape[1]) if mask is None or mask[i, k]]
        if background_mask is None or background_mask[i]:
            references.append(background[i])
        maps = [
            [float(visual[i, :, y, x] @ r / (visual[i, :, y, x].norm() * r.norm())) for y, x in pixels]
            for r in references
        ]
        total = 0.0
        for n in range(len(maps)):
            for m in range(len(maps)):
                if n == m:
                    continue
                first, second = maps[n], [1 - s for s in maps[m]]
                away = [[math.dist(p, q) for q in position] for p in position]
                if formulation == "pointcloud":
                    cost = [
                        [weights[0] * abs(s - t) + weights[1] * d for t, d in zip(second, row, strict=True)]
                        for s, row in zip(first, away, strict=True)
                    ]
                    uniform = [1 / len(pixels)] * len(pixels)
                    total += distance(cost, uniform, uniform, epsilon)
                else:
                    total += distance(away, measure(first, normalize), measure(second, normalize), epsilon)
        losses.append(total)
    return losses


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0)])
def test_pointcloud_equals_the_loop(mask: Tensor | None, weights: tuple[float, float]) -> None:
    inputs = make()
    expected = torch.tensor(loop(inputs, mask, weights=weights, epsilon=0.3), dtype=torch.float64)
    options = TIGHT | {"value_weight": weights[0], "position_weight": weights[1], "epsilon": 0.3}
    for reduction, wanted in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
        terms = object_region_isolation_loss(*inputs, mask, **options, reduction=reduction)
        torch.testing.assert_close(terms.loss, wanted, atol=1e-10, rtol=0)
        assert bool(terms.converged)
        torch.testing.assert_close(terms.distances.sum((1, 2)), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("normalize", ["softmax", "relu", "shift"])
def test_distribution_equals_the_loop(mask: Tensor | None, normalize: str) -> None:
    inputs = make()
    expected = torch.tensor(loop(inputs, mask, "distribution", normalize), dtype=torch.float64)
    options = TIGHT | {"formulation": "distribution", "normalize": normalize}
    terms = object_region_isolation_loss(*inputs, mask, **options, reduction="none")
    torch.testing.assert_close(terms.loss, expected, atol=1e-10, rtol=0)
    if normalize != "shift":
        return
    assert not torch.allclose(terms.distances[0], terms.distances[0].T)


@pytest.mark.parametrize("formulation", ["pointcloud", "distribution"])
def test_exact_solver_equals_the_linear_program(formulation: str) -> None:
    inputs = make(2)
    expected = torch.tensor(loop(inputs, formulation=formulation, distance=exact_distance), dtype=torch.float64)
    options: dict[str, Any] = {"solver": "exact", "epsilon": 0, "formulation": formulation}
    actual = object_region_isolation_loss(*inputs, **options, reduction="none").loss
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("formulation", ["pointcloud", "distribution"])
def test_samples_without_a_background_caption_equal_the_loop(formulation: str) -> None:
    """Their pairs are those of the sources; the second sample has a single source, so no pair, and is left out."""
    visual, foreground, background = inputs = make(4)
    mask = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    background_mask = torch.tensor([False, False, True, True])
    expected = torch.tensor(loop(inputs, mask, formulation, background_mask=background_mask), dtype=torch.float64)
    assert (expected != 0).tolist() == [True, False, True, True]
    background = background.where(background_mask[:, None], torch.nan).requires_grad_()
    options = TIGHT | {"formulation": formulation}
    for reduction, wanted in (("none", expected), ("sum", expected.sum()), ("mean", expected.sum() / 3)):
        terms = object_region_isolation_loss(
            visual, foreground, background, mask, background_mask, **options, reduction=reduction
        )
        torch.testing.assert_close(terms.loss, wanted, atol=1e-10, rtol=0)
        assert bool(terms.converged)
        (gradient,) = torch.autograd.grad(terms.loss.sum(), background)
        assert gradient.isfinite().all()
        assert not gradient[~background_mask].any()
        module = ORILoss(**options, reduction=reduction)
        assert torch.equal(module(visual, foreground, background, mask, background_mask), terms.loss)


def test_transposed_pairs_are_equal() -> None:
    """The reason why only half of the pairs are solved. The loop solves both of each."""
    visual, foreground, background = make(1, 1)
    one = loop((visual, foreground, background))
    other = loop((visual, background[:, None], foreground[:, 0]))
    assert one == pytest.approx(other, abs=1e-12)
    distances = object_region_isolation_loss(*make(), **TIGHT).distances
    assert torch.equal(distances, distances.mT)
    assert not distances.diagonal(dim1=1, dim2=2).any()


def test_constant_half_maps_cost_nothing() -> None:
    """The known flaw: constant maps S = 1/2 satisfy every pair."""
    visual = torch.zeros(1, 3, 3, 3).double()
    visual[:, 0] = 1
    half = torch.tensor([0.5, 0.75**0.5, 0.0], dtype=torch.float64)
    inputs = visual, half.expand(1, 2, 3), half[None]
    exact = object_region_isolation_loss(*inputs, solver="exact", epsilon=0).loss
    assert float(exact) == pytest.approx(0, abs=1e-12)
    entropic = [
        float(object_region_isolation_loss(*inputs, solver="dense", epsilon=e, max_iter=2000).loss)
        for e in (0.02, 0.05, 0.1)
    ]
    assert 0 <= entropic[0] < entropic[1] < entropic[2]
    assert entropic[0] < 1e-3


def test_kinds_differ_as_defined() -> None:
    inputs = make()
    values = {
        kind: float(object_region_isolation_loss(*inputs, **TIGHT, kind=kind).loss)
        for kind in ("transport", "regularized", "divergence")
    }
    exact = float(object_region_isolation_loss(*inputs, solver="exact", epsilon=0).loss)
    assert exact < values["transport"] < values["regularized"]
    assert values["divergence"] < values["regularized"]
    divergence = float(
        object_region_isolation_loss(*inputs, **TIGHT, kind="divergence", formulation="distribution").loss
    )
    assert divergence >= 0


@pytest.mark.parametrize("formulation", ["pointcloud", "distribution"])
@pytest.mark.parametrize("solver", ["pot", "pot-batch", "geomloss", pytest.param("geomloss-keops", marks=KEOPS)])
def test_every_sinkhorn_solver_serves_both_formulations(solver: str, formulation: str) -> None:
    options: dict[str, Any] = {"formulation": formulation, "epsilon": 0.2, "max_iter": 1000, "tol": 1e-10}
    batch = make()
    expected = object_region_isolation_loss(*batch, solver="dense", **options).distances
    terms = object_region_isolation_loss(*batch, solver=solver, **options)
    assert bool(terms.converged)
    torch.testing.assert_close(terms.distances, expected, rtol=1e-8, atol=1e-8)


def test_divergence_reports_self_problems_that_did_not_converge() -> None:
    # Against a constant map the cost depends on one side only, which converges at once. A self problem does not.
    visual, foreground, background = make(sources=1)
    batch = visual, foreground, torch.zeros_like(background)
    few: dict[str, Any] = {"position_weight": 0.0, "epsilon": 0.05, "max_iter": 2, "tol": 1e-9}
    assert bool(object_region_isolation_loss(*batch, **few).converged)
    assert not bool(object_region_isolation_loss(*batch, kind="divergence", **few).converged)
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        ORILoss(kind="divergence", **few)(*batch)


@pytest.mark.parametrize("formulation", ["pointcloud", "distribution"])
@pytest.mark.parametrize("kind", ["transport", "regularized", "divergence"])
def test_exact_gradient_is_that_of_the_value(formulation: str, kind: str) -> None:
    visual, foreground, background = make(2, 2, (2, 2), 4)
    inputs = tuple(t.requires_grad_() for t in (visual, foreground, background))
    mask = torch.tensor([[True, False], [True, True]])
    options = TIGHT | {"formulation": formulation, "kind": kind, "epsilon": 0.3, "max_iter": 200}
    assert torch.autograd.gradcheck(lambda *t: object_region_isolation_loss(*t, mask, **options).loss, inputs)


def test_gradient_options() -> None:
    visual, foreground, background = make()
    visual.requires_grad_()
    options = TIGHT | {"max_iter": 400}
    gradients = {}
    for gradient in ("exact", "envelope", "unrolled"):
        loss = object_region_isolation_loss(visual, foreground, background, **options, gradient=gradient).loss
        (gradients[gradient],) = torch.autograd.grad(loss, visual)
    torch.testing.assert_close(gradients["exact"], gradients["unrolled"], atol=1e-8, rtol=0)
    assert not torch.allclose(gradients["exact"], gradients["envelope"], atol=1e-3)


def test_invariances() -> None:
    inputs = make()
    visual, foreground, background = inputs
    expected = object_region_isolation_loss(*inputs, MASK, **TIGHT, reduction="none").loss
    order = torch.tensor([2, 0, 1])
    permuted = object_region_isolation_loss(*(t[order] for t in inputs), MASK[order], **TIGHT, reduction="none").loss
    torch.testing.assert_close(permuted, expected[order], atol=1e-11, rtol=0)
    swapped = object_region_isolation_loss(visual, foreground.flip(1), background, MASK.flip(1), **TIGHT).loss
    torch.testing.assert_close(swapped, expected.mean(), atol=1e-11, rtol=0)
    scaled = object_region_isolation_loss(visual * 1e30, foreground * 1e-30, background * 3, MASK, **TIGHT).loss
    torch.testing.assert_close(scaled, expected.mean(), atol=1e-11, rtol=0)
    odd = visual.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    torch.testing.assert_close(
        object_region_isolation_loss(odd, foreground, background, MASK, **TIGHT).loss, expected.mean()
    )

    wide = torch.cat([foreground, torch.full((3, 2, 5), torch.nan).double()], 1).where(
        torch.cat([MASK, torch.zeros(3, 2, dtype=torch.bool)], 1)[..., None], torch.nan
    )
    wide.requires_grad_()
    padded = object_region_isolation_loss(
        visual, wide, background, torch.cat([MASK, torch.zeros(3, 2, dtype=torch.bool)], 1), **TIGHT, reduction="none"
    )
    torch.testing.assert_close(padded.loss, expected, atol=1e-11, rtol=0)
    assert padded.distances.shape == (3, 5, 5)
    padded.loss.sum().backward()
    assert wide.grad is not None
    assert torch.isfinite(wide.grad).all()
    assert not wide.grad[:, 2:].any()


def test_a_sample_without_sources_is_left_out() -> None:
    inputs = make()
    mask = torch.tensor([[True, True], [False, False], [True, True]])
    rest = torch.tensor([0, 2])
    actual = object_region_isolation_loss(*inputs, mask, **TIGHT).loss
    expected = object_region_isolation_loss(*(t[rest] for t in inputs), **TIGHT).loss
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("formulation", ["pointcloud", "distribution"])
@pytest.mark.parametrize("solver", ["dense", "exact"])
@pytest.mark.parametrize(
    ("batch", "sources", "mask"), [(3, 2, torch.zeros(3, 2, dtype=torch.bool)), (0, 2, None), (2, 0, None)]
)
def test_nothing_left_is_a_zero_with_its_graph(
    batch: int, sources: int, mask: Tensor | None, solver: str, formulation: str
) -> None:
    visual, foreground, background = make(batch, sources)
    visual.requires_grad_()
    options: dict[str, Any] = {
        "solver": solver,
        "epsilon": 0.05 if solver == "dense" else 0,
        "formulation": formulation,
    }
    for reduction in ("mean", "sum", "none"):
        terms = object_region_isolation_loss(visual, foreground, background, mask, **options, reduction=reduction)
        assert not terms.loss.any()
        assert bool(terms.converged)
        (gradient,) = torch.autograd.grad(terms.loss.sum(), visual)
        assert not gradient.any()


def test_one_pixel() -> None:
    visual, foreground, background = make(2, 1, (1, 1))
    expected = loop((visual, foreground, background))
    actual = object_region_isolation_loss(visual, foreground, background, **TIGHT, reduction="none").loss
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)
    actual = object_region_isolation_loss(visual, foreground, background, **TIGHT, formulation="distribution").loss
    assert float(actual) == 0


@pytest.mark.parametrize("formulation", ["pointcloud", "distribution"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("level", [-1.0, 0.0, 0.5, 1.0])
def test_constant_maps_give_finite_gradients(level: float, dtype: torch.dtype, formulation: str) -> None:
    visual = torch.zeros(2, 3, 3, 3)
    visual[:, 0] = 1
    visual = visual.to(dtype).requires_grad_()
    reference = torch.tensor([level, math.sqrt(1 - level**2), 0.0]).to(dtype)
    for normalize in ("softmax", "relu", "shift"):
        visual.grad = None
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = ORILoss(formulation=formulation, normalize=normalize, epsilon=0.1, max_iter=500)(
                visual, reference.expand(2, 2, 3), reference.expand(2, 3)
            )
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        loss.backward()
        assert visual.grad is not None
        assert torch.isfinite(visual.grad).all()


def test_warns_once_per_instance_and_never_raises() -> None:
    inputs = make()
    loss = ORILoss(solver="dense", max_iter=1, epsilon=0.01)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=1: the marginal error is up to .* tol is 0.01. Raise"):
        loss(*inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.isfinite(loss(*inputs))
        assert not bool(object_region_isolation_loss(*inputs, solver="dense", max_iter=1, epsilon=0.01).converged)
    with pytest.warns(ConvergenceWarning):
        ORILoss(solver="dense", max_iter=1, epsilon=0.01)(*inputs)


def test_a_padded_pair_does_not_count_for_convergence() -> None:
    """Pairs of constant maps converge in one iteration, also beside a padded source."""
    visual, _, background = make(1, 1)
    inputs = visual, torch.zeros(1, 2, 5).double(), background * 0
    mask = torch.tensor([[True, False]])
    assert bool(object_region_isolation_loss(*inputs, mask, solver="dense", max_iter=1).converged)


def test_module_is_the_function() -> None:
    inputs = make()
    options: dict[str, Any] = {
        "solver": "dense",
        "epsilon": 0.2,
        "max_iter": 300,
        "tol": 1e-5,
        "formulation": "distribution",
        "kind": "regularized",
        "gradient": "envelope",
        "normalize": "relu",
        "value_weight": 0.5,
        "position_weight": 2.0,
        "reduction": "sum",
    }
    loss = ORILoss(**options)
    expected = object_region_isolation_loss(*inputs, MASK, **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(*inputs, MASK), expected)
    assert ORILoss is ObjectRegionIsolationLoss
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"sovler": "dense"}, TypeError),
        ({"target": "separate"}, TypeError),
        ({"margin": 0.2}, TypeError),
        ({"solver": "sinkhorn"}, ValueError),
        ({"formulation": "points"}, ValueError),
        ({"kind": "loss"}, ValueError),
        ({"gradient": "implicit"}, ValueError),
        ({"normalize": "sigmoid"}, ValueError),
        ({"reduction": "avg"}, ValueError),
        ({"epsilon": -1.0}, ValueError),
        ({"max_iter": 0}, ValueError),
        ({"tol": 0.0}, ValueError),
        ({"value_weight": -1.0}, ValueError),
        ({"epsilon": 0.1, "solver": "exact"}, ValueError),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        ORILoss(**options)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
@pytest.mark.parametrize("formulation", ["pointcloud", "distribution"])
def test_compiles_to_one_graph(formulation: str) -> None:
    """Compiled code masks padded pairs instead of leaving them out: same loss, gradient and convergence."""
    torch.compiler.reset()
    loss = ORILoss(solver="dense", formulation=formulation, max_iter=4)
    loss._warned = True
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch in (3, 2):
        visual, foreground, background = make(batch)
        mask = MASK[:batch].clone()
        mask[0] = False
        for t in (visual, foreground, background, mask):
            torch._dynamo.mark_dynamic(t, 0)
        visual.requires_grad_()
        expected, actual = loss(visual, foreground, background, mask), compiled(visual, foreground, background, mask)
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)
        (wanted,), (got,) = torch.autograd.grad(expected, visual), torch.autograd.grad(actual, visual)
        torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)
    assert counter.frame_count == 1


@pytest.mark.parametrize("formulation", ["pointcloud", "distribution"])
@pytest.mark.parametrize("solver", ["dense", "auto"])
def test_starting_from_the_last_potentials_saves_iterations(formulation, solver):
    generator = torch.Generator().manual_seed(5)
    visual = torch.randn(3, 6, 4, 5, generator=generator)
    references = torch.randn(3, 3, 6, generator=generator)
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    arguments = (references[:, :2], references[:, 2], mask)
    options = {"formulation": formulation, "solver": solver, "tol": 1e-4}
    first = object_region_isolation_loss(visual, *arguments, **options, max_iter=2000)
    assert first.converged
    pairs = 3 if formulation == "pointcloud" else 6
    assert all(x.shape == (3, pairs, 20) and not x.requires_grad for x in first.potentials)
    assert (first.potentials[0][2] == 0).all()
    # From the last potentials one update is enough; without them it is not.
    again = object_region_isolation_loss(visual, *arguments, **options, max_iter=1, init=first.potentials)
    assert again.converged
    torch.testing.assert_close(again.distances, first.distances, rtol=0, atol=1e-5)
    assert not object_region_isolation_loss(visual, *arguments, **options, max_iter=1).converged

    module = ObjectRegionIsolationLoss(**options, max_iter=2000, warm_start=True)
    torch.testing.assert_close(module(visual, *arguments), first.loss)
    module.max_iter = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(module(visual, *arguments), first.loss, rtol=0, atol=1e-5)
    assert module.state_dict() == {}
    # Without a warm start the last potentials are not used.
    module.warm_start = False
    with pytest.warns(ConvergenceWarning):
        cold = module(visual, *arguments)
    torch.testing.assert_close(cold, object_region_isolation_loss(visual, *arguments, **options, max_iter=1).loss)
    module.warm_start = True
    # Potentials of another shape are not used.
    module.max_iter = 2000
    torch.testing.assert_close(
        module(visual[:2], *(x[:2] for x in arguments)),
        object_region_isolation_loss(visual[:2], *(x[:2] for x in arguments), **options, max_iter=2000).loss,
    )


@pytest.mark.filterwarnings("ignore::sslosses.transport.ConvergenceWarning")
def test_a_batch_of_nan_does_not_stay_in_the_warm_start():
    """The gradient scaler skips a step that overflows in half precision. The next step has to work."""
    generator = torch.Generator().manual_seed(6)
    visual = torch.randn(2, 6, 3, 4, generator=generator)
    references = torch.randn(2, 2, 6, generator=generator)
    broken = visual.clone()
    broken[0, 0, 0, 0] = torch.inf
    module = ObjectRegionIsolationLoss(warm_start=True, reduction="none", max_iter=1000)
    assert module(broken, references[:, :1], references[:, 1]).isnan().tolist() == [True, False]
    expected = ObjectRegionIsolationLoss(reduction="none", max_iter=1000)(visual, references[:, :1], references[:, 1])
    torch.testing.assert_close(module(visual, references[:, :1], references[:, 1]), expected, rtol=0, atol=1e-2)


def test_potentials_that_cannot_be_used_are_refused():
    visual, references = torch.randn(1, 4, 2, 2), torch.randn(1, 2, 4)
    init = (torch.zeros(1, 1, 3), torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match=r"`init` to hold potentials of shape \(1, 1, 4\), but got \(1, 1, 3\)"):
        object_region_isolation_loss(visual, references[:, :1], references[:, 1], init=init)
    for options in ({"solver": "pot-batch"}, {"epsilon": 0}):
        with pytest.raises(ValueError, match="start from potentials"):
            ObjectRegionIsolationLoss(warm_start=True, **options)
    with pytest.raises(TypeError, match="`warm_start` to be True or False, but got 1"):
        ObjectRegionIsolationLoss(warm_start=1)


class Scaled(torch.nn.Module):
    """A solver with a parameter, which makes it a module."""

    name, entropic, unrolled, lazy = "scaled", True, False, False

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.calls = 0

    def solve(self, problem: Any, **options: Any) -> Any:
        self.calls += 1
        return DenseSolver().solve(problem, **options)


def test_a_solver_may_be_a_module() -> None:
    inputs = torch.randn(2, 5, 3, 4), torch.randn(2, 2, 5), torch.randn(2, 5)
    solver = Scaled()
    loss = ORILoss(solver=solver, max_iter=1000)
    assert loss.solver is solver
    torch.testing.assert_close(loss(*inputs), ORILoss(solver="dense", max_iter=1000)(*inputs))
    assert solver.calls == 1
    assert dict(loss.named_parameters()).keys() == {"solver.scale"}
    assert repr(copy.deepcopy(loss)) == repr(loss)
