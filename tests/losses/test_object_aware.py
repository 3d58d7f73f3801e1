"""OCA: equal to a loop written from Eqs. 1-6; bounds, invariances and degenerate batches."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import ObjectAwareContrastiveLoss, OCALoss, object_aware_contrastive_loss

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def make(
    batch: int = 4,
    sources: int = 3,
    channels: int = 6,
    size: tuple[int, int] = (3, 4),
    seed: int = 0,
    lift: float = 0.6,
) -> Batch:
    """Random features. ``lift`` moves the visual ones towards the sound, so that masks and τ make a difference."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    audio = normal(batch, channels)
    visual = normal(batch, channels, *size) + lift * 3 * audio[:, :, None, None] * (normal(batch, 1, *size) > 0)
    return visual, audio, normal(batch, sources, channels) + lift * audio[:, None], normal(batch, channels)


def sim(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def loop(
    visual: Tensor,
    audio: Tensor,
    foreground: Tensor,
    background: Tensor,
    mask: Tensor | None = None,
    tau: float = 0.7,
    temperature: float = 1.0,
    rule: str = "visual-reference",
    background_mask: Tensor | None = None,
) -> tuple[list[float], list[float]]:
    """Eqs. 1-6: frg_i and bkg_i of every sample. Without a background caption there is no bkg_i."""
    batch, channels, height, width = visual.shape
    taking_part = [i for i in range(batch) if mask is None or bool(mask[i].any())]
    vp, vn, rp = {}, {}, {}
    for i in taking_part:
        vp[i], vn[i] = torch.zeros(channels).double(), torch.zeros(channels).double()
        for y in range(height):
            for x in range(width):
                s = sim(visual[i, :, y, x], audio[i])
                vp[i] += visual[i, :, y, x] * (1 / (1 + math.exp(-(s - 0.65) / 0.03))) / (height * width)
                vn[i] += visual[i, :, y, x] * (1 - 1 / (1 + math.exp(-(s - 0.4) / 0.03))) / (height * width)
        present = [foreground[i, k] for k in range(foreground.shape[1]) if mask is None or mask[i, k]]
        rp[i] = torch.stack(present).mean(0)

    frg, bkg = [0.0] * batch, [0.0] * batch
    for i in taking_part:
        p = math.exp(sim(vp[i], rp[i]) / temperature)
        hard = math.exp(sim(vn[i], rp[i]) / temperature)
        soft = 0.0
        for j in taking_part:
            tested = sim(vp[j], rp[i]) if rule == "visual-reference" else sim(rp[j], rp[i])
            if j != i and tested <= tau:
                soft += math.exp(sim(vp[j], rp[i]) / temperature)
        frg[i] = -math.log(p / (p + hard + soft))
        if background_mask is not None and not background_mask[i]:
            continue
        p_hat = math.exp(sim(vn[i], background[i]) / temperature)
        n_hat = math.exp(sim(vp[i], background[i]) / temperature)
        bkg[i] = -math.log(p_hat / (p_hat + n_hat))
    return frg, bkg


MASK = torch.tensor([[True, True, False], [True, True, True], [False, True, False], [True, False, True]])


@pytest.mark.parametrize("temperature", [1.0, 0.07])
@pytest.mark.parametrize("tau", [0.7, 0.2, -0.2])
@pytest.mark.parametrize("rule", ["visual-reference", "reference-reference"])
@pytest.mark.parametrize("mask", [None, MASK, MASK & torch.tensor([True, True, False, True])[:, None]])
def test_equals_the_loop(rule: str, tau: float, temperature: float, mask: Tensor | None) -> None:
    inputs = make()
    frg, bkg = loop(*inputs, mask, tau, temperature, rule)
    options: dict[str, Any] = {"tau": tau, "temperature": temperature, "false_negatives": rule}
    each = object_aware_contrastive_loss(*inputs, mask, **options, reduction="none")
    count = 4 if mask is None else int(mask.any(1).sum())
    total = object_aware_contrastive_loss(*inputs, mask, **options, reduction="sum")
    mean = object_aware_contrastive_loss(*inputs, mask, **options)
    expected = torch.tensor([frg, bkg], dtype=torch.float64)
    for actual, wanted in (
        (each, expected),
        (total, expected.sum(1)),
        (mean, expected.sum(1) / count),
    ):
        torch.testing.assert_close(torch.stack([actual.foreground, actual.background]), wanted, atol=1e-10, rtol=0)
        torch.testing.assert_close(actual.loss, wanted.mean(0), atol=1e-10, rtol=0)


@pytest.mark.parametrize("mask", [None, MASK & torch.tensor([True, True, False, True])[:, None]])
@pytest.mark.parametrize("described", [[True, False, True, False], [False, False, True, False], [False] * 4])
def test_samples_without_a_background_caption_equal_the_loop(described: list[bool], mask: Tensor | None) -> None:
    """L_bkg is over the samples that have a background caption, L_frg over all."""
    visual, audio, foreground, background = make()
    background_mask = torch.tensor(described)
    frg, bkg = torch.tensor(
        loop(visual, audio, foreground, background, mask, background_mask=background_mask), dtype=torch.float64
    )
    background = background.where(background_mask[:, None], torch.nan).requires_grad_()
    taking_part = torch.ones(4, dtype=torch.bool) if mask is None else mask.any(1)
    counts = taking_part.sum(), (taking_part & background_mask).sum().clamp(min=1)
    for reduction, wanted in (
        ("none", (frg, bkg)),
        ("sum", (frg.sum(), bkg.sum())),
        ("mean", (frg.sum() / counts[0], bkg.sum() / counts[1])),
    ):
        terms = object_aware_contrastive_loss(
            visual, audio, foreground, background, mask, background_mask, reduction=reduction
        )
        torch.testing.assert_close(terms.foreground, wanted[0], atol=1e-10, rtol=0)
        torch.testing.assert_close(terms.background, wanted[1], atol=1e-10, rtol=0)
        torch.testing.assert_close(terms.loss, (wanted[0] + wanted[1]) / 2, atol=1e-10, rtol=0)
        (gradient,) = torch.autograd.grad(terms.loss.sum(), background)
        assert gradient.isfinite().all()
        assert not gradient[~background_mask].any()
        module = OCALoss(reduction=reduction)
        assert torch.equal(module(visual, audio, foreground, background, mask, background_mask), terms.loss)


def test_all_background_captions_are_the_default() -> None:
    inputs = make()
    every = torch.ones(4, dtype=torch.bool)
    assert torch.equal(OCALoss()(*inputs, MASK, every), OCALoss()(*inputs, MASK))


def test_the_rules_and_the_threshold_cut() -> None:
    """The comparisons above only test τ if it excludes some pairs and keeps others."""
    inputs = make()
    shares = {
        (rule, tau): float(object_aware_contrastive_loss(*inputs, tau=tau, false_negatives=rule).kept_negatives)
        for rule in ("visual-reference", "reference-reference")
        for tau in (1.0, 0.2, -1.0)
    }
    assert shares[("visual-reference", 1.0)] == 1
    assert 0 < shares[("visual-reference", 0.2)] < 1
    assert 0 < shares[("reference-reference", 0.2)] < 1
    assert shares[("visual-reference", -1.0)] == 0
    assert float(object_aware_contrastive_loss(*make(batch=1)).kept_negatives) == 0


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 5),
    sources=st.integers(1, 3),
    lift=st.floats(-3, 3),
    tau=st.floats(-1, 1),
)
def test_bounds(seed: int, batch: int, sources: int, lift: float, tau: float) -> None:
    inputs = make(batch, sources, seed=seed, lift=lift)
    terms = object_aware_contrastive_loss(*inputs, tau=tau, reduction="none")
    least, most = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert (terms.background >= least - 1e-9).all()
    assert (terms.background <= most + 1e-9).all()
    assert (terms.foreground >= least - 1e-9).all()
    assert (terms.foreground <= math.log(1 + math.exp(2) + (batch - 1) * math.exp(1 + tau)) + 1e-9).all()


@pytest.mark.parametrize("rule", ["visual-reference", "reference-reference"])
def test_the_largest_threshold_takes_nothing_for_a_false_negative(rule: str) -> None:
    """Equal clips have a cosine of 1, which rounding can make larger."""
    for seed in range(20):
        feature = torch.randn(1, 16, generator=torch.Generator().manual_seed(seed)).expand(4, -1)
        terms = object_aware_contrastive_loss(
            feature[..., None, None], feature, feature[:, None], feature, tau=1.0, false_negatives=rule
        )
        assert terms.kept_negatives == 1


def test_the_indicator_carries_no_gradient_and_others_do() -> None:
    visual, audio, foreground, background = make()
    visual.requires_grad_()
    terms = object_aware_contrastive_loss(visual, audio, foreground, background, reduction="none")
    (gradient,) = torch.autograd.grad(terms.foreground[0], visual)
    assert gradient[1:].any()
    (gradient,) = torch.autograd.grad(
        object_aware_contrastive_loss(visual, audio, foreground, background, tau=-1.0, reduction="none").foreground[0],
        visual,
    )
    assert not gradient[1:].any()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_positive_scale_does_not_matter(scale: float) -> None:
    inputs = [t.float() for t in make()]
    expected = object_aware_contrastive_loss(*inputs).loss
    for index in range(4):
        scaled = [t * scale if i == index else t for i, t in enumerate(inputs)]
        torch.testing.assert_close(object_aware_contrastive_loss(*scaled).loss, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("index", [*range(4), None])
def test_the_largest_finite_features_are_like_any_others(index: int | None, dtype: torch.dtype) -> None:
    """A sum of them overflows, and even their mean may by rounding."""
    spoiled = [i for i in range(4) if index in (i, None)]
    signs = [t.sign() if i in spoiled else t for i, t in enumerate(make(sources=5))]
    signs[0] = signs[0][..., :1, :1].expand(signs[0].shape) if 0 in spoiled else signs[0]  # their mean is the largest
    signs = [t.to(dtype).clone() for t in signs]
    largest = [t.clone() for t in signs]
    for i in spoiled:  # one sample of each
        largest[i][1] *= torch.finfo(dtype).max
    for t in (*signs, *largest):
        t.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype.itemsize == 2):
        expected = object_aware_contrastive_loss(*signs, reduction="none").loss
        actual = object_aware_contrastive_loss(*largest, reduction="none").loss
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    others = torch.tensor([0, 2, 3])
    wanted, got = (torch.autograd.grad(loss.sum(), ts) for loss, ts in ((expected, signs), (actual, largest)))
    for w, g in zip(wanted, got, strict=True):
        assert g.isfinite().all()
        torch.testing.assert_close(g[others], w[others], atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{"temperature": 1e-44}, {"omega": 1e-44}])
def test_the_smallest_options_are_finite(options: dict[str, float]) -> None:
    inputs = [t.float().requires_grad_() for t in make()]
    loss = object_aware_contrastive_loss(*inputs, **options).loss
    assert loss.isfinite()
    assert not any(g.isnan().any() for g in torch.autograd.grad(loss, inputs))


def test_permutations_and_padding() -> None:
    inputs = make()
    expected = object_aware_contrastive_loss(*inputs, MASK, reduction="none").loss
    order = torch.tensor([2, 0, 3, 1])
    permuted = object_aware_contrastive_loss(*(t[order] for t in inputs), MASK[order], reduction="none").loss
    torch.testing.assert_close(permuted, expected[order], atol=1e-12, rtol=0)

    visual, audio, foreground, background = inputs
    swapped = foreground[:, [1, 2, 0]]
    actual = object_aware_contrastive_loss(visual, audio, swapped, background, MASK[:, [1, 2, 0]], reduction="none")
    torch.testing.assert_close(actual.loss, expected, atol=1e-12, rtol=0)

    rubbish = foreground.where(MASK[..., None], torch.nan).requires_grad_()
    padded = object_aware_contrastive_loss(visual, audio, rubbish, background, MASK, reduction="none").loss
    torch.testing.assert_close(padded, expected, atol=1e-12, rtol=0)
    padded.sum().backward()
    assert rubbish.grad is not None
    assert torch.isfinite(rubbish.grad).all()
    assert not rubbish.grad[~MASK].any()


def test_a_sample_without_sources_is_ignored() -> None:
    inputs = make(5)
    for t in inputs:
        t.requires_grad_()
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[2] = False
    rest = torch.tensor([0, 1, 3, 4])
    for reduction in ("mean", "sum"):
        actual = object_aware_contrastive_loss(*inputs, mask, reduction=reduction).loss
        expected = object_aware_contrastive_loss(*(t[rest] for t in inputs), reduction=reduction).loss
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        for gradient in torch.autograd.grad(actual, inputs):
            assert not gradient[2].any()
            assert gradient[rest].any()
    assert object_aware_contrastive_loss(*inputs, mask, reduction="none").loss[2] == 0


@pytest.mark.parametrize(
    ("batch", "mask"), [(0, torch.ones(0, 3, dtype=torch.bool)), (4, torch.zeros(4, 3, dtype=torch.bool)), (0, None)]
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_left_is_a_zero_with_its_graph(batch: int, mask: Tensor | None, reduction: str) -> None:
    visual, audio, foreground, background = make(batch)
    visual.requires_grad_()
    terms = object_aware_contrastive_loss(visual, audio, foreground, background, mask, reduction=reduction)
    assert float(terms.loss.detach()) == 0
    terms.loss.backward()
    assert visual.grad is not None
    assert not visual.grad.any()
    none = object_aware_contrastive_loss(visual, audio, foreground, background, mask, reduction="none").loss
    assert none.shape == (batch,)


def test_no_sources_at_all() -> None:
    terms = object_aware_contrastive_loss(*make(sources=0), reduction="none")
    assert torch.equal(terms.loss, torch.zeros(4).double())


@pytest.mark.parametrize(("batch", "sources", "size"), [(1, 1, (1, 1)), (1, 3, (2, 2)), (3, 1, (1, 1)), (3, 1, (4, 1))])
def test_smallest_batches_equal_the_loop(batch: int, sources: int, size: tuple[int, int]) -> None:
    inputs = make(batch, sources, size=size)
    frg, bkg = loop(*inputs)
    terms = object_aware_contrastive_loss(*inputs)
    torch.testing.assert_close(float(terms.foreground), sum(frg) / batch, atol=1e-10, rtol=0)
    torch.testing.assert_close(float(terms.background), sum(bkg) / batch, atol=1e-10, rtol=0)


@pytest.mark.parametrize("rule", ["visual-reference", "reference-reference"])
def test_gradcheck(rule: str) -> None:
    visual, audio, foreground, background = make(3, 2, channels=4, size=(2, 2), lift=0.3)
    inputs = tuple(t.requires_grad_() for t in (visual, audio, foreground, background))
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    assert torch.autograd.gradcheck(
        lambda *t: object_aware_contrastive_loss(*t, mask, false_negatives=rule, temperature=0.5, omega=0.3).loss,
        inputs,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("level", [-1.0, -0.5, 0.0, 0.3, 0.65, 0.9, 1.0])
def test_trains_at_every_similarity(level: float, dtype: torch.dtype) -> None:
    """All pixels have one cosine with the sound, but different directions."""
    torch.manual_seed(0)
    audio = torch.zeros(3, 8)
    audio[:, 0] = 1
    around = torch.randn(3, 7, 2, 2)
    around = around / around.norm(dim=1, keepdim=True) * math.sqrt(1 - level**2)
    visual = torch.cat([torch.full((3, 1, 2, 2), level), around], 1).to(dtype).requires_grad_()
    references = torch.randn(3, 2, 8).to(dtype), torch.randn(3, 8).to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        loss = OCALoss()(visual, audio.to(dtype), *references)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    loss.backward()
    assert visual.grad is not None
    assert torch.isfinite(visual.grad).all()
    assert visual.grad.abs().amax((1, 2, 3)).gt(1e-3).all()


def test_audio_gets_a_gradient_at_initialization() -> None:
    """S_a = 0 exactly: the printed mask is 4e-10 everywhere, and the pooled vector must still depend on it."""
    visual, audio, foreground, background = (t.float() for t in make(lift=0.0))
    visual[:, 0], audio[:, 1:] = 0, 0
    audio.requires_grad_()
    OCALoss()(visual, audio, foreground, background).backward()
    assert audio.grad is not None
    assert audio.grad.abs().amax(1).gt(1e-4).all()


def test_layout() -> None:
    visual, audio, foreground, background = make()
    odd = visual.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    assert not odd.is_contiguous()
    expected = object_aware_contrastive_loss(visual, audio, foreground, background).loss
    actual = object_aware_contrastive_loss(odd, audio.T.contiguous().T, foreground, background).loss
    torch.testing.assert_close(actual, expected, atol=1e-14, rtol=0)


def test_module_is_the_function() -> None:
    inputs = make()
    options: dict[str, Any] = {
        "alpha_foreground": 0.5,
        "alpha_background": 0.3,
        "omega": 0.1,
        "tau": 0.1,
        "temperature": 0.2,
        "false_negatives": "reference-reference",
        "gather_distributed": True,
        "reduction": "sum",
    }
    loss = OCALoss(**options)
    expected = object_aware_contrastive_loss(*inputs, MASK, **options).loss
    plain = object_aware_contrastive_loss(*inputs, MASK).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(*inputs, MASK), expected)
    assert not torch.isclose(expected, plain)
    assert OCALoss is ObjectAwareContrastiveLoss
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"alpha_foregroud": 0.6}, TypeError),
        ({"false_negatives": "visual"}, ValueError),
        ({"reduction": "avg"}, ValueError),
        ({"temperature": 0}, ValueError),
        ({"omega": -0.1}, ValueError),
        ({"tau": "0.7"}, TypeError),
        ({"tau": float("nan")}, ValueError),
        ({"gather_distributed": 1}, TypeError),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        OCALoss(**options)
    with pytest.raises(error, match=next(iter(options))):
        object_aware_contrastive_loss(*make(), **options)


def test_wrong_inputs_are_named() -> None:
    visual, audio, foreground, background = make()
    with pytest.raises(ValueError, match=r"`foreground` to have shape \(B, K, C\)"):
        object_aware_contrastive_loss(visual, audio, background, background)
    with pytest.raises(ValueError, match=r"`audio` to have shape \(B, C\) with C = 6"):
        object_aware_contrastive_loss(visual, audio[:, :3], foreground, background)
    with pytest.raises(ValueError, match=r"`source_mask` to have shape \(B, K\) with K = 3"):
        object_aware_contrastive_loss(visual, audio, foreground, background, MASK[:, :2])
    with pytest.raises(TypeError, match=r"`source_mask` to have dtype torch.bool"):
        object_aware_contrastive_loss(visual, audio, foreground, background, MASK.float())
    with pytest.raises(ValueError, match=r"`background_mask` to have shape \(B\) with B = 4"):
        object_aware_contrastive_loss(visual, audio, foreground, background, MASK, MASK[:2, 0])
    with pytest.raises(TypeError, match=r"`background_mask` to have dtype torch.bool"):
        object_aware_contrastive_loss(visual, audio, foreground, background, MASK, torch.ones(4))


def test_compiles_to_one_graph_for_every_batch_size() -> None:
    torch.compiler.reset()
    loss = OCALoss(false_negatives="reference-reference")
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch, mask in ((4, MASK), (3, MASK[1:])):
        inputs = make(batch)
        described = mask[:, 0].clone()
        for t in (*inputs, mask, described):
            torch._dynamo.mark_dynamic(t, 0)
        inputs[0].requires_grad_()
        actual, expected = compiled(*inputs, mask, described), loss(*inputs, mask, described)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        (wanted,), (got,) = torch.autograd.grad(expected, inputs[0]), torch.autograd.grad(actual, inputs[0])
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    assert counter.frame_count == 1
