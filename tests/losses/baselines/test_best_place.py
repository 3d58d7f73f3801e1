"""The best-place loss of EZ-VSL: equal to a loop written from its equation."""

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

from sslosses import BestPlaceContrastiveLoss, best_place_contrastive_loss


def make(batch: int = 4, channels: int = 6, size: tuple[int, int] = (3, 4), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(batch, channels, generator=generator, dtype=torch.float64)
    return torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64), audio


def with_best(best: list[list[float]]) -> tuple[Tensor, Tensor]:
    """Frames of one pixel each, whose similarities with two sounds, at 60°, are the rows of a matrix."""
    sounds = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.75**0.5, 0.0]], dtype=torch.float64)
    values = torch.tensor(best, dtype=torch.float64) @ torch.linalg.inv(sounds[:, :2]).mT
    rest = (1 - values.square().sum(1, keepdim=True)).sqrt()
    return torch.cat([values, rest], 1)[:, :, None, None], sounds


def tiny() -> tuple[Tensor, Tensor]:
    """Frames of two pixels: (1, 0), (0, 1) and (.6, .8), (1, 0)."""
    visual = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 1.0], [0.8, 0.0]]], dtype=torch.float64)
    return visual[:, :, None], torch.eye(2, dtype=torch.float64)


def loop(visual: Tensor, audio: Tensor, temperature: float) -> tuple[list[float], list[float]]:
    """The cross-entropies of each frame among the sounds, and of each sound among the frames."""
    batch, _, height, width = visual.shape
    best = [[-math.inf] * batch for _ in range(batch)]
    for i in range(batch):
        for j in range(batch):
            for y in range(height):
                for x in range(width):
                    pixel = visual[i, :, y, x]
                    cosine = float(pixel @ audio[j] / (pixel.norm() * audio[j].norm()))
                    best[i][j] = max(best[i][j], cosine)
    rows, columns = [], []
    for i in range(batch):
        own = math.exp(best[i][i] / temperature)
        rows.append(-math.log(own / sum(math.exp(best[i][j] / temperature) for j in range(batch))))
        columns.append(-math.log(own / sum(math.exp(best[j][i] / temperature) for j in range(batch))))
    return rows, columns


@pytest.mark.parametrize("temperature", [0.03, 1.0])
@pytest.mark.parametrize(("batch", "size"), [(4, (3, 4)), (2, (2, 2)), (1, (2, 2)), (3, (1, 1))])
def test_equals_the_loop(batch: int, size: tuple[int, int], temperature: float) -> None:
    visual, audio = make(batch, size=size)
    rows, columns = (torch.tensor(x, dtype=torch.float64) for x in loop(visual, audio, temperature))
    for symmetric, loss in ((True, rows + columns), (False, rows)):
        for reduction in ("none", "sum", "mean"):
            terms = best_place_contrastive_loss(
                visual, audio, temperature=temperature, symmetric=symmetric, reduction=reduction
            )
            for actual, expected in ((terms.loss, loss), (terms[1], rows), (terms[2], columns)):
                wanted = expected if reduction == "none" else getattr(expected, reduction)()
                torch.testing.assert_close(actual, wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("temperature", "forward", "backward", "loss", "inputs"),
    [
        (1.0, 0.745643, 0.745643, 1.491286, tiny()),
        (0.03, 3.680543, 3.680543, 7.361086, tiny()),
        (1.0, 0.513015, 0.514216, 1.027231, with_best([[0.9, 0.5], [0.4, 0.8]])),
        (0.1, 0.018150, 0.027651, 0.045801, with_best([[0.9, 0.5], [0.4, 0.8]])),
    ],
)
def test_numbers(
    temperature: float, forward: float, backward: float, loss: float, inputs: tuple[Tensor, Tensor]
) -> None:
    terms = best_place_contrastive_loss(*inputs, temperature=temperature)
    assert [float(x) for x in terms[:3]] == pytest.approx([loss, forward, backward], abs=1e-6)


def test_the_default_is_that_of_the_public_code() -> None:
    assert float(BestPlaceContrastiveLoss()(*tiny())) == pytest.approx(7.361086, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), batch=st.integers(1, 5), temperature=st.sampled_from([0.03, 0.3, 3.0]))
def test_bounds_and_equal_similarities(seed: int, batch: int, temperature: float) -> None:
    visual, audio = make(batch, seed=seed)
    loss = best_place_contrastive_loss(visual, audio, temperature=temperature, reduction="none").loss
    assert (loss >= 0).all()
    assert (loss <= 2 * math.log1p((batch - 1) * math.exp(2 / temperature)) + 1e-9).all()
    equal = best_place_contrastive_loss(visual[:1].expand(batch, -1, -1, -1), audio[:1].expand(batch, -1)).loss
    assert float(equal) == pytest.approx(2 * math.log(batch), abs=1e-9)


def test_swapping_roles_permutations_and_copies_of_pixels() -> None:
    """The sum of both directions is that of the transposed matrix; the first direction becomes the second."""
    visual, audio = make(size=(1, 1))
    terms = best_place_contrastive_loss(visual, audio, reduction="none")
    swapped = best_place_contrastive_loss(audio[..., None, None], visual[..., 0, 0], reduction="none")
    torch.testing.assert_close(swapped.loss, terms.loss)
    torch.testing.assert_close(swapped.frame_to_sound, terms.sound_to_frame)
    visual, audio = make()
    expected = best_place_contrastive_loss(visual, audio, reduction="none").loss
    order = torch.tensor([2, 0, 3, 1])
    permuted = best_place_contrastive_loss(visual[order], audio[order], reduction="none").loss
    torch.testing.assert_close(permuted, expected[order])
    for changed in (visual.flip(-1), torch.cat([visual, visual[..., :2]], -1), visual * 7):
        torch.testing.assert_close(best_place_contrastive_loss(changed, audio, reduction="none").loss, expected)


def test_only_the_best_pixels_have_a_gradient() -> None:
    visual, audio = make()
    visual.requires_grad_()
    best_place_contrastive_loss(visual, audio).loss.backward()
    assert visual.grad is not None
    cosines = torch.einsum("bchw,gc->bghw", visual / visual.norm(dim=1, keepdim=True), audio)
    best = torch.zeros(4, 12, dtype=torch.bool).scatter(1, cosines.flatten(2).argmax(-1), True)
    assert torch.equal(visual.grad.abs().sum(1).flatten(1) > 0, best)


def test_reported_terms_have_no_gradient() -> None:
    terms = best_place_contrastive_loss(*(x.requires_grad_() for x in make()))
    assert [x.requires_grad for x in terms] == [True, False, False, False]
    assert float(best_place_contrastive_loss(*tiny()).positive) == pytest.approx(0.9)


def test_gradcheck() -> None:
    inputs = tuple(x.requires_grad_() for x in make(3, 4, (2, 2)))
    assert torch.autograd.gradcheck(lambda v, a: best_place_contrastive_loss(v, a, temperature=0.5).loss, inputs)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_empty_batch_is_a_zero_with_its_graph_and_one_sample_is_zero(reduction: str) -> None:
    visual = torch.zeros(0, 4, 2, 2, requires_grad=True)
    loss = best_place_contrastive_loss(visual, torch.zeros(0, 4), reduction=reduction).loss
    assert float(loss.detach()) == 0
    loss.backward()
    assert visual.grad is not None
    assert best_place_contrastive_loss(*make(1), reduction=reduction).loss == 0


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_sample_is_no_negative(at: int, value: float) -> None:
    """Neither its frame nor its sound, whichever of them is not finite."""
    inputs = make()
    inputs[at][1].view(-1)[0] = value
    leaves = [x.requires_grad_() for x in inputs]
    options: dict[str, Any] = {"temperature": 1.0, "reduction": "none"}
    loss = best_place_contrastive_loss(*leaves, **options).loss
    others = [0, 2, 3]
    wanted = best_place_contrastive_loss(*(x[others] for x in leaves), **options).loss
    assert loss[1].isnan()
    torch.testing.assert_close(loss[others], wanted)
    for got, expected in zip(
        torch.autograd.grad(loss[others].sum(), leaves), torch.autograd.grad(wanted.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(got, expected)
    alone = best_place_contrastive_loss(*(x[1:2] for x in leaves), **options).loss
    assert alone.isnan().all()
    assert all(not g.any() for g in torch.autograd.grad(alone.sum(), leaves))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    visual, audio = (x.to(dtype) for x in make())
    with torch.autocast("cpu", dtype=dtype):
        loss = best_place_contrastive_loss(visual, audio).loss
    assert loss.dtype == torch.float32
    expected = best_place_contrastive_loss(visual.double(), audio.double()).loss
    torch.testing.assert_close(loss.double(), expected, atol=1e-4, rtol=0)


def test_module_is_the_function() -> None:
    options: dict[str, Any] = {
        "temperature": 0.2,
        "symmetric": False,
        "gather_distributed": True,
        "reduction": "sum",
    }
    loss = BestPlaceContrastiveLoss(**options)
    expected = best_place_contrastive_loss(*make(), **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(*make()), expected)
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"temprature": 1.0}, TypeError),
        ({"temperature": 0.0}, ValueError),
        ({"symmetric": 1}, TypeError),
        ({"gather_distributed": "yes"}, TypeError),
        ({"reduction": "avg"}, ValueError),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        BestPlaceContrastiveLoss(**options)


def test_compiles_to_one_graph_for_every_batch_size() -> None:
    torch.compiler.reset()
    loss = BestPlaceContrastiveLoss()
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
    """No tensor has both pairs of clips and channels."""
    visual, audio = torch.randn(64, 32, 7, 7, requires_grad=True), torch.randn(64, 32)
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        best_place_contrastive_loss(visual, audio).loss.backward()
    assert saved < 10 * 4 * 64 * 64 * 7 * 7
