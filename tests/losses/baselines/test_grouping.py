"""AVGN's loss: equal to loops written from its equations."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import GroupingLoss, grouping_loss

NAMES = ("localization", "token", "visual_presence", "audio_presence")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(batch: int = 4, sources: int = 2, classes: int = 5, channels: int = 3) -> dict[str, Tensor]:
    return {
        "visual": random(batch, channels, 2, 3, seed=0),
        "audio_groups": random(batch, classes, channels, seed=1),
        "sources": torch.randint(classes, (batch, sources), generator=torch.Generator().manual_seed(2)),
        "token_logits": random(classes, classes, seed=3),
        "visual_logits": random(batch, classes, seed=4),
        "audio_logits": random(batch, classes, seed=5),
        "visual_present": random(batch, classes, seed=6) > 0,
        "audio_present": random(batch, classes, seed=7) > 0,
        "visual_groups": random(batch, classes, channels, seed=8),
    }


MASK = torch.tensor([[True, True], [False, True], [False, False], [True, False]])


def entropy(logits: list[float], own: int) -> float:
    return math.log(sum(math.exp(x) for x in logits)) - logits[own]


def presence(logits: Tensor, present: Tensor) -> float:
    values = zip(logits.tolist(), present.tolist(), strict=True)
    return sum(math.log(1 + math.exp(-x if y else x)) for x, y in values) / len(logits)


def loop(
    inputs: dict[str, Tensor], mask: Tensor, temperature: float, normalize_audio: bool, symmetric: bool
) -> dict[str, list[float]]:
    """The terms of each sample."""
    batch, _, height, width = inputs["visual"].shape
    gates = inputs.get("visual_groups")

    def score(frame: int, sound: int, n: int) -> float:
        group = inputs["audio_groups"][sound, inputs["sources"][sound, n]]
        group = group / group.norm() if normalize_audio else group
        cosines = []
        for y in range(height):
            for x in range(width):
                pixel = inputs["visual"][frame, :, y, x]
                pixel = pixel if gates is None else pixel * gates[frame, inputs["sources"][frame, n]]
                cosines.append(float(pixel @ group / pixel.norm()))
        return max(cosines) / temperature

    classes = len(inputs["token_logits"])
    token = sum(entropy(inputs["token_logits"][m].tolist(), m) for m in range(classes)) / classes
    terms: dict[str, list[float]] = {name: [] for name in NAMES}
    for b in range(batch):
        losses = []
        for n in range(mask.shape[1]):
            others = [i for i in range(batch) if mask[i, n]]
            if b in others:
                own = others.index(b)
                losses.append(entropy([score(i, b, n) for i in others], own))
                losses[-1] += entropy([score(b, i, n) for i in others], own) if symmetric else 0
        terms["localization"].append(sum(losses) / max(len(losses), 1))
        terms["token"].append(token)
        for kind in ("visual", "audio"):
            terms[f"{kind}_presence"].append(presence(inputs[f"{kind}_logits"][b], inputs[f"{kind}_present"][b]))
    return terms


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("normalize_audio", "symmetric"), [(False, True), (True, False), (True, True)])
def test_equals_the_loop(normalize_audio: bool, symmetric: bool, gated: bool, masked: bool) -> None:
    inputs = make()
    if not gated:
        del inputs["visual_groups"]
    mask = MASK if masked else torch.ones(4, 2, dtype=torch.bool)
    options: dict[str, Any] = {"normalize_audio": normalize_audio, "symmetric": symmetric, "temperature": 0.7}
    terms = loop(inputs, mask, 0.7, normalize_audio, symmetric)
    none = grouping_loss(**inputs, source_mask=MASK if masked else None, reduction="none", **options)
    for name, wanted in terms.items():
        actual = getattr(none, name)
        torch.testing.assert_close(actual, torch.tensor(wanted, dtype=torch.float64), atol=1e-10, rtol=0)
        assert not actual.requires_grad
    torch.testing.assert_close(none.loss, sum(none[1:], torch.zeros(4)), atol=1e-12, rtol=0)
    counts = dict.fromkeys(NAMES, 4) | {"localization": int(mask.any(1).sum())}
    for reduction in ("mean", "sum"):
        reduced = grouping_loss(**inputs, source_mask=mask, reduction=reduction, **options)
        expected = {name: sum(terms[name]) / (counts[name] if reduction == "mean" else 1) for name in NAMES}
        for name, wanted in expected.items():
            assert float(getattr(reduced, name)) == pytest.approx(wanted, abs=1e-10)
        assert float(reduced.loss) == pytest.approx(sum(expected.values()), abs=1e-10)


def published(inputs: dict[str, Tensor], temperature: float) -> float:
    """The public code for one source per frame: cross-entropies of rows and columns, means over the batch."""
    visual = torch.nn.functional.normalize(inputs["visual"], dim=1)
    groups = torch.stack([g[s[0]] for g, s in zip(inputs["audio_groups"], inputs["sources"], strict=True)])
    scores = torch.einsum("nchw,mc->nmhw", visual, groups).flatten(2).max(-1).values / temperature
    own = torch.arange(len(groups))
    function = torch.nn.functional
    loss = function.cross_entropy(scores, own) + function.cross_entropy(scores.T, own)
    loss = loss + function.cross_entropy(inputs["token_logits"], torch.arange(len(inputs["token_logits"])))
    for kind in ("visual", "audio"):
        probability = inputs[f"{kind}_logits"].sigmoid()
        loss = loss + function.binary_cross_entropy(probability, inputs[f"{kind}_present"].double())
    return float(loss)


def test_one_source_per_frame_is_the_public_code() -> None:
    inputs = make(sources=1)
    del inputs["visual_groups"]
    for temperature in (0.03, 1.0):
        loss = grouping_loss(**inputs, temperature=temperature).loss
        assert float(loss) == pytest.approx(published(inputs, temperature), abs=1e-10)


def example() -> dict[str, Tensor]:
    pixels = torch.tensor([[[1, 0], [0, 1]], [[0.6, 0.8], [-1, 0]]], dtype=torch.float64)
    groups = torch.zeros(2, 3, 2, dtype=torch.float64)
    groups[0, 2], groups[1, 1] = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.5])
    return {
        "visual": pixels.mT[:, :, None],
        "audio_groups": groups,
        "sources": torch.tensor([[2], [1]]),
        "token_logits": torch.tensor([[2, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.float64),
        "visual_logits": torch.tensor([[1, -1, 0], [0, 2, -2]], dtype=torch.float64),
        "audio_logits": torch.tensor([[2, 0, -1], [0, 1, 1]], dtype=torch.float64),
        "visual_present": torch.tensor([[1, 0, 0], [0, 1, 0]]) > 0,
        "audio_present": torch.tensor([[1, 0, 1], [0, 1, 1]]) > 0,
    }


@pytest.mark.parametrize(
    ("temperature", "normalize_audio", "expected"),
    [(1.0, False, 1.244006), (1.0, True, 1.301220), (0.03, False, 15.017526), (0.03, True, 3.681180)],
)
def test_localization_of_the_example(temperature: float, normalize_audio: bool, expected: float) -> None:
    terms = grouping_loss(**example(), temperature=temperature, normalize_audio=normalize_audio)
    assert float(terms.localization) == pytest.approx(expected, abs=1e-6)


def test_other_terms_and_the_papers_form_of_the_example() -> None:
    terms = grouping_loss(**example())
    assert [float(x) for x in terms[2:]] == pytest.approx([0.550995, 0.377779, 0.575501], abs=1e-6)
    gates = torch.zeros(2, 3, 2, dtype=torch.float64)
    gates[0, 2], gates[1, 1] = torch.tensor([1.0, 1.0]), torch.tensor([2.0, 1.0])
    paper = grouping_loss(**example(), visual_groups=gates, temperature=1.0, normalize_audio=True, symmetric=False)
    assert float(paper.localization) == pytest.approx(0.776538, abs=1e-6)


def test_invariances() -> None:
    inputs = make()
    expected = grouping_loss(**inputs, source_mask=MASK)

    def check(mask: Tensor = MASK, temperature: float = 0.03, **changed: Tensor) -> None:
        actual = grouping_loss(**inputs | changed, source_mask=mask, temperature=temperature)
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)

    clips, slots, classes = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 0]), torch.tensor([3, 0, 4, 2, 1])
    check(MASK[clips], **{n: x if n == "token_logits" else x[clips] for n, x in inputs.items()})
    check(MASK[:, slots], sources=inputs["sources"][:, slots])
    moved = {n: x[:, classes] for n, x in inputs.items() if n not in ("visual", "sources", "token_logits")}
    moved["token_logits"] = inputs["token_logits"][classes][:, classes]
    check(sources=classes.argsort()[inputs["sources"]], **moved)
    pixels = inputs["visual"].flatten(2)[..., torch.tensor([4, 2, 0, 5, 1, 3])].view(inputs["visual"].shape)
    check(visual=7 * pixels, temperature=0.03)
    check(temperature=0.06, audio_groups=2 * inputs["audio_groups"])
    check(visual_groups=5 * inputs["visual_groups"])
    padded = torch.where(MASK, inputs["sources"], -1)
    check(sources=padded)


def test_one_sample_has_no_contrast() -> None:
    terms = grouping_loss(**make(1))
    assert float(terms.localization) == pytest.approx(0, abs=1e-12)
    zero = make() | {"token_logits": torch.zeros(5, 5)}
    assert float(grouping_loss(**zero).token) == pytest.approx(math.log(5), abs=1e-6)


@pytest.mark.parametrize("sources", [0, 2])
def test_without_a_source_the_other_terms_stay(sources: int) -> None:
    inputs = make(sources=sources)
    inputs["visual"].requires_grad_()
    mask = torch.zeros(4, sources, dtype=torch.bool)
    terms = grouping_loss(**inputs, source_mask=mask)
    assert float(terms.localization) == 0
    torch.testing.assert_close(terms.loss, sum(terms[2:], torch.zeros(())).double())
    (gradient,) = torch.autograd.grad(terms.loss, inputs["visual"])
    assert not gradient.any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_empty_batch_is_a_zero_with_its_graph(reduction: str) -> None:
    inputs = make(0)
    inputs["visual"].requires_grad_()
    loss = grouping_loss(**inputs, reduction=reduction).loss
    assert float(loss.detach()) == 0
    loss.backward()
    assert inputs["visual"].grad is not None


def test_gradcheck() -> None:
    inputs = make(3)
    names = [name for name, x in inputs.items() if x.is_floating_point()]
    leaves = tuple(inputs[name].requires_grad_() for name in names)
    for options in ({}, {"normalize_audio": True, "symmetric": False}):
        assert torch.autograd.gradcheck(
            lambda *values, options=options: (
                grouping_loss(
                    **inputs | dict(zip(names, values, strict=True)), source_mask=MASK[:3], temperature=0.7, **options
                ).loss
            ),
            leaves,
            fast_mode=True,
        )


FLOATING = ("visual", "audio_groups", "visual_logits", "audio_logits", "visual_groups")


@pytest.mark.parametrize("spoiled", FLOATING)
@pytest.mark.parametrize("filler", [torch.nan, torch.inf])
def test_a_spoiled_sample(spoiled: str, filler: float) -> None:
    inputs, keep = make(), [0, 2, 3]
    others = {n: x if n == "token_logits" else x[keep] for n, x in inputs.items()}
    expected = grouping_loss(**others, reduction="none")
    inputs[spoiled][1].view(-1)[0] = filler
    leaves = [inputs[name].requires_grad_() for name in FLOATING]
    terms = grouping_loss(**inputs, reduction="none")
    for actual, wanted in zip(terms, expected, strict=True):
        torch.testing.assert_close(actual[keep], wanted, atol=1e-12, rtol=0)
        assert actual[1].isnan()
    for gradient in torch.autograd.grad(terms.loss[keep].sum(), leaves):
        assert gradient.isfinite().all()
        assert not gradient[1].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    inputs = {n: x.to(dtype) if x.is_floating_point() else x for n, x in make().items()}
    inputs["visual"].requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = GroupingLoss()(**inputs)
    assert loss.dtype == torch.float32
    wide = {n: x.detach().double() if x.is_floating_point() else x for n, x in inputs.items()}
    torch.testing.assert_close(loss.double(), grouping_loss(**wide).loss, atol=1e-3, rtol=1e-5)
    loss.backward()
    assert inputs["visual"].grad is not None
    assert inputs["visual"].grad.any()


def test_module_is_the_function() -> None:
    options: dict[str, Any] = {
        "temperature": 0.5,
        "normalize_audio": True,
        "symmetric": False,
        "gather_distributed": True,
        "reduction": "sum",
    }
    loss = GroupingLoss(**options)
    expected = grouping_loss(**make(), source_mask=MASK, **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(**make(), source_mask=MASK), expected)
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"temprature": 1.0}, TypeError),
        ({"temperature": 0.0}, ValueError),
        ({"normalize_audio": None}, TypeError),
        ({"symmetric": 1}, TypeError),
        ({"reduction": "avg"}, ValueError),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        GroupingLoss(**options)


def test_wrong_sources() -> None:
    for wrong in (-1, 5):
        inputs = make()
        inputs["sources"][1, 1] = wrong
        with pytest.raises(ValueError, match=rf"`sources` to be classes in \[0, 5\), but got {wrong}"):
            grouping_loss(**inputs)
        grouping_loss(**inputs, source_mask=torch.tensor([True, False]).expand(4, 2))
    with pytest.raises(TypeError, match="`sources` to have an integer dtype"):
        grouping_loss(**make() | {"sources": torch.zeros(4, 2)})
    with pytest.raises(TypeError, match="`source_mask`"):
        grouping_loss(**make(), source_mask=torch.ones(4, 2))
    with pytest.raises(ValueError, match="`source_mask`"):
        grouping_loss(**make(), source_mask=torch.ones(4, 1, dtype=torch.bool))
    none = make(classes=1)
    none = {n: x if n in ("visual", "sources") else x[:, :0] for n, x in none.items()}
    with pytest.raises(ValueError, match=r"`token_logits` .* M >= 1"):
        grouping_loss(**none | {"token_logits": torch.zeros(0, 0)})


def test_compiles_to_one_graph_for_every_batch_size() -> None:
    torch.compiler.reset()
    loss = GroupingLoss(temperature=0.5)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch in (4, 6):
        inputs = make(batch) | {"source_mask": torch.cat([MASK, MASK])[:batch]}
        for name, x in inputs.items():
            if name != "token_logits":
                torch._dynamo.mark_dynamic(x, 0)
        inputs["visual"].requires_grad_()
        actual, expected = compiled(**inputs), loss(**inputs)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        (wanted,), (got,) = (torch.autograd.grad(x, inputs["visual"]) for x in (expected, actual))
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    assert counter.frame_count == 1


def test_memory_of_a_full_batch() -> None:
    """No tensor has the channels of all pairs."""
    batch, sources, classes, channels = 32, 2, 4, 64
    inputs = {
        "visual": torch.randn(batch, channels, 7, 7, requires_grad=True),
        "audio_groups": torch.randn(batch, classes, channels),
        "sources": torch.randint(classes, (batch, sources)),
        "token_logits": torch.zeros(classes, classes),
        "visual_logits": torch.zeros(batch, classes),
        "audio_logits": torch.zeros(batch, classes),
        "visual_present": torch.ones(batch, classes, dtype=torch.bool),
        "audio_present": torch.ones(batch, classes, dtype=torch.bool),
    }
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        grouping_loss(**inputs).loss.backward()
    assert saved < 12 * 4 * batch * 49 * (batch * sources + channels)
