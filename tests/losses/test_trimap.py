"""The tri-map loss: equal to a loop written from its equations."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import TriMapContrastiveLoss, trimap_contrastive_loss


def make(batch: int = 4, channels: int = 6, size: tuple[int, int] = (3, 4), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(batch, channels, generator=generator, dtype=torch.float64)
    noise = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    shown = torch.randn(batch, 1, *size, generator=generator) > 0
    return noise + 1.5 * shown * audio[:, :, None, None], audio


def loop(visual: Tensor, audio: Tensor, temperature: float) -> list[float]:
    batch, _, height, width = visual.shape

    def mean_under_mask(i: int, j: int, positive: bool) -> float:
        weighted, total = 0.0, 0.0
        for y in range(height):
            for x in range(width):
                pixel = visual[i, :, y, x]
                s = float(pixel @ audio[j] / (pixel.norm() * audio[j].norm()))
                mask = 1 / (1 + math.exp(-(s - (0.65 if positive else 0.4)) / 0.03))
                mask = mask if positive else 1 - mask
                weighted, total = weighted + mask * s, total + mask
        return weighted / total

    losses = []
    for i in range(batch):
        own = math.exp(mean_under_mask(i, i, True) / temperature)
        easy = sum(math.exp(mean_under_mask(i, j, True) / temperature) for j in range(batch) if j != i)
        hard = math.exp(mean_under_mask(i, i, False) / temperature)
        losses.append(-math.log(own / (own + easy + hard)))
    return losses


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize(("batch", "size"), [(4, (3, 4)), (1, (2, 2)), (3, (1, 1))])
def test_equals_the_loop(batch: int, size: tuple[int, int], temperature: float) -> None:
    visual, audio = make(batch, size=size)
    expected = torch.tensor(loop(visual, audio, temperature), dtype=torch.float64)
    for reduction, wanted in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
        terms = trimap_contrastive_loss(visual, audio, temperature=temperature, reduction=reduction)
        torch.testing.assert_close(terms.loss, wanted, atol=1e-10, rtol=0)


def test_a_negative_own_pair_is_not_a_large_logit() -> None:
    """In the public code, -99 times a similarity of -0.5 becomes a negative of e^(49.5 / 0.07)."""
    audio = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    visual = torch.tensor([[-0.5, 0.75**0.5], [0.75**0.5, -0.5]])[:, :, None, None]
    loss = trimap_contrastive_loss(visual, audio, temperature=1.0, reduction="none").loss
    expected = math.log(math.exp(-0.5) * 2 + math.exp(0.75**0.5)) + 0.5
    torch.testing.assert_close(loss, torch.full((2,), expected))


@pytest.mark.parametrize(
    ("temperature", "expected", "literal"), [(0.07, 5.033633, 145.499088), (1.0, 1.209432, 10.185064)]
)
def test_the_own_negative_of_the_public_code(temperature: float, expected: float, literal: float) -> None:
    """Negative similarities: S_00 = [-.2, -.1], S_01 = [.3, .1], S_10 = [.2, 0], S_11 = [-.1, -.3]."""
    values = torch.tensor([[[-0.2, -0.1], [0.3, 0.1]], [[0.2, 0.0], [-0.1, -0.3]]], dtype=torch.float64)
    rest = (1 - values.square().sum(1, keepdim=True)).sqrt()
    visual, audio = torch.cat([values, rest], 1)[:, :, None], torch.eye(3, dtype=torch.float64)[:2]
    for options, wanted in (({}, expected), ({"own_negative": "public-code"}, literal)):
        loss = trimap_contrastive_loss(visual, audio, temperature=temperature, **options).loss
        assert float(loss) == pytest.approx(wanted, abs=1e-6)


def test_the_own_negative_does_not_count_where_similarities_are_positive() -> None:
    visual, audio = (x.abs() for x in make())
    literal = trimap_contrastive_loss(visual, audio, own_negative="public-code").loss
    torch.testing.assert_close(literal, trimap_contrastive_loss(visual, audio).loss, atol=1e-12, rtol=0)


def test_scale_permutation_and_layout() -> None:
    visual, audio = make()
    expected = trimap_contrastive_loss(visual, audio, reduction="none").loss
    order = torch.tensor([2, 0, 3, 1])
    permuted = trimap_contrastive_loss(visual[order], audio[order], reduction="none").loss
    torch.testing.assert_close(permuted, expected[order], atol=1e-12, rtol=0)
    odd = visual.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    torch.testing.assert_close(trimap_contrastive_loss(odd, audio, reduction="none").loss, expected)
    for scale in (1e-30, 1e30):
        scaled = trimap_contrastive_loss(visual.float() * scale, audio.float() / scale, reduction="none").loss
        torch.testing.assert_close(scaled, expected.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{}, {"temperature": 1e-44}, {"omega": 1e-44}])
def test_the_largest_features_and_the_smallest_options_are_finite(options: dict[str, float]) -> None:
    visual, audio = ((t.sign() * 3.4e38).float().requires_grad_() for t in make())
    loss = trimap_contrastive_loss(visual, audio, **options).loss
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (visual, audio)))
    if not options:
        unit = trimap_contrastive_loss(visual.detach().sign(), audio.detach().sign()).loss
        torch.testing.assert_close(loss, unit)


def test_gradcheck() -> None:
    visual, audio = make(3, 4, (2, 2))
    inputs = (visual.requires_grad_(), audio.requires_grad_())
    assert torch.autograd.gradcheck(lambda v, a: trimap_contrastive_loss(v, a, temperature=0.5, omega=0.3).loss, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("level", [-1.0, -0.5, 0.0, 0.3, 0.65, 0.9])
def test_trains_at_every_similarity(level: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    audio = torch.eye(8)[:3]
    visual = torch.randn(3, 8, 2, 2)
    for i in range(3):
        visual[i, i] = 0
        visual[i] *= math.sqrt(1 - level**2) / visual[i].norm(dim=0)
        visual[i, i] = level
    visual = visual.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        loss = TriMapContrastiveLoss()(visual, audio.to(dtype))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    loss.backward()
    assert visual.grad is not None
    assert torch.isfinite(visual.grad).all()
    assert visual.grad.any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_empty_batch_is_a_zero_with_its_graph(reduction: str) -> None:
    visual = torch.zeros(0, 4, 2, 2, requires_grad=True)
    loss = trimap_contrastive_loss(visual, torch.zeros(0, 4), reduction=reduction).loss
    assert float(loss.detach()) == 0
    loss.backward()
    assert visual.grad is not None


def test_module_is_the_function() -> None:
    visual, audio = make()
    options: dict[str, Any] = {
        "temperature": 0.2,
        "alpha_foreground": 0.5,
        "alpha_background": 0.3,
        "omega": 0.1,
        "own_negative": "public-code",
        "gather_distributed": True,
        "reduction": "sum",
    }
    loss = TriMapContrastiveLoss(**options)
    expected = trimap_contrastive_loss(visual, audio, **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(visual, audio), expected)
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"temprature": 1.0}, TypeError),
        ({"temperature": 0.0}, ValueError),
        ({"reduction": "avg"}, ValueError),
        ({"own_negative": "drop"}, ValueError),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        TriMapContrastiveLoss(**options)


def test_compiles_to_one_graph_for_every_batch_size() -> None:
    torch.compiler.reset()
    loss = TriMapContrastiveLoss()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch in (4, 3):
        visual, audio = make(batch)
        torch._dynamo.mark_dynamic(visual, 0)
        torch._dynamo.mark_dynamic(audio, 0)
        visual.requires_grad_()
        actual, expected = compiled(visual, audio), loss(visual, audio)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        (wanted,), (got,) = torch.autograd.grad(expected, visual), torch.autograd.grad(actual, visual)
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    assert counter.frame_count == 1


def test_memory_of_a_full_batch() -> None:
    visual, audio = torch.randn(128, 8, 14, 14, requires_grad=True), torch.randn(128, 8)
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        trimap_contrastive_loss(visual, audio).loss.backward()
    assert saved < 10 * 4 * 128 * 128 * 14 * 14
