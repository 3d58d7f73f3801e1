"""DSOL: equal to loops written from its equations; k-means finds the best clusters of small problems."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from sslosses import DictionaryConsistencyLoss, build_dictionary, dictionary_consistency_loss, object_features
from sslosses.losses.baselines import _kmeans

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(batch: int = 4, classes: int = 3, channels: int = 5) -> Inputs:
    visual, localization = random(batch, channels, 2, 3), random(batch, 2, 3, seed=1).sigmoid()
    return visual, localization, random(classes, channels, seed=2), random(batch, classes, seed=3)


def example() -> Inputs:
    visual = torch.tensor([[[[1.0, 0.0, 2.0, 0.0]], [[0.0, 1.0, 0.0, 1.0]]]], dtype=torch.float64)
    localization = torch.tensor([[[0.9, 0.1, 0.8, 0.2]]], dtype=torch.float64)
    return visual, localization, torch.eye(2), torch.tensor([[2.0, 0.0]])


# Object features


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2), (3, 4), (5, 5)])
@pytest.mark.parametrize("dilation", ["all", "interior", "none"])
def test_object_features_equal_the_loop(dilation: str, size: tuple[int, int]) -> None:
    height, width = size
    visual, localization = random(6, 3, height, width), random(6, height, width, seed=1).sigmoid()
    actual = object_features(visual, localization, threshold=0.6, dilation=dilation)
    for b in range(6):
        mask = {(y, x) for y in range(height) for x in range(width) if localization[b, y, x] > 0.6}
        spreading = {
            (y, x)
            for y, x in mask
            if dilation == "all" or (dilation == "interior" and 0 < y < height - 1 and 0 < x < width - 1)
        }
        for y, x in spreading:
            mask |= {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)}
        cells = [visual[b, :, y, x] for y, x in mask if 0 <= y < height and 0 <= x < width]
        expected = sum(cells, torch.zeros(3, dtype=torch.float64)) / (height * width)
        torch.testing.assert_close(actual[b], expected, atol=1e-12, rtol=0)


def test_object_features_shrink_with_the_threshold_and_have_no_gradient() -> None:
    visual, localization = random(4, 3, 4, 4).abs().requires_grad_(), random(4, 4, 4, seed=1).sigmoid()
    levels = [object_features(visual, localization, threshold=t) for t in (0.0, 0.3, 0.6, 1.0)]
    assert not levels[0].requires_grad
    torch.testing.assert_close(levels[0], visual.detach().mean((2, 3)))
    assert not levels[-1].any()
    assert all((low >= high).all() for low, high in itertools.pairwise(levels))


def test_object_features_of_the_largest_values_are_finite() -> None:
    visual = torch.full((1, 2, 14, 14), 3.4e38)
    assert object_features(visual, torch.ones(1, 14, 14)).isfinite().all()


# The dictionary


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inertia(features: Tensor, labels: Tensor) -> float:
    directions = features / features.norm(dim=1, keepdim=True)
    parts = [directions[labels == k] for k in labels.unique()]
    return sum(float((part - part.mean(0)).square().sum()) for part in parts)


@pytest.mark.parametrize("seed", range(5))
def test_finds_the_best_of_all_partitions(seed: int) -> None:
    features = random(7, 2, seed=seed)
    best = min(inertia(features, torch.tensor(labels)) for labels in itertools.product(range(2), repeat=7))
    labels = build_dictionary(features, 2, generator=generator(), restarts=50).labels
    assert inertia(features, labels) == pytest.approx(best, abs=1e-9)


@given(seed=st.integers(0, 10_000), clusters=st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_every_direction_is_nearest_to_the_center_of_its_cluster(seed: int, clusters: int) -> None:
    features = random(12, 3, seed=seed)
    dictionary = build_dictionary(features, clusters, generator=generator(seed), restarts=1)
    members = [dictionary.labels == k for k in range(clusters)]
    directions = features / features.norm(dim=1, keepdim=True)
    centers = torch.stack([directions[rows].mean(0) for rows in members])
    assert torch.equal(torch.cdist(directions, centers).argmin(1), dictionary.labels)
    means = torch.stack([features[rows].mean(0) for rows in members])  # raw features, not directions
    torch.testing.assert_close(dictionary.rows, means, atol=1e-12, rtol=0)


def test_finds_planted_objects_whatever_their_length() -> None:
    objects = torch.eye(4)
    wanted = torch.arange(80) % 4
    features = objects[wanted] + 0.1 * random(80, 4).float()
    lengths = random(80, seed=1).float().mul(3).exp()[:, None]
    for scale in (1.0, 1e-30, 1e30):
        labels = build_dictionary(features * lengths * scale, 4, generator=generator(), restarts=3).labels
        assert all(len(labels[wanted == k].unique()) == 1 for k in range(4))
        assert len(labels.unique()) == 4


def test_a_seed_decides_and_the_global_state_does_not() -> None:
    features = random(60, 4)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = build_dictionary(features, 5, generator=generator(3), restarts=2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    again = build_dictionary(features, 5, generator=generator(3), restarts=2)
    assert torch.equal(first.rows, again.rows)
    assert torch.equal(first.labels, again.labels)
    others = [build_dictionary(features, 5, generator=generator(s), restarts=1).labels for s in range(6)]
    assert any(not torch.equal(labels, others[0]) for labels in others)


def test_restarts_keep_the_best_run() -> None:
    features, several = random(60, 4), generator(1)
    single = [build_dictionary(features, 8, generator=several, restarts=1) for _ in range(5)]
    values = [inertia(features, d.labels) for d in single]
    kept = build_dictionary(features, 8, generator=generator(1), restarts=5)
    assert max(values) - min(values) > 1e-3
    assert inertia(features, kept.labels) == pytest.approx(min(values), abs=1e-9)


def test_centers_start_far_from_each_other() -> None:
    """3 far clusters of very different sizes: uniform starts would miss the small ones."""
    directions, finite = torch.eye(3)[torch.tensor([0] * 500 + [1, 2])], torch.ones(502, dtype=torch.bool)
    for seed in range(10):
        centers = _kmeans._first_centers(directions, finite, 3, generator(seed))
        assert sorted(centers.argmax(1).tolist()) == [0, 1, 2]


def test_starts_are_drawn_in_proportion_to_the_squared_distance() -> None:
    directions = torch.tensor([[1.0, 0.0], [0.9, 0.19**0.5], [-1.0, 0.0]])
    finite, source, near = torch.ones(3, dtype=torch.bool), generator(), 0
    for _ in range(500):
        near += int((_kmeans._first_centers(directions, finite, 2, source) > 0).all(0)[0])
    # The squared distances are 0.2, 4 and 3.8: the two near ones are drawn after each other.
    assert near / 500 == pytest.approx((0.2 / 4.2 + 0.2 / 4.0) / 3, abs=0.025)


@pytest.mark.parametrize("copies", [3, 7])
def test_no_cluster_is_empty(copies: int) -> None:
    features = torch.eye(2).repeat(copies, 1)
    dictionary = build_dictionary(features, 5, generator=generator())
    assert (dictionary.labels.bincount(minlength=5) > 0).all()
    torch.testing.assert_close(dictionary.rows[dictionary.labels], features)


def test_an_empty_cluster_gets_the_farthest_feature() -> None:
    directions = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    centers = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-9.0, -9.0]])
    clusters = _kmeans._assign(directions, torch.ones(4, dtype=torch.bool), centers)
    assert clusters.labels.tolist() == [0, 0, 1, 2]
    assert float(clusters.inertia) == pytest.approx(0, abs=1e-6)


def test_an_empty_cluster_never_empties_another_one() -> None:
    # The farthest feature, the last one, is alone in its cluster.
    directions = torch.tensor([[1.0, 0.0], [0.9, 0.44], [0.0, 1.0]])
    centers = torch.tensor([[1.0, 0.0], [0.5, 1.0], [-9.0, -9.0]])
    assert _kmeans._assign(directions, torch.ones(3, dtype=torch.bool), centers).labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize("filler", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_left_out(filler: float) -> None:
    features = random(20, 3)
    expected = build_dictionary(features[1:], 3, generator=generator(), restarts=20)
    features[0, 1] = filler
    dictionary = build_dictionary(features, 3, generator=generator(), restarts=20)
    assert dictionary.labels[0] == -1
    assert dictionary.rows.isfinite().all()
    assert inertia(features[1:], dictionary.labels[1:]) == pytest.approx(inertia(features[1:], expected.labels))


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features = random(50, 4)
    expected = build_dictionary(features, 6, generator=generator())
    monkeypatch.setattr(_kmeans, "_CHUNK", 7)
    dictionary = build_dictionary(features, 6, generator=generator())
    assert torch.equal(dictionary.labels, expected.labels)
    torch.testing.assert_close(dictionary.rows, expected.rows, atol=1e-12, rtol=0)


class Largest(TorchDispatchMode):
    """Keeps the number of entries of the largest result."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.entries = max(self.entries, value.numel())
        return result


def test_memory_is_linear() -> None:
    count, clusters = 20_000, 300
    features = torch.randn(count, 4, generator=generator())
    with Largest() as largest:
        build_dictionary(features, clusters, generator=generator(), restarts=1, iterations=2)
    assert largest.entries < count * clusters / 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_clusters": 0}, ValueError, "`num_clusters` to be an integer >= 1, but got 0"),
        ({"num_clusters": 2.0}, TypeError, "num_clusters"),
        ({"num_clusters": 5}, ValueError, "`features` to have at least 5 rows .*, but got 4"),
        ({"generator": 0}, TypeError, r"`generator` to be a torch.Generator, but got int"),
        ({"restarts": 0}, ValueError, "restarts"),
        ({"iterations": 0}, ValueError, "iterations"),
    ],
)
def test_wrong_options_of_the_dictionary(options: dict[str, Any], error: type[Exception], message: str) -> None:
    features = random(5, 3)
    features[2] = torch.nan
    with pytest.raises(error, match=message):
        build_dictionary(features, **{"num_clusters": 2, "generator": generator()} | options)


# Consistency


def loop(inputs: Inputs, scale: float, bias: float, direction: str, per_class_mean: bool) -> list[float]:
    visual, localization, dictionary, audio_logits = inputs
    batch, _, height, width = visual.shape
    losses = []
    for b in range(batch):
        means = []
        for row in dictionary:
            cells = [
                (scale * float(row @ visual[b, :, y, x]) + bias) * float(localization[b, y, x])
                for y in range(height)
                for x in range(width)
            ]
            means.append(sum(cells) / len(cells))
        p = [math.exp(m) / sum(map(math.exp, means)) for m in means]
        logits = audio_logits[b].tolist()
        q = [math.exp(m) / sum(map(math.exp, logits)) for m in logits]
        first, second = (q, p) if direction == "audio||visual" else (p, q)
        kl = sum(f * math.log(f / s) for f, s in zip(first, second, strict=True))
        losses.append(kl / len(p) if per_class_mean else kl)
    return losses


@pytest.mark.parametrize("direction", ["audio||visual", "visual||audio"])
@pytest.mark.parametrize("per_class_mean", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_equals_the_loop(batch: int, per_class_mean: bool, direction: str) -> None:
    inputs = make(batch)
    expected = torch.tensor(loop(inputs, 1.7, 0.3, direction, per_class_mean), dtype=torch.float64)
    options: dict[str, Any] = {"direction": direction, "per_class_mean": per_class_mean}
    for reduction, wanted in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
        terms = dictionary_consistency_loss(*inputs, 1.7, 0.3, reduction=reduction, **options)
        torch.testing.assert_close(terms.loss, wanted, atol=1e-10, rtol=0)
        torch.testing.assert_close(terms.visual_logits, terms.maps.mean((2, 3)))
        assert not terms.maps.requires_grad


def test_the_example() -> None:
    terms = dictionary_consistency_loss(*example(), 1.0, 0.0)
    assert float(terms.loss) == pytest.approx(0.077860, abs=1e-6)
    expected = torch.tensor([[0.625, 0.075]], dtype=torch.float64)
    torch.testing.assert_close(terms.visual_logits, expected, atol=1e-6, rtol=0)
    p = torch.tensor([[0.634136, 0.365864]], dtype=torch.float64)
    torch.testing.assert_close(terms.visual_logits.softmax(1), p, atol=1e-6, rtol=0)
    whole = dictionary_consistency_loss(*example(), 1.0, 0.0, per_class_mean=False)
    assert float(whole.loss) == pytest.approx(0.155720, abs=1e-6)
    torch.testing.assert_close(terms.maps[0, :, 0], torch.tensor([[0.9, 0, 1.6, 0], [0, 0.1, 0, 0.2]]).double())


def test_invariances() -> None:
    visual, localization, dictionary, audio_logits = make()
    expected = dictionary_consistency_loss(visual, localization, dictionary, audio_logits, 1.0, 0.0)

    def check(*inputs: Any) -> None:
        actual = dictionary_consistency_loss(*inputs).loss
        torch.testing.assert_close(actual, expected.loss, atol=1e-12, rtol=0)

    check(visual, localization, dictionary, audio_logits + 7, 1.0, 0.0)
    check(visual, localization, dictionary, audio_logits, 1.0, 9.0)
    check(visual, localization, 4 * dictionary, audio_logits, 0.25, 0.0)
    classes, pixels = torch.tensor([2, 0, 1]), torch.tensor([3, 5, 0, 1, 4, 2])
    check(visual, localization, dictionary[classes], audio_logits[:, classes], 1.0, 0.0)
    shuffled = (x.flatten(-2)[..., pixels].view(x.shape) for x in (visual, localization))
    check(*shuffled, dictionary, audio_logits, 1.0, 0.0)


def test_the_loss_is_zero_where_both_agree() -> None:
    visual, localization, dictionary, audio_logits = make()
    terms = dictionary_consistency_loss(visual, localization, dictionary, audio_logits, 1.0, 0.0)
    same = dictionary_consistency_loss(visual, localization, dictionary, terms.visual_logits + 3, 1.0, 0.0).loss
    assert 0 <= float(same) + 1e-15 < 1e-12
    assert float(terms.loss) > 1e-3
    silent = dictionary_consistency_loss(visual, localization * 0, dictionary, audio_logits * 0, 1.0, 0.0).loss
    assert float(silent) == pytest.approx(0, abs=1e-15)


def test_scale_and_bias_may_be_tensors() -> None:
    inputs = make()
    expected = dictionary_consistency_loss(*inputs, 1.5, 0.5).loss
    for shape in ((), (1,), (1, 1)):
        scale, bias = (torch.full(shape, x, dtype=torch.float64, requires_grad=True) for x in (1.5, 0.5))
        loss = dictionary_consistency_loss(*inputs, scale, bias).loss
        torch.testing.assert_close(loss, expected)
        loss.backward()
        assert scale.grad is not None
        assert bias.grad is not None
        assert scale.grad.any()
        torch.testing.assert_close(bias.grad, torch.zeros(shape, dtype=torch.float64), atol=1e-15, rtol=0)
    for name, value, error in (
        ("scale", torch.ones(2), ValueError),
        ("scale", "1", TypeError),
        ("bias", torch.tensor(1), TypeError),
        ("bias", torch.nan, ValueError),
    ):
        with pytest.raises(error, match=f"`{name}`"):
            dictionary_consistency_loss(*inputs, **{"scale": 1.0, "bias": 0.0, name: value})


def test_gradcheck_and_the_teacher_has_no_gradient() -> None:
    visual, localization, dictionary, audio_logits = make(2, 3, 2)
    leaves = [x.requires_grad_() for x in (visual, localization, dictionary)]
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    for direction in ("audio||visual", "visual||audio"):
        assert torch.autograd.gradcheck(
            lambda v, m, d, s, direction=direction: (
                dictionary_consistency_loss(v, m, d, audio_logits, s, 0.2, direction=direction).loss
            ),
            (*leaves, scale),
        )
    audio_logits.requires_grad_()
    loss = dictionary_consistency_loss(*leaves, audio_logits, scale, 0.2).loss
    assert torch.autograd.grad(loss, audio_logits, allow_unused=True) == (None,)


@pytest.mark.parametrize("spoiled", [0, 1, 3])
def test_a_spoiled_sample(spoiled: int) -> None:
    inputs, keep = make(), [0, 2, 3]
    inputs[spoiled][1].view(-1)[0] = torch.nan
    others = [x if n == 2 else x[keep] for n, x in enumerate(inputs)]
    leaves = [x.requires_grad_() for x in inputs[:3]]
    terms = dictionary_consistency_loss(*inputs, 1.0, 0.0, reduction="none")
    assert terms.loss[1].isnan()
    assert terms.maps[1].isnan().all()
    expected_leaf = others[2].detach().clone().requires_grad_()
    expected = dictionary_consistency_loss(others[0], others[1], expected_leaf, others[3], 1.0, 0.0, reduction="none")
    torch.testing.assert_close(terms.loss[keep], expected.loss, atol=1e-12, rtol=0)
    gradients = torch.autograd.grad(terms.loss[keep].sum(), leaves)
    assert all(g.isfinite().all() for g in gradients)
    (wanted,) = torch.autograd.grad(expected.loss.sum(), expected_leaf)
    torch.testing.assert_close(gradients[2], wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_empty_batch_is_a_zero_with_its_graph(reduction: str) -> None:
    inputs = make(0)
    inputs[0].requires_grad_()
    loss = dictionary_consistency_loss(*inputs, 1.0, 0.0, reduction=reduction).loss
    assert float(loss.detach()) == 0
    loss.backward()
    assert inputs[0].grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    inputs = tuple(x.to(dtype) for x in make())
    inputs[0].requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = DictionaryConsistencyLoss()(*inputs, 1.5, 0.0)
        pooled = object_features(inputs[0], inputs[1])
    assert loss.dtype == pooled.dtype == torch.float32
    expected = dictionary_consistency_loss(*(x.detach().double() for x in inputs), 1.5, 0.0).loss
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=0)
    loss.backward()
    assert inputs[0].grad is not None
    assert inputs[0].grad.any()


def test_module_is_the_function() -> None:
    options: dict[str, Any] = {
        "direction": "visual||audio",
        "per_class_mean": False,
        "gather_distributed": True,
        "reduction": "sum",
    }
    loss = DictionaryConsistencyLoss(**options)
    expected = dictionary_consistency_loss(*make(), 1.5, 0.1, **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(*make(), 1.5, 0.1), expected)
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())
    assert loss.gather_is_open() is False
    assert DictionaryConsistencyLoss().gather_is_open()
    assert not DictionaryConsistencyLoss(reduction="none").gather_is_open()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"direktion": "audio||visual"}, TypeError),
        ({"direction": "both"}, ValueError),
        ({"per_class_mean": 1}, TypeError),
        ({"reduction": "avg"}, ValueError),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        DictionaryConsistencyLoss(**options)


def test_compiles_to_one_graph_for_every_batch_size() -> None:
    torch.compiler.reset()
    loss, scale = DictionaryConsistencyLoss(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(0.1, dtype=torch.float64)
    counter, first = CompileCounterWithBackend("aot_eager"), 0
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch in (4, 6):
        inputs = make(batch)
        for x in (inputs[0], inputs[1], inputs[3]):
            torch._dynamo.mark_dynamic(x, 0)
        inputs[0].requires_grad_()
        actual, expected = compiled(*inputs, scale, bias), loss(*inputs, scale, bias)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        leaves = (inputs[0], scale)
        for got, wanted in zip(torch.autograd.grad(actual, leaves), torch.autograd.grad(expected, leaves), strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
        # While it compiles, torch may start again to make a float a constant.
        first = first or counter.frame_count
    assert counter.frame_count == first
