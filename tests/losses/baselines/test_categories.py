"""CoarseToFine: equal to loops written from its equations."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import (
    CategoryAlignmentLoss,
    PairCorrespondenceLoss,
    category_alignment_loss,
    class_activation_pool,
    pair_correspondence_loss,
)

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(batch: int = 4, classes: int = 3, size: int = 5) -> Inputs:
    visual, audio = random(batch, classes, size), random(batch, classes, size, seed=1)
    shown, heard = random(batch, classes, seed=2).sigmoid(), random(batch, classes, seed=3).sigmoid()
    return visual, audio, shown, heard


def example() -> Inputs:
    audio = torch.tensor([[[1, 0], [0, 1]], [[0.6, 0.8], [1, 0]]], dtype=torch.float64)
    visual = torch.tensor([[[0.8, 0.6], [0, 1]], [[0.6, 0.8], [-1, 0]]], dtype=torch.float64)
    return visual, audio, torch.tensor([[0.7, 0.5], [0.8, 0.2]]), torch.tensor([[0.9, 0.1], [0.6, 0.4]])


# Correspondence of pairs


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_pairs_equal_the_loop(batch: int) -> None:
    logits = 3 * random(batch, batch)
    positive = [math.log(1 + math.exp(-float(logits[i, i]))) for i in range(batch)]
    other = [
        [math.log(1 + math.exp(float(logits[i, j]))) for j in range(batch) if j != i] or [0.0] for i in range(batch)
    ]
    negative = [sum(row) / len(row) for row in other]
    terms = pair_correspondence_loss(logits, reduction="none")
    for actual, wanted in zip(terms[1:], (positive, negative), strict=True):
        torch.testing.assert_close(actual, torch.tensor(wanted, dtype=torch.float64), atol=1e-10, rtol=0)
    # As in the public code: half the mean of all positive pairs and half the mean of all negative ones.
    every = sum(map(sum, other)) / max(batch * (batch - 1), 1)
    expected = (sum(positive) / batch + every) / 2
    assert float(pair_correspondence_loss(logits).loss) == pytest.approx(expected, abs=1e-10)
    assert float(pair_correspondence_loss(logits, reduction="sum").loss) == pytest.approx(batch * expected, abs=1e-10)


def test_pairs_of_the_example() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-2.0, 0.0, 3.0]])
    terms = pair_correspondence_loss(logits)
    assert float(terms.loss) == pytest.approx(0.317537, abs=1e-6)
    assert float(pair_correspondence_loss(logits * 0).loss) == pytest.approx(math.log(2), abs=1e-7)
    assert not terms.positive.requires_grad


def test_a_pair_of_a_spoiled_sample_is_no_negative() -> None:
    logits = random(4, 4)
    logits[1] = torch.nan
    logits[:, 1] = torch.nan
    keep = [0, 2, 3]
    leaf = logits.clone().requires_grad_()
    loss = pair_correspondence_loss(leaf, reduction="none").loss
    torch.testing.assert_close(loss[keep], pair_correspondence_loss(logits[keep][:, keep], reduction="none").loss)
    assert loss[1].isnan()
    loss[keep].sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert not leaf.grad[1].any()


def test_one_wrong_pair_spoils_its_frame_only() -> None:
    logits = random(3, 3)
    logits[0, 2] = -torch.inf  # its loss would be 0
    loss = pair_correspondence_loss(logits, reduction="none").loss
    assert loss.isnan().tolist() == [True, False, False]


# Pooling under class activation maps


@pytest.mark.parametrize("spatial", [(3, 4), (5,), (2, 3, 2)])
def test_pooling_equals_the_loop(spatial: tuple[int, ...]) -> None:
    features, weight = random(2, 4, *spatial).abs(), random(3, 4, seed=1) + 1
    pool = class_activation_pool(features, weight)
    flat = features.flatten(2)
    for b in range(2):
        for k in range(3):
            maps = [max(0.0, float(weight[k] @ flat[b, :, x])) for x in range(flat.shape[2])]
            pooled = sum((r * flat[b, :, x] for x, r in enumerate(maps)), torch.zeros(4)) / sum(maps)
            torch.testing.assert_close(pool.pooled[b, k], pooled, atol=1e-10, rtol=0)
            expected = torch.tensor(maps, dtype=torch.float64).view(spatial)
            torch.testing.assert_close(pool.maps[b, k], expected, atol=1e-10, rtol=0)


def test_pooling_of_the_example() -> None:
    features = torch.tensor([[[1, 2, 0], [0, 1, 3]]], dtype=torch.float64)
    pool = class_activation_pool(features, torch.tensor([[1.0, 0.0], [-1.0, 1.0]]))
    expected = torch.tensor([[[1.666667, 0.666667], [0, 3]]], dtype=torch.float64)
    torch.testing.assert_close(pool.pooled, expected, atol=1e-6, rtol=0)


def test_pooling_does_not_depend_on_the_length_of_a_weight() -> None:
    features, weight = random(2, 4, 3, 3), random(3, 4, seed=1)
    expected = class_activation_pool(features, weight).pooled
    for scale in (1e-30, 0.5, 1e30):
        scaled = class_activation_pool(features.float(), weight.float() * scale).pooled
        torch.testing.assert_close(scaled, expected.float(), atol=1e-4, rtol=1e-4)
    for scale in (1e-30, 0.5, 5e37):  # sums of products of the largest leave the range of float32
        longer = class_activation_pool(features.float() * scale, weight.float()).pooled
        torch.testing.assert_close(longer / scale, expected.float(), atol=1e-4, rtol=1e-4)


def test_a_pooled_feature_is_inside_the_features() -> None:
    features = random(3, 4, 3, 3)
    pooled = class_activation_pool(features, random(5, 4, seed=1)).pooled
    low, high = features.flatten(2).aminmax(dim=2)
    assert (pooled >= low[:, None] - 1e-12).all()
    assert (pooled <= high[:, None] + 1e-12).all()


def test_without_activation_the_feature_is_zero_with_zero_gradient() -> None:
    features = torch.ones(1, 2, 2, 2, requires_grad=True)
    weight = torch.tensor([[-1.0, -1.0], [1.0, 0.0]], requires_grad=True)
    pool = class_activation_pool(features, weight, detach=False)
    assert pool.pooled.tolist() == [[[0, 0], [1, 1]]]
    gradients = torch.autograd.grad(pool.pooled[:, 0].sum(), (features, weight))
    assert not any(g.any() for g in gradients)


def test_gradient_of_the_maps() -> None:
    features, weight = random(2, 3, 2, 2).requires_grad_(), random(2, 3, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, w: class_activation_pool(f, w, detach=False), (features, weight))
    pool = class_activation_pool(features, weight)
    assert not pool.maps.requires_grad
    # Detached, the pooled feature is linear: its derivative is the share of each position.
    (gradient,) = torch.autograd.grad(pool.pooled[0, 0, 0], features)
    torch.testing.assert_close(gradient[0, 0], pool.maps[0, 0] / pool.maps[0, 0].sum())


# Alignment of categories


def alignment_loop(inputs: Inputs, threshold: float, margin: float, same_class: bool) -> dict[str, list[float]]:
    visual, audio, shown, heard = inputs
    batch, classes, _ = visual.shape
    names = ("positive", "negative", "positive_pairs", "negative_pairs")
    sums: dict[str, list[float]] = {name: [0.0] * batch for name in names}
    for i in range(batch):
        for k in range(classes):
            for j in range(batch):
                for c in range(classes):
                    if heard[i, k] <= threshold or shown[j, c] <= threshold:
                        continue
                    cosine = float(torch.cosine_similarity(audio[i, k], visual[j, c], dim=0))
                    distance = 2 - 2 * cosine
                    if (i, k) == (j, c):
                        sums["positive"][i] += distance
                        sums["positive_pairs"][i] += 1
                    elif same_class or k != c:
                        sums["negative"][i] += max(0.0, margin - math.sqrt(distance)) ** 2
                        sums["negative_pairs"][i] += 1
    return sums


@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize(("batch", "threshold", "margin"), [(4, 0.3, 1.4), (2, 0.5, 1.9), (1, 0.1, 1.0), (3, 2.0, 1.4)])
def test_alignment_equals_the_loop(batch: int, threshold: float, margin: float, same_class: bool) -> None:
    inputs = make(batch)
    sums = alignment_loop(inputs, threshold, margin, same_class)
    options: dict[str, Any] = {"threshold": threshold, "margin": margin, "same_class_negatives": same_class}
    none = category_alignment_loss(*inputs, **options, reduction="none")
    for name, wanted in sums.items():
        actual = getattr(none, name)
        torch.testing.assert_close(actual, torch.tensor(wanted, dtype=torch.float64), atol=1e-10, rtol=0)
    total = {name: sum(values) for name, values in sums.items()}
    positive = total["positive"] / max(total["positive_pairs"], 1)
    negative = total["negative"] / max(total["negative_pairs"], 1)
    mean = category_alignment_loss(*inputs, **options)
    assert float(mean.positive) == pytest.approx(positive, abs=1e-10)
    assert float(mean.negative) == pytest.approx(negative, abs=1e-10)
    assert float(mean.loss) == pytest.approx(positive + negative, abs=1e-10)
    summed = category_alignment_loss(*inputs, **options, reduction="sum")
    assert float(summed.loss) == pytest.approx(total["positive"] + total["negative"], abs=1e-10)


def test_alignment_of_the_example() -> None:
    terms = category_alignment_loss(*example())
    assert [float(x) for x in terms[3:]] == [2, 7]
    for actual, wanted in zip(terms, (0.619642, 0.2, 0.419642), strict=False):
        assert float(actual) == pytest.approx(wanted, abs=1e-6)


def test_alignment_depends_on_directions_and_not_on_the_order() -> None:
    visual, audio, shown, heard = make()
    expected = category_alignment_loss(visual, audio, shown, heard)
    lengths = random(4, 3, 1, seed=5).exp()
    clips, classes = torch.tensor([2, 0, 3, 1]), torch.tensor([2, 0, 1])
    moved = [x[clips][:, classes] for x in (visual * lengths, audio / lengths, shown, heard)]
    torch.testing.assert_close(category_alignment_loss(*moved), expected, atol=1e-12, rtol=0)


def test_alignment_without_an_active_pair_is_a_zero_with_its_graph() -> None:
    visual, audio, shown, heard = make()
    visual.requires_grad_()
    terms = category_alignment_loss(visual, audio, shown, heard * 0)
    assert [float(x.detach()) for x in terms] == [0] * 5
    terms.loss.backward()
    assert visual.grad is not None
    assert not visual.grad.any()


def test_alignment_of_equal_vectors_has_a_finite_gradient() -> None:
    """In the public code, a distance of zero or below has a gradient of NaN."""
    same = torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(0))[:1].expand(8, -1, -1)
    visual, audio = same.clone().requires_grad_(), same.clone().requires_grad_()
    ones = torch.ones(8, 3)
    terms = category_alignment_loss(visual, audio, ones, ones)
    assert float(terms.negative) > 0.1
    for gradient in torch.autograd.grad(terms.loss, (visual, audio)):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 100


def test_alignment_gradcheck() -> None:
    visual, audio, shown, heard = make(2, 2, 3)
    inputs = (visual.requires_grad_(), audio.requires_grad_())
    for options in ({}, {"reduction": "none"}, {"same_class_negatives": False, "reduction": "sum"}):
        assert torch.autograd.gradcheck(
            lambda v, a, options=options: category_alignment_loss(v, a, shown, heard, **options).loss, inputs
        )


@pytest.mark.parametrize("spoiled", range(4))
@pytest.mark.parametrize("filler", [torch.nan, torch.inf])
def test_alignment_of_a_spoiled_sample(spoiled: int, filler: float) -> None:
    inputs, keep = make(), [0, 2, 3]
    options: dict[str, Any] = {"margin": 1.9, "reduction": "none"}
    expected = category_alignment_loss(*(x[keep] for x in inputs), **options)
    inputs[spoiled][1].view(-1)[0] = filler
    leaves = [x.requires_grad_() for x in inputs[:2]]
    terms = category_alignment_loss(*inputs, **options)
    for actual, wanted in zip(terms, expected, strict=True):
        torch.testing.assert_close(actual[keep], wanted, atol=1e-12, rtol=0)
    loss = terms.loss
    assert loss[1].isnan()
    for gradient in torch.autograd.grad(loss[keep].sum(), leaves):
        assert gradient.isfinite().all()
        assert not gradient[1].any()
    assert category_alignment_loss(*inputs).loss.isnan()


# Both losses


@pytest.mark.parametrize("active", [1, 7])
def test_memory_of_the_alignment(active: int) -> None:
    """Active pairs are compared by products: no tensor has the channels of all pairs, or pairs that are not active."""
    visual, audio = (torch.randn(32, 7, 32, requires_grad=True) for _ in range(2))
    probability = (torch.arange(7) < active).float().expand(32, 7)
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        category_alignment_loss(visual, audio, probability, probability).loss.backward()
    assert saved < 10 * 4 * ((32 * active) ** 2 + 32 * 7 * 32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    visual, audio, shown, heard = (x.to(dtype) for x in make())
    logits = (3 * random(4, 4)).to(dtype)
    visual.requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = CategoryAlignmentLoss()(visual, audio, shown, heard)
        pairs = PairCorrespondenceLoss()(logits)
        pooled = class_activation_pool(random(2, 3, 2, 2).to(dtype), random(2, 3).to(dtype)).pooled
    assert loss.dtype == pairs.dtype == pooled.dtype == torch.float32
    expected = category_alignment_loss(*(x.detach().double() for x in (visual, audio, shown, heard))).loss
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=0)
    loss.backward()
    assert visual.grad is not None
    assert visual.grad.any()


def logits_of(batch: int) -> tuple[Tensor]:
    return (random(batch, batch),)


LOSSES: dict[type[nn.Module], tuple[Callable[..., Any], Callable[[int], tuple[Tensor, ...]], dict[str, Any]]] = {
    PairCorrespondenceLoss: (pair_correspondence_loss, logits_of, {}),
    CategoryAlignmentLoss: (
        category_alignment_loss,
        make,
        {"threshold": 0.4, "margin": 1.2, "same_class_negatives": False},
    ),
}


@pytest.mark.parametrize("module", LOSSES)
def test_module_is_the_function(module: type[nn.Module]) -> None:
    function, inputs, options = LOSSES[module]
    options = options | {"gather_distributed": True, "reduction": "sum"}
    loss = module(**options)
    expected = function(*inputs(4), **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(*inputs(4)), expected)
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())


@pytest.mark.parametrize("module", LOSSES)
def test_compiles_to_one_graph_for_every_batch_size(module: type[nn.Module]) -> None:
    torch.compiler.reset()
    loss, inputs = module(), LOSSES[module][1]
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch in (4, 6):
        arguments = inputs(batch)
        for x in arguments:
            torch._dynamo.mark_dynamic(x, list(range(2)) if module is PairCorrespondenceLoss else 0)
        arguments[0].requires_grad_()
        actual, expected = compiled(*arguments), loss(*arguments)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        (wanted,), (got,) = torch.autograd.grad(expected, arguments[0]), torch.autograd.grad(actual, arguments[0])
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("module", "options", "error"),
    [
        (PairCorrespondenceLoss, {"reduction": "avg"}, ValueError),
        (CategoryAlignmentLoss, {"marjin": 1.0}, TypeError),
        (CategoryAlignmentLoss, {"margin": 0.0}, ValueError),
        (CategoryAlignmentLoss, {"threshold": "high"}, TypeError),
        (CategoryAlignmentLoss, {"same_class_negatives": 1}, TypeError),
        (CategoryAlignmentLoss, {"gather_distributed": 1}, TypeError),
    ],
)
def test_wrong_options_fail_at_construction(
    module: type[nn.Module], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        module(**options)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"`features` to have at least one position, but got \(2, 3, 0\)"):
        class_activation_pool(torch.zeros(2, 3, 0), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="`features`"):
        class_activation_pool(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"`logits` .* one column|`logits` .*\(B, G\) with G = 2"):
        pair_correspondence_loss(torch.zeros(2, 3), gather_distributed=True)
