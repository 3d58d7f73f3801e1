"""The cycle walk loss of Mix-and-Localize: equal to a loop written from its equation."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import CycleWalkLoss, SharedNodesWarning, cycle_walk_loss


def make(
    batch: int = 3, sources: int = 3, channels: int = 5, size: tuple[int, int] = (2, 3), seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, sources, channels, *size), (batch, sources, channels), (batch, sources, channels))
    visual, nodes, start_nodes = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return visual, nodes, start_nodes


def example() -> tuple[Tensor, Tensor, Tensor]:
    """Frames of two pixels: (1, 0), (.6, .8) and (0, 1), (.8, -.6)."""
    first, second = torch.tensor([[1.0, 0.6], [0.0, 0.8]]), torch.tensor([[0.0, 0.8], [1.0, -0.6]])
    visual = torch.stack([first, second])[None, :, :, None]
    return visual.double(), torch.eye(2).double()[None], torch.tensor([[[0.8, 0.6], [0.0, 1.0]]]).double()


def loop(
    visual: Tensor, nodes: Tensor, start_nodes: Tensor, temperature: float
) -> tuple[list[list[float]], list[list[float]]]:
    """One group: the matrices of the walks from node to node, and from frame to frame."""
    count = visual.shape[0]

    def best(i: int, node: Tensor) -> float:
        pixels = visual[i].flatten(1).unbind(1)
        return max(float(p @ node / (p.norm() * node.norm())) for p in pixels)

    def steps(row: list[float]) -> list[float]:
        weights = [math.exp(x / temperature) for x in row]
        return [w / sum(weights) for w in weights]

    to_node = [steps([best(i, nodes[k]) for k in range(count)]) for i in range(count)]
    to_frame = [steps([best(i, start_nodes[k]) for i in range(count)]) for k in range(count)]

    def product(first: list[list[float]], second: list[list[float]]) -> list[list[float]]:
        every = range(count)
        return [[sum(first[i][j] * second[j][k] for j in every) for k in every] for i in every]

    return product(to_frame, to_node), product(to_node, to_frame)


def expected_terms(walks: list[list[float]]) -> tuple[float, float, float]:
    count = len(walks)
    diagonal = [walks[k][k] for k in range(count)]
    hits = [max(range(count), key=lambda j: walks[k][j]) == k for k in range(count)]
    return sum(-math.log(p) for p in diagonal) / count, sum(diagonal) / count, sum(hits) / count


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize(("batch", "sources", "size"), [(3, 3, (2, 3)), (1, 2, (1, 1)), (2, 4, (3, 2))])
def test_equals_the_loop(batch: int, sources: int, size: tuple[int, int], temperature: float) -> None:
    inputs = make(batch, sources, size=size)
    both = [loop(*(x[b] for x in inputs), temperature) for b in range(batch)]
    expected = torch.tensor([expected_terms(walks) for walks, _ in both], dtype=torch.float64).T
    frames = torch.tensor([expected_terms(walks)[0] for _, walks in both], dtype=torch.float64)
    for reduction in ("none", "sum", "mean"):
        terms = cycle_walk_loss(*inputs, temperature=temperature, reduction=reduction)
        two_ways = cycle_walk_loss(*inputs, temperature=temperature, reduction=reduction, bidirectional=True)
        for actual, values in (*zip(terms, expected, strict=True), (two_ways.loss, (expected[0] + frames) / 2)):
            wanted = values if reduction == "none" else getattr(values, reduction)()
            torch.testing.assert_close(actual, wanted, atol=1e-10, rtol=0)
        assert [x.requires_grad for x in terms] == [False] * 3


@pytest.mark.parametrize(
    ("temperature", "first", "second", "loss"),
    [(1.0, 0.508874, 0.504967, 0.679408), (0.07, 0.940510, 0.897273, 0.084864)],
)
def test_numbers(temperature: float, first: float, second: float, loss: float) -> None:
    terms = cycle_walk_loss(*example(), temperature=temperature)
    assert float(terms.loss) == pytest.approx(loss, abs=1e-6)
    assert float(terms.return_probability) == pytest.approx((first + second) / 2, abs=1e-6)
    assert terms.accuracy == 1
    if temperature == 0.07:
        assert torch.equal(CycleWalkLoss()(*example()), terms.loss)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), sources=st.integers(2, 4), temperature=st.sampled_from([0.07, 1.0]))
def test_permutations_and_copies(seed: int, sources: int, temperature: float) -> None:
    inputs = visual, nodes, start_nodes = make(2, sources, seed=seed)
    order = torch.randperm(sources, generator=torch.Generator().manual_seed(seed))
    expected = cycle_walk_loss(*inputs, temperature=temperature)
    assert expected.loss >= 0
    for changed in (
        (visual[:, order], nodes, start_nodes),
        (visual, nodes[:, order], start_nodes[:, order]),
        (torch.cat([visual, visual[..., :1]], -1), nodes, start_nodes),
        (visual * 3, nodes / 7, start_nodes * 1e-20),
    ):
        torch.testing.assert_close(cycle_walk_loss(*changed, temperature=temperature), expected)


def test_the_order_of_one_kind_of_nodes_matters() -> None:
    visual, nodes, start_nodes = example()
    flipped = cycle_walk_loss(visual, nodes.flip(1), start_nodes)
    assert flipped.loss > cycle_walk_loss(visual, nodes, start_nodes).loss + 1
    assert flipped.accuracy == 0


@pytest.mark.parametrize("bidirectional", [False, True])
def test_one_source_and_equal_nodes(bidirectional: bool) -> None:
    assert cycle_walk_loss(*make(sources=1), bidirectional=bidirectional).loss.abs() < 1e-12
    visual, nodes, _ = make(sources=4)
    same = nodes[:, :1].expand_as(nodes)
    terms = cycle_walk_loss(visual, same, same, bidirectional=False)
    assert float(terms.loss) == pytest.approx(math.log(4), abs=1e-12)
    assert float(terms.accuracy) == pytest.approx(1 / 4)
    assert cycle_walk_loss(*(x[:, :0] for x in make())).loss == 0


def test_groups_do_not_affect_each_other() -> None:
    inputs = make(3)
    inputs[1][1, 0, 0] = torch.nan
    leaves = [x.requires_grad_() for x in inputs]
    loss = cycle_walk_loss(*leaves, reduction="none").loss
    assert loss.isnan().tolist() == [False, True, False]
    alone = cycle_walk_loss(*(x[[0, 2]] for x in leaves), reduction="none").loss
    torch.testing.assert_close(loss[[0, 2]], alone)
    for got, wanted in zip(
        torch.autograd.grad(loss[[0, 2]].sum(), leaves), torch.autograd.grad(alone.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("filler", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_absent_sources_are_left_out(bidirectional: bool, filler: float) -> None:
    """Groups of three, two, one and no sources equal the loss of smaller groups, with their gradients."""
    mask = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    inputs = make(4)
    for values in inputs:
        values[~mask] = filler
    leaves = [x.requires_grad_() for x in inputs]
    terms = cycle_walk_loss(*leaves, source_mask=mask, bidirectional=bidirectional, reduction="none")
    for group in range(3):
        parts = [x[group : group + 1][:, mask[group]] for x in leaves]
        expected = cycle_walk_loss(*parts, bidirectional=bidirectional)
        torch.testing.assert_close([x[group] for x in terms], list(expected))
        got, wanted = (
            torch.autograd.grad(terms.loss[group], leaves, retain_graph=True),
            torch.autograd.grad(expected.loss, leaves),
        )
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    assert not any(x[3].any() for x in terms)
    mean = cycle_walk_loss(*leaves, source_mask=mask, bidirectional=bidirectional).loss
    torch.testing.assert_close(mean, terms.loss[:3].mean())
    assert all(g.isfinite().all() for g in torch.autograd.grad(mean, leaves))


def test_masks_are_checked() -> None:
    with pytest.raises(TypeError, match="Expected `source_mask` to have dtype"):
        cycle_walk_loss(*make(), source_mask=torch.ones(3, 3))
    with pytest.raises(ValueError, match="Expected `source_mask` to have shape"):
        cycle_walk_loss(*make(), source_mask=torch.ones(3, 2, dtype=torch.bool))


def test_only_the_best_pixels_have_a_gradient() -> None:
    visual, nodes, start_nodes = make()
    visual.requires_grad_()
    cycle_walk_loss(visual, nodes, start_nodes).loss.backward()
    assert visual.grad is not None
    cosines = torch.einsum(
        "bichw,bkc->bikhw", visual / visual.norm(dim=2, keepdim=True), torch.cat([nodes, start_nodes], 1)
    )
    best = torch.zeros(3, 3, 6, dtype=torch.bool).scatter(2, cosines.flatten(3).argmax(-1), True)
    assert torch.equal(visual.grad.abs().sum(2).flatten(2) > 0, best)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradcheck(bidirectional: bool) -> None:
    inputs = tuple(x.requires_grad_() for x in make(2, 2, 3, (1, 2)))
    mask = torch.tensor([[True, True], [True, False]])
    for source_mask in (None, mask):
        options: dict[str, Any] = {"source_mask": source_mask, "bidirectional": bidirectional, "temperature": 0.5}
        assert torch.autograd.gradcheck(lambda *x, o=options: cycle_walk_loss(*x, **o).loss, inputs)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_empty_batch_is_a_zero_with_its_graph(reduction: str) -> None:
    inputs = [x.requires_grad_() for x in make(0)]
    loss = cycle_walk_loss(*inputs, reduction=reduction).loss
    assert float(loss.detach()) == 0
    loss.backward()
    assert all(x.grad is not None for x in inputs)


def test_a_walk_that_hardly_returns_has_a_finite_loss() -> None:
    """In float32 its probability, exp(-1000), is 0."""
    visual = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])[None, :, :, None, None].requires_grad_()
    nodes = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    loss = cycle_walk_loss(visual, nodes, nodes.flip(1), temperature=2e-3).loss
    assert float(loss.detach()) == pytest.approx(1000 - math.log(2), rel=1e-5)
    loss.backward()
    assert visual.grad is not None
    assert visual.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    inputs = [x.to(dtype) for x in make()]
    with torch.autocast("cpu", dtype=dtype):
        loss = cycle_walk_loss(*inputs).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), cycle_walk_loss(*(x.double() for x in inputs)).loss, atol=1e-4, rtol=0)


def test_warns_where_the_walk_ends_at_the_nodes_it_starts_from() -> None:
    visual, nodes, _ = make()
    expected = cycle_walk_loss(visual, nodes, nodes).loss
    with pytest.warns(SharedNodesWarning, match="cycle_walk_loss got no `start_nodes`"):
        assert torch.equal(cycle_walk_loss(visual, nodes).loss, expected)
    loss = CycleWalkLoss()
    with pytest.warns(SharedNodesWarning, match="CycleWalkLoss got no `start_nodes`"):
        assert torch.equal(loss(visual, nodes), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(visual, nodes)  # once per instance
        CycleWalkLoss()(visual, nodes, nodes)


def test_module_is_the_function() -> None:
    options: dict[str, Any] = {
        "temperature": 0.2,
        "bidirectional": True,
        "gather_distributed": True,
        "reduction": "sum",
    }
    mask = torch.tensor([[True, True, False]] * 3)
    loss = CycleWalkLoss(**options)
    expected = cycle_walk_loss(*make(), mask, **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(*make(), mask), expected)
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"temprature": 1.0}, TypeError),
        ({"temperature": -1.0}, ValueError),
        ({"bidirectional": "yes"}, TypeError),
        ({"gather_distributed": 1}, TypeError),
        ({"reduction": "avg"}, ValueError),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        CycleWalkLoss(**options)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.filterwarnings("ignore::sslosses.SharedNodesWarning")
def test_compiles_to_one_graph_for_every_batch_size(shared: bool) -> None:
    torch.compiler.reset()
    loss = CycleWalkLoss(bidirectional=True)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    if shared:
        compiled(*make()[:2])  # the warning changes the module, and with it the graph
        counter.clear()
    for batch in (4, 3):
        inputs = make(batch)[: 2 if shared else 3]
        mask = torch.arange(3) < torch.tensor([[3], [2], [1], [3]])[:batch]
        for x in (*inputs, mask):
            torch._dynamo.mark_dynamic(x, 0)
        inputs[0].requires_grad_()
        actual, expected = compiled(*inputs, source_mask=mask), loss(*inputs, source_mask=mask)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        (wanted,), (got,) = torch.autograd.grad(expected, inputs[0]), torch.autograd.grad(actual, inputs[0])
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    assert counter.frame_count == 1
