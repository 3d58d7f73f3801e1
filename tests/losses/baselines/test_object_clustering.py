"""The object clustering loss of NoPrior: equal to a loop over samples, iterations, pixels and groups."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import ObjectClusteringLoss, identify_objects, object_clustering_loss

LITERAL: dict[str, Any] = {"padding": "batch", "link_through_background": True}


def scene(
    batch: int = 3, channels: int = 8, size: tuple[int, int] = (4, 5), noise: float = 0.3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Three objects and a background, each with its own feature, and a sound that is a mixture of the objects."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64)).Q
    visual = directions[torch.randint(0, 5, (batch, *size), generator=generator)].movedim(-1, 1)
    visual = visual + noise * torch.randn(visual.shape, generator=generator, dtype=torch.float64)
    weights = torch.rand(batch, 3, generator=generator, dtype=torch.float64) + 0.5
    return visual.contiguous(), weights @ directions[:3] + 0.2 * directions[-1]


def one_row(pixels: list[tuple[float, ...]], audio: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    visual = torch.tensor(pixels, dtype=torch.float64).T[None, :, None]
    return visual, torch.tensor([audio], dtype=torch.float64)


SOUND = (8.0, 6.0, 2.0)
THREE = one_row([(1, 0, 0), (0, 1, 0), (0, 0, 1)], SOUND)
FIVE = one_row([(1, 0, 0), (0.8, 0.6, 0), (0, 1, 0), (0, 0.6, 0.8), (0, 0, 1)], SOUND)
TWO = one_row([(1, 0), (0.35, 0.93675)], (1, 0))
#: Two pixels of FIVE have a cosine of 0.6, which is the default.
ABOVE = 0.6001


def cos(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


class Found(NamedTuple):
    prototypes: list[Tensor]
    background: Tensor
    groups: list[list[int]]


def find(
    visual: Tensor,
    audio: Tensor,
    epsilon: float = 0.0,
    *,
    peak_threshold: float = 0.1,
    background_threshold: float = 0.7,
    merge_threshold: float = 0.6,
    alpha_background: float = 0.4,
    omega: float = 0.03,
    link_through_background: bool = False,
) -> Found:
    """Prototypes and groups of one sample. The public code adds an epsilon of 1e-6 to differences."""
    features = [x / x.norm() for x in visual.flatten(1).unbind(1)]
    count = len(features)
    s = [cos(f, audio) for f in features]
    e = [f * x for f, x in zip(features, s, strict=True)]
    background = sum(e[p] * (1 - 1 / (1 + math.exp(-(s[p] - alpha_background) / omega))) for p in range(count)) / count
    assert isinstance(background, Tensor)
    claimed: set[int] = set()
    prototypes: list[Tensor] = []
    while True:
        rest = [0.0 if p in claimed else s[p] for p in range(count)]
        peak = max(range(count), key=lambda p: rest[p]) if prototypes else max(range(count), key=lambda p: s[p])
        prototypes.append(e[peak])
        new = {
            p
            for p in range(count)
            if (e[p] - e[peak] + epsilon).norm() < (e[p] - background + epsilon).norm() and p not in claimed
        }
        claimed |= new
        if not new or max(0.0 if p in claimed else s[p] for p in range(count)) < peak_threshold:
            break

    root = list(range(len(prototypes)))
    silent = [cos(x, background) > background_threshold for x in prototypes]
    for j in range(len(prototypes)):
        for k in range(j):
            linked = not silent[j] and (link_through_background or not silent[k])
            if linked and cos(prototypes[j], prototypes[k]) > merge_threshold:
                root = [j if r == root[k] else r for r in root]
    groups = [[j for j, r in enumerate(root) if r == g and not silent[j]] for g in dict.fromkeys(root)]
    return Found(prototypes, background, [g for g in groups if g])


def loop(found: Found, rows: int, anchor: str, padding: str) -> tuple[float, float, float]:
    """Attraction, repulsion and number of groups of one sample, whose batch has ``rows`` prototypes per sample."""
    attraction = repulsion = 0.0
    zero = torch.zeros_like(found.background)
    every = found.prototypes + [zero] * (rows - len(found.prototypes) if padding == "batch" else 0)
    for group in found.groups:
        outside = [x for j, x in enumerate(every) if j not in group]
        if not outside and padding == "batch":
            continue
        center = torch.stack([every[j] for j in group]).mean(0)
        other = found.background + (torch.stack(outside).mean(0) if outside else zero)
        anchors = {"last": group[-1:], "peak": group[:1], "every": group}[anchor]
        attraction += sum(1 - cos(every[j], center) for j in anchors) / len(anchors)
        repulsion += sum(cos(every[j], other) for j in anchors) / len(anchors)
    return attraction, repulsion, len(found.groups)


def batch_loop(
    visual: Tensor, audio: Tensor, epsilon: float = 0.0, anchor: str = "last", padding: str = "own", **options: Any
) -> Tensor:
    """The four terms of each sample, (4, B)."""
    found = [find(v, a, epsilon, **options) for v, a in zip(visual, audio, strict=True)]
    rows = max(len(f.prototypes) for f in found)
    terms = [loop(f, rows, anchor, padding) for f in found]
    return torch.tensor([(a + r, a, r, n) for a, r, n in terms], dtype=torch.float64).T


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    noise=st.sampled_from([0.1, 0.3, 0.6]),
    options=st.fixed_dictionaries(
        {"anchor": st.sampled_from(["last", "peak", "every"]), "padding": st.sampled_from(["own", "batch"])},
        optional={
            "peak_threshold": st.just(0.4),
            "background_threshold": st.just(0.2),
            "merge_threshold": st.just(0.2),
            "alpha_background": st.just(0.6),
            "omega": st.just(0.3),
            "link_through_background": st.just(True),
        },
    ),
)
def test_equals_the_loop(seed: int, noise: float, options: dict[str, Any]) -> None:
    visual, audio = scene(size=(3, 4), noise=noise, seed=seed)
    expected = batch_loop(visual, audio, **options)
    for reduction in ("none", "sum", "mean"):
        for actual, values in zip(
            object_clustering_loss(visual, audio, **options, reduction=reduction), expected, strict=True
        ):
            wanted = values if reduction == "none" else getattr(values, reduction)()
            torch.testing.assert_close(actual, wanted, atol=1e-10, rtol=0)


def test_equals_the_loop_of_the_public_code() -> None:
    """1e-6 in the distances changes no claim here. Some groups have several members, and some rows are padding."""
    merged = padded = linked = 0
    for seed in range(8):
        visual, audio = scene(noise=0.6, seed=seed)
        expected = batch_loop(visual, audio, 1e-6, **LITERAL)
        terms = object_clustering_loss(visual, audio, **LITERAL, reduction="none")
        torch.testing.assert_close(torch.stack(list(terms)), expected, atol=1e-10, rtol=0)
        merged += int((terms.attraction > 1e-3).sum())
        padded += int((terms.loss != object_clustering_loss(visual, audio, reduction="none").loss).sum())
        linked += int((object_clustering_loss(visual, audio, reduction="none").objects != terms.objects).sum())
    assert min(merged, padded, linked) > 0


@pytest.mark.parametrize(
    ("inputs", "rows", "expected"),
    [
        (THREE, 3, 0.000867),
        (THREE, 4, 0.001260),
        (THREE, 6, 0.001953),
        (FIVE, 4, 1.109974),
        (FIVE, 6, 1.071685),
        (TWO, 2, 0.350000),
    ],
)
def test_numbers(inputs: tuple[Tensor, Tensor], rows: int, expected: float) -> None:
    """A batch of one has no padding, so the numbers of padded samples are those of the loop alone."""
    found = find(inputs[0][0], inputs[1][0], 1e-6, merge_threshold=ABOVE, link_through_background=True)
    attraction, repulsion, _ = loop(found, rows, "last", "batch")
    assert attraction + repulsion == pytest.approx(expected, abs=1e-6)
    if rows == len(found.prototypes):
        for options in (LITERAL, {}):
            loss = object_clustering_loss(*inputs, merge_threshold=ABOVE, **options).loss
            assert float(loss) == pytest.approx(expected, abs=1e-6)
        loss = ObjectClusteringLoss(merge_threshold=ABOVE)(*inputs)
        assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_own_terms_do_not_depend_on_the_batch() -> None:
    """Padding by the batch does: the sample with fewer prototypes gets another loss."""
    visual, audio = scene(4)
    for padding, same in (("own", True), ("batch", False)):
        together = object_clustering_loss(visual, audio, padding=padding, reduction="none").loss
        alone = [
            object_clustering_loss(v[None], a[None], padding=padding).loss for v, a in zip(visual, audio, strict=True)
        ]
        assert torch.allclose(together, torch.stack(alone), atol=1e-12, rtol=0) == same


def test_a_group_with_nothing_outside() -> None:
    """Its only prototype is compared with the background, and has no term in the public code."""
    visual, audio = one_row([(1, 0)], (1, 0.5))
    own = object_clustering_loss(visual, audio, background_threshold=1.0)
    assert [float(x) for x in own] == pytest.approx([1, 0, 1, 1])
    literal = object_clustering_loss(visual.requires_grad_(), audio, background_threshold=1.0, **LITERAL)
    assert [float(x.detach()) for x in literal] == [0, 0, 0, 1]
    literal.loss.backward()
    assert not visual.grad.any()


def test_the_number_of_prototypes_is_limited() -> None:
    visual, audio = scene(noise=0.6)
    one = object_clustering_loss(visual, audio, max_iterations=1, background_threshold=1.0, reduction="none")
    assert one.objects.tolist() == [1, 1, 1]
    found = [find(v, a, background_threshold=1.0) for v, a in zip(visual, audio, strict=True)]
    expected = [cos(f.prototypes[0], f.background) for f in found]
    assert one.loss.tolist() == pytest.approx(expected, abs=1e-10)


def test_a_prototype_that_claims_nothing_is_the_last() -> None:
    """Two equal pixels are equal to the background prototype, too: the first is not nearer to itself."""
    visual, audio = one_row([(1, 0), (1, 0)], (0.2, 1))
    options: dict[str, Any] = {"omega": 1e-3, "background_threshold": 1.0, "merge_threshold": 1.0}
    assert object_clustering_loss(visual, audio, **options).objects == 1


def test_groups_are_those_of_identification() -> None:
    for seed in range(10):
        visual, audio = scene(noise=0.6, seed=seed)
        unit = visual / visual.norm(dim=1, keepdim=True)
        objects = identify_objects(unit, audio).valid.sum(1).double()
        terms = object_clustering_loss(visual, audio, link_through_background=True, reduction="none")
        assert torch.equal(terms.objects, objects)


def test_scale_and_permutation_of_pixels() -> None:
    visual, audio = scene()
    expected = object_clustering_loss(visual, audio, reduction="none")
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    shuffled = visual.flatten(2)[..., order].view_as(visual)
    for changed in ((shuffled, audio), (visual * 5, audio / 9), (visual * torch.rand(3, 1, 4, 5).add(0.1), audio)):
        torch.testing.assert_close(object_clustering_loss(*changed, reduction="none"), expected)
    single = object_clustering_loss(visual.float() * 1e30, audio.float() * 1e-30, reduction="none")
    torch.testing.assert_close(single.loss.double(), expected.loss, atol=1e-4, rtol=0)


def test_the_anchor_is_in_the_group() -> None:
    """The loss with every prototype as an anchor is not that of the first or the last one alone."""
    visual, audio = scene(noise=0.6)
    losses = [
        object_clustering_loss(visual, audio, anchor=a, merge_threshold=0.2).loss for a in ("last", "peak", "every")
    ]
    assert len({round(float(x), 6) for x in losses}) == 3


def test_gradient_of_peaks_and_of_the_background() -> None:
    """Pixels that are no peak have a gradient only through the background prototype."""
    visual, audio = FIVE[0].clone().requires_grad_(), FIVE[1].clone().requires_grad_()
    object_clustering_loss(visual, audio, merge_threshold=ABOVE).loss.backward()
    assert (visual.grad.abs().sum((0, 1, 2)) > 1e-3).tolist() == [False, True, True, True, True]
    assert audio.grad.any()
    assert float(visual.grad[..., 0].abs().sum()) > 0


@pytest.mark.parametrize("options", [{}, LITERAL, {"anchor": "every", "merge_threshold": 0.0}, {"anchor": "peak"}])
def test_gradcheck(options: dict[str, Any]) -> None:
    inputs = tuple(x.requires_grad_() for x in scene(2, 5, (1, 4), noise=0.6, seed=3))
    assert torch.autograd.gradcheck(lambda v, a: object_clustering_loss(v, a, omega=0.3, **options).loss, inputs)


@pytest.mark.parametrize("options", [{}, LITERAL])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_without_a_sample_or_an_object_the_loss_is_a_zero_with_its_graph(
    reduction: str, options: dict[str, Any]
) -> None:
    visual, audio = scene()
    for inputs in ((visual[:0], audio[:0]), (visual, audio * 0), (visual * 0, audio)):
        leaves = [x.requires_grad_() for x in inputs]
        loss = object_clustering_loss(*leaves, reduction=reduction, **options).loss
        assert not loss.any()
        for gradient in torch.autograd.grad(loss, leaves):
            assert not gradient.any()
    silent = object_clustering_loss(*scene(), background_threshold=-1.0, **options)
    assert not any(x.any() for x in silent)


@pytest.mark.parametrize("options", [{}, LITERAL])
@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_sample_is_alone_with_its_nan(at: int, value: float, options: dict[str, Any]) -> None:
    inputs = scene()
    inputs[at][1].view(-1)[0] = value
    leaves = [x.requires_grad_() for x in inputs]
    terms = object_clustering_loss(*leaves, reduction="none", **options)
    wanted = object_clustering_loss(*(x[[0, 2]] for x in leaves), reduction="none", **options)
    for actual, expected in zip(terms, wanted, strict=True):
        assert actual[1].isnan()
        torch.testing.assert_close(actual[[0, 2]], expected)
    got = torch.autograd.grad(terms.loss[[0, 2]].sum(), leaves)
    torch.testing.assert_close(got, torch.autograd.grad(wanted.loss.sum(), leaves))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    visual, audio = (x.to(dtype) for x in scene())
    with torch.autocast("cpu", dtype=dtype):
        loss = object_clustering_loss(visual, audio).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss.double(), object_clustering_loss(visual.double(), audio.double()).loss, atol=1e-4, rtol=0
    )


def test_module_is_the_function() -> None:
    options: dict[str, Any] = {
        "peak_threshold": 0.2,
        "background_threshold": 0.8,
        "merge_threshold": 0.3,
        "alpha_background": 0.5,
        "omega": 0.1,
        "anchor": "every",
        "padding": "batch",
        "link_through_background": True,
        "max_iterations": 5,
        "gather_distributed": True,
        "reduction": "sum",
    }
    loss = ObjectClusteringLoss(**options)
    expected = object_clustering_loss(*scene(), **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(*scene()), expected)
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"peak": 1.0}, TypeError),
        ({"peak_threshold": math.nan}, ValueError),
        ({"background_threshold": 1.1}, ValueError),
        ({"merge_threshold": -1.1}, ValueError),
        ({"alpha_background": "0.4"}, TypeError),
        ({"omega": 0.0}, ValueError),
        ({"anchor": "mean"}, ValueError),
        ({"padding": "none"}, ValueError),
        ({"link_through_background": 1}, TypeError),
        ({"max_iterations": 0}, ValueError),
        ({"gather_distributed": 1}, TypeError),
        ({"reduction": "avg"}, ValueError),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        ObjectClusteringLoss(**options)


@pytest.mark.parametrize("options", [{}, LITERAL])
def test_compiles_to_one_graph_for_every_batch_size(options: dict[str, Any]) -> None:
    torch.compiler.reset()
    loss = ObjectClusteringLoss(max_iterations=8, **options)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch in (4, 3):
        visual, audio = scene(batch)
        torch._dynamo.mark_dynamic(visual, 0)
        torch._dynamo.mark_dynamic(audio, 0)
        visual.requires_grad_()
        actual, expected = compiled(visual, audio), loss(visual, audio)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        (wanted,), (got,) = torch.autograd.grad(expected, visual), torch.autograd.grad(actual, visual)
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    assert counter.frame_count == 1
