"""T-VSL's loss, its queries and its maps: equal to loops written from the equations."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sslosses import TextGuidedHeads, TextGuidedLoss, text_guided_loss, text_guided_maps, text_guided_queries

NAMES = ("image_class", "audio_class", "contrast", "presence")
MASK = torch.tensor([[True, True], [False, True], [False, False], [True, False]])
ONE = {"image_scale": 1.0, "audio_scale": 1.0, "pair_scale": 1.0, "presence_scale": 1.0}
SCALES = {"image_scale": 2.0, "audio_scale": 3.0, "pair_scale": 4.0, "presence_scale": 5.0}


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(batch: int = 4, sources: int = 2, classes: int = 5, channels: int = 3) -> dict[str, Tensor]:
    return {
        "visual": random(batch, channels, 2, 3, seed=0),
        "audio": random(batch, channels, 3, 2, seed=1),
        "class_text": random(classes, channels, seed=2),
        "sources": torch.randint(classes, (batch, sources), generator=torch.Generator().manual_seed(3)),
    }


def make_heads(channels: int = 3) -> TextGuidedHeads:
    """Heads whose gates are open, with large weights."""
    torch.manual_seed(0)
    heads = TextGuidedHeads(channels).double()
    for name, parameter in heads.named_parameters():
        torch.nn.init.normal_(parameter, std=0.5)
        if name.endswith("weight") and parameter.ndim == 0:
            torch.nn.init.uniform_(parameter, 0.2, 0.8)
    torch.nn.init.constant_(heads.log_presence_scale, 1.5)
    return heads


# Loops


def length_one(vector: Tensor) -> Tensor:
    return vector / math.sqrt(sum(float(x) ** 2 for x in vector))


def mlp(layers: Any, x: Tensor) -> Tensor:
    hidden = layers.first.weight @ x + layers.first.bias
    return layers.second.weight @ (hidden * (1 + torch.erf(hidden / 2**0.5)) / 2) + layers.second.bias


def gate(heads: TextGuidedHeads | None, name: str, x: Tensor) -> Tensor:
    if heads is None:
        return x
    part = getattr(heads, name)
    return part.weight * x + (1 - part.weight) * mlp(part.mlp, x)


def prepared(frame: Tensor, sound: Tensor, heads: TextGuidedHeads | None, normalize: bool) -> tuple[Any, Any, Tensor]:
    """Pixels and cells of one sample after their gates, and the vector of both means."""
    pixels = [gate(heads, "visual_tokens", length_one(x)) for x in frame.flatten(1).T]
    cells = [gate(heads, "audio_tokens", length_one(x) if normalize else x) for x in sound.flatten(1).T]
    both = torch.cat([sum(pixels) / len(pixels), sum(cells) / len(cells)])
    both = both if heads is None else mlp(heads.fusion, both)
    return [length_one(x) for x in pixels], [length_one(x) for x in cells], length_one(both)


def mask_of(tokens: list[Tensor], name: Tensor) -> list[float]:
    cosines = [float(x @ length_one(name)) for x in tokens]
    return [c / math.sqrt(sum(x * x for x in cosines)) for c in cosines]


def picked(tokens: list[Tensor], name: Tensor) -> Tensor:
    return sum(m * x for m, x in zip(mask_of(tokens, name), tokens, strict=True)) / len(tokens)


def entropy(logits: list[float], own: int) -> float:
    return math.log(sum(math.exp(x) for x in logits)) - logits[own]


def scale_of(heads: TextGuidedHeads | None, scale: float | None) -> float:
    if scale is not None:
        return scale
    return 100.0 if heads is None else min(max(math.exp(float(heads.log_presence_scale)), 1.0), 100.0)


@torch.no_grad()
def loop(
    inputs: dict[str, Tensor],
    mask: Tensor,
    scales: dict[str, float],
    heads: TextGuidedHeads | None = None,
    normalize_audio: bool = False,
) -> dict[str, list[float]]:
    """The terms of each sample."""
    names = [length_one(x) for x in inputs["class_text"]]
    terms: dict[str, list[float]] = {name: [] for name in NAMES}
    queries, keys, image, audio = {}, {}, {}, {}
    for b in range(len(inputs["visual"])):
        pixels, cells, both = prepared(inputs["visual"][b], inputs["audio"][b], heads, normalize_audio)
        present = set()
        for k in range(mask.shape[1]):
            if mask[b, k]:
                label = int(inputs["sources"][b, k])
                present.add(label)
                u, a = picked(pixels, names[label]), picked(cells, names[label])
                queries[b, k], keys[b, k] = (length_one(gate(heads, n, x)) for n, x in (("query", a), ("key", u)))
                for kind, store, x in (("image", image, u), ("audio", audio, a)):
                    direction = length_one(gate(heads, f"{kind}_pick", x))
                    store[b, k] = entropy([scales[f"{kind}_scale"] * float(direction @ t) for t in names], label)
        losses = []
        for j, name in enumerate(names):
            logit = scale_of(heads, scales.get("presence_scale")) * float(both @ torch.cat([name, name])) / 2**0.5
            losses.append(math.log(1 + math.exp(-logit if j in present else logit)))
        terms["presence"].append(sum(losses) / len(losses))
    contrast = {}
    for own, key in enumerate(queries):
        rows = [scales["pair_scale"] * float(queries[key] @ v) for v in keys.values()]
        columns = [scales["pair_scale"] * float(keys[key] @ q) for q in queries.values()]
        contrast[key] = (entropy(rows, own) + entropy(columns, own)) / 2
    for name, store in (("image_class", image), ("audio_class", audio), ("contrast", contrast)):
        for b in range(len(inputs["visual"])):
            values = [value for (sample, _), value in store.items() if sample == b]
            terms[name].append(sum(values) / max(len(values), 1))
    return terms


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normalize_audio", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_equals_the_loop(gated: bool, normalize_audio: bool, masked: bool) -> None:
    inputs, heads = make(), make_heads() if gated else None
    mask = MASK if masked else torch.ones(4, 2, dtype=torch.bool)
    scales = {name: value for name, value in SCALES.items() if not (gated and name == "presence_scale")}
    options: dict[str, Any] = {**scales, "heads": heads, "normalize_audio": normalize_audio}
    terms = loop(inputs, mask, scales, heads, normalize_audio)
    none = text_guided_loss(**inputs, source_mask=MASK if masked else None, reduction="none", **options)
    for name, wanted in terms.items():
        actual = getattr(none, name)
        torch.testing.assert_close(actual, torch.tensor(wanted, dtype=torch.float64), atol=1e-10, rtol=0)
        assert not actual.requires_grad
    torch.testing.assert_close(none.loss.detach(), sum(none[1:], torch.zeros(4)), atol=1e-12, rtol=0)
    counts = dict.fromkeys(NAMES, int(mask.any(1).sum())) | {"presence": 4}
    for reduction in ("mean", "sum"):
        reduced = text_guided_loss(**inputs, source_mask=mask, reduction=reduction, **options)
        expected = {name: sum(terms[name]) / (counts[name] if reduction == "mean" else 1) for name in NAMES}
        for name, wanted in expected.items():
            assert float(getattr(reduced, name)) == pytest.approx(wanted, abs=1e-10)
        assert float(reduced.loss.detach()) == pytest.approx(sum(expected.values()), abs=1e-10)


@pytest.mark.parametrize("normalize_audio", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@torch.no_grad()
def test_queries_and_maps_equal_the_loop(gated: bool, normalize_audio: bool) -> None:
    inputs, heads, text = make(), make_heads() if gated else None, random(4, 6, 3, seed=5)
    features = inputs["visual"], inputs["audio"], text
    options: dict[str, Any] = {"heads": heads, "normalize_audio": normalize_audio}
    presence, queries, keys = text_guided_queries(*features, **options)
    maps = text_guided_maps(*features, **options)
    for b in range(4):
        pixels, cells, both = prepared(inputs["visual"][b], inputs["audio"][b], heads, normalize_audio)
        for i, x in enumerate(pixels):
            expected = length_one(gate(heads, "key", x))
            torch.testing.assert_close(keys[b].flatten(1)[:, i], expected, atol=1e-10, rtol=0)
        for k, name in enumerate(text[b]):
            query = length_one(gate(heads, "query", picked(cells, name)))
            torch.testing.assert_close(queries[b, k], query, atol=1e-10, rtol=0)
            vectors = [m * x for m, x in zip(mask_of(pixels, name), pixels, strict=True)]
            products = [float(length_one(gate(heads, "key", x)) @ query) for x in vectors]
            expected = length_one(torch.tensor(products, dtype=torch.float64))
            torch.testing.assert_close(maps[b, k].flatten(), expected, atol=1e-10, rtol=0)
            logit = scale_of(heads, None) * float(both @ torch.cat([length_one(name)] * 2)) / 2**0.5
            assert float(presence[b, k]) == pytest.approx(logit, abs=1e-10)
    scaled = text_guided_queries(*features, **options, presence_scale=7.0).presence
    torch.testing.assert_close(scaled, 7 * presence / scale_of(heads, None))
    assert text_guided_maps(*features[:2], text[:, :0], **options).shape == (4, 0, 2, 3)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("rows", [1, 4 * 6 * 5])
def test_maps_of_many_names_equal_those_of_each(rows: int, gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One name at a time, or five of eight and then three."""
    inputs, heads, text = make(), make_heads() if gated else None, random(4, 8, 3, seed=5)
    text[1, 6] = 0
    leaves = inputs["visual"].requires_grad_(), inputs["audio"].requires_grad_(), text.requires_grad_()
    expected = torch.cat([text_guided_maps(*leaves[:2], name, heads=heads) for name in text.split(1, 1)], 1)
    monkeypatch.setattr("sslosses.losses.baselines.text_guidance._ROWS", rows)
    actual = text_guided_maps(*leaves, heads=heads)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
    assert gated or not actual[1, 6].any()
    weights = random(*actual.shape, seed=6)
    wanted, got = (torch.autograd.grad((weights * maps).sum(), leaves) for maps in (expected, actual))
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)


def test_maps_of_another_name_cost_one_layer_of_the_gate() -> None:
    """The first layer is the same for all names, since they only scale the pixels."""
    batch, pixels, channels, hidden, heads = 4, 6, 16, 32, TextGuidedHeads(16)

    def cost(names: int) -> int:
        features = torch.randn(batch, channels, 2, 3), torch.randn(batch, channels, 3, 2)
        with FlopCounterMode(display=False) as counter:
            text_guided_maps(*features, torch.randn(batch, names, channels), heads=heads)
        return counter.get_total_flops()

    layer, query = 2 * batch * pixels * channels * hidden, 2 * 2 * batch * channels * hidden
    products = 4 * 2 * batch * pixels * channels  # both masks, the pick and the map
    assert (cost(50) - cost(40)) / 10 == layer + query + products


# Numbers


def example() -> dict[str, Tensor]:
    frame, sound = torch.tensor([[1, 0], [0.6, 0.8]]), torch.tensor([[0.8, 0.6], [0, 1]])
    return {
        "visual": frame.double().T[None, :, :, None],
        "audio": sound.double().T[None, :, None],
        "class_text": torch.eye(2, dtype=torch.float64),
        "sources": torch.tensor([[0, 1]]),
    }


def close(actual: Tensor, expected: list[float]) -> None:
    """Equal to the digits of the example; inputs such as 0.6 are float32."""
    torch.testing.assert_close(actual.flatten(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_example() -> None:
    terms = text_guided_loss(**example(), **ONE)
    assert [float(x) for x in terms[1:4]] == pytest.approx([0.516017, 0.516017, 0.619659], abs=1e-6)
    terms = text_guided_loss(**example())
    assert float(terms.contrast) == pytest.approx(0.516025, abs=1e-6)
    assert float(terms.image_class) < 5e-7
    inputs = example()
    text = inputs["class_text"][None]
    queries = text_guided_queries(inputs["visual"], inputs["audio"], text).queries
    close(queries, [0.8, 0.6, 0.332820, 0.942990])
    swapped = text_guided_queries(inputs["audio"], inputs["visual"], text).queries
    close(swapped, [0.942990, 0.332820, 0.6, 0.8])
    close(text_guided_maps(inputs["visual"], inputs["audio"], text)[0, 0], [0.640184, 0.768221])


def test_presence_of_the_example() -> None:
    ones = torch.eye(2, dtype=torch.float64)[:, :, None, None]
    inputs = example() | {"visual": ones[:1], "audio": ones[1:]}
    assert float(text_guided_loss(**inputs, **ONE).presence) == pytest.approx(0.474077, abs=1e-6)
    logits = text_guided_queries(ones[:1], ones[1:], inputs["class_text"][None], presence_scale=1.0).presence
    close(logits, [0.5, 0.5])


# Properties


def test_invariances() -> None:
    inputs = make()
    expected = text_guided_loss(**inputs, source_mask=MASK, **SCALES)

    def check(mask: Tensor = MASK, **changed: Tensor) -> None:
        actual = text_guided_loss(**inputs | changed, source_mask=mask, **SCALES)
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)

    clips, slots, classes = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 0]), torch.tensor([3, 0, 4, 2, 1])
    check(MASK[clips], **{n: x if n == "class_text" else x[clips] for n, x in inputs.items()})
    check(MASK[:, slots], sources=inputs["sources"][:, slots])
    check(class_text=inputs["class_text"][classes], sources=classes.argsort()[inputs["sources"]])
    pixels = inputs["visual"].flatten(2)[..., torch.tensor([4, 2, 0, 5, 1, 3])].view(inputs["visual"].shape)
    check(visual=7 * pixels, class_text=1e-3 * inputs["class_text"])
    check(visual=inputs["visual"].repeat(1, 1, 1, 3), audio=inputs["audio"].repeat(1, 1, 2, 1))
    check(sources=torch.where(MASK, inputs["sources"], -1))
    turn = torch.linalg.qr(random(3, 3, seed=9)).Q
    turned = {n: torch.einsum("bchw,dc->bdhw", inputs[n], turn) for n in ("visual", "audio")}
    check(**turned, class_text=inputs["class_text"] @ turn.T)


def test_a_name_of_the_opposite_direction_picks_the_opposite() -> None:
    inputs, text = make(), random(4, 2, 3, seed=5)
    queries = text_guided_queries(inputs["visual"], inputs["audio"], text).queries
    opposite = text_guided_queries(inputs["visual"], inputs["audio"], -text).queries
    torch.testing.assert_close(opposite, -queries)


def test_one_source_has_no_contrast() -> None:
    assert float(text_guided_loss(**make(1, 1)).contrast) == pytest.approx(0, abs=1e-12)
    assert float(text_guided_loss(**make(1, 2)).contrast) > 1e-3


@pytest.mark.parametrize("sources", [0, 2])
def test_without_a_source_the_presence_stays(sources: int) -> None:
    inputs = make(sources=sources)
    inputs["visual"].requires_grad_()
    terms = text_guided_loss(**inputs, source_mask=torch.zeros(4, sources, dtype=torch.bool), presence_scale=1.0)
    assert [float(x) for x in terms[1:4]] == [0, 0, 0]
    assert float(terms.loss.detach()) == float(terms.presence) > 0
    terms.loss.backward()


def test_orthogonal_names_pick_nothing() -> None:
    """Names that no feature is similar to: zero vectors with a gradient, not NaN."""
    inputs = make(channels=3)
    inputs["visual"][:, 2], inputs["audio"][:, 2] = 0, 0
    inputs["class_text"][:, :2] = 0
    leaves = [inputs[name].requires_grad_() for name in ("visual", "audio")]
    terms = text_guided_loss(**inputs, **ONE)
    assert float(terms.image_class) == pytest.approx(math.log(5))
    assert float(terms.contrast) == pytest.approx(math.log(8))
    for gradient in torch.autograd.grad(terms.loss, leaves):
        assert gradient.isfinite().all()
    text = inputs["class_text"][inputs["sources"]]
    assert not text_guided_maps(inputs["visual"], inputs["audio"], text).any()


# Heads


def test_heads_change_nothing_at_the_start() -> None:
    inputs, heads = make(), TextGuidedHeads(3).double()
    for name in NAMES[:3]:
        expected = getattr(text_guided_loss(**inputs, **SCALES), name)
        torch.testing.assert_close(getattr(text_guided_loss(**inputs, **SCALES, heads=heads), name), expected)
    text_guided_loss(**inputs, heads=heads).loss.backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any() == ("mlp" not in name), name


def test_all_heads_are_trained_once_their_gates_are_open() -> None:
    heads = make_heads()
    text_guided_loss(**make(), **SCALES | {"presence_scale": None}, heads=heads).loss.backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad.any(), name


def test_sizes_of_the_heads() -> None:
    heads = TextGuidedHeads()
    shapes = {name: tuple(x.shape) for name, x in heads.named_parameters()}
    assert shapes["query.mlp.first.weight"] == (2048, 1024)
    assert shapes["query.mlp.second.weight"] == (1024, 2048)
    assert shapes["fusion.first.weight"] == shapes["fusion.second.weight"] == (2048, 2048)
    assert [name for name, shape in shapes.items() if not shape][-1] == "key.weight"
    assert sum(not shape for shape in shapes.values()) == 7
    assert TextGuidedHeads(8, mlp_ratio=3).key.mlp.first.weight.shape == (24, 8)
    assert "dim=8" in repr(TextGuidedHeads(8))


@pytest.mark.parametrize(("value", "scale", "trained"), [(-1.0, 1, False), (0.5, math.exp(0.5), True), (5, 100, False)])
def test_the_trained_scale_is_from_1_to_100(value: float, scale: float, trained: bool) -> None:
    for dtype in (torch.float64, torch.float32):
        heads = TextGuidedHeads(2).to(dtype)
        assert float(heads.presence_scale.detach()) == pytest.approx(100)
        heads.presence_scale.backward()
        assert heads.log_presence_scale.grad > 0  # it is not stuck at the start
        heads.log_presence_scale.grad = None
    torch.nn.init.constant_(heads.log_presence_scale, value)
    assert float(heads.presence_scale.detach()) == pytest.approx(scale)
    heads.presence_scale.backward()
    assert bool(heads.log_presence_scale.grad) == trained


def test_wrong_heads() -> None:
    inputs = make()
    text = inputs["class_text"][None].expand(4, -1, -1)
    calls = (
        lambda heads: text_guided_loss(**inputs, heads=heads),
        lambda heads: text_guided_maps(inputs["visual"], inputs["audio"], text, heads=heads),
        lambda heads: text_guided_queries(inputs["visual"], inputs["audio"], text, heads=heads),
    )
    for call in calls:
        with pytest.raises(TypeError, match="`heads` to be TextGuidedHeads or None, but got Linear"):
            call(torch.nn.Linear(3, 3))
        with pytest.raises(ValueError, match="`heads` to have dim = 3, the channels of `visual`, but got 4"):
            call(TextGuidedHeads(4))
        with pytest.raises(ValueError, match="`heads` to be on the device of `visual`"):
            call(TextGuidedHeads(3).to("meta"))
    for name in ("dim", "mlp_ratio"):
        with pytest.raises(ValueError, match=name):
            TextGuidedHeads(**{name: 0})
        with pytest.raises(TypeError, match=name):
            TextGuidedHeads(**{name: 1.5})


# Promises of all losses


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_empty_batch_is_a_zero_with_its_graph(reduction: str) -> None:
    inputs = make(0)
    inputs["visual"].requires_grad_()
    loss = text_guided_loss(**inputs, heads=make_heads(), reduction=reduction).loss
    assert float(loss.detach()) == 0
    loss.backward()
    assert inputs["visual"].grad is not None


FLOATING = ("visual", "audio", "class_text")


@pytest.mark.parametrize("gated", [False, True])
def test_gradcheck(gated: bool) -> None:
    inputs, heads = make(3), make_heads() if gated else None
    leaves = tuple(inputs[name].requires_grad_() for name in FLOATING)
    assert torch.autograd.gradcheck(
        lambda *values: (
            text_guided_loss(
                **inputs | dict(zip(FLOATING, values, strict=True)),
                source_mask=MASK[:3],
                heads=heads,
                **SCALES,
            ).loss
        ),
        leaves,
        fast_mode=True,
    )


@pytest.mark.parametrize("spoiled", ["visual", "audio"])
@pytest.mark.parametrize("filler", [torch.nan, torch.inf])
def test_a_spoiled_sample(spoiled: str, filler: float) -> None:
    inputs, keep, heads = make(), [0, 2, 3], make_heads()
    parameters = list(heads.parameters())
    others = {n: x if n == "class_text" else x[keep] for n, x in inputs.items()}
    expected = text_guided_loss(**others, heads=heads, reduction="none")
    wanted_gradients = torch.autograd.grad(expected.loss.sum(), parameters)
    inputs[spoiled][1].view(-1)[0] = filler
    leaves = [inputs[name].requires_grad_() for name in ("visual", "audio")]
    terms = text_guided_loss(**inputs, heads=heads, reduction="none")
    for actual, wanted in zip(terms, expected, strict=True):
        torch.testing.assert_close(actual[keep], wanted, atol=1e-12, rtol=0)
        assert actual[1].isnan()
    gradients = torch.autograd.grad(terms.loss[keep].sum(), [*leaves, *parameters])
    for gradient in gradients[:2]:
        assert gradient.isfinite().all()
        assert not gradient[1].any()
    torch.testing.assert_close(gradients[2:], wanted_gradients, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    inputs = {n: x.to(dtype) if x.is_floating_point() else x for n, x in make().items()}
    inputs["visual"].requires_grad_()
    loss = TextGuidedLoss(heads=make_heads().float())
    with torch.autocast("cpu", dtype=dtype):
        value = loss(**inputs)
    assert value.dtype == torch.float32
    wide = {n: x.detach().double() if x.is_floating_point() else x for n, x in inputs.items()}
    torch.testing.assert_close(
        value.double(), text_guided_loss(**wide, heads=loss.heads.double()).loss, atol=1e-3, rtol=1e-4
    )
    value.backward()
    assert inputs["visual"].grad.any()


def test_heads_of_another_dtype_than_the_features() -> None:
    inputs, heads = make(), make_heads()
    expected = text_guided_loss(**inputs, heads=heads, **SCALES)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.3)):
        actual = text_guided_loss(**inputs, heads=copy.deepcopy(heads).to(dtype), **SCALES)
        assert actual.loss.dtype == torch.float64
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def test_module_is_the_function() -> None:
    heads = make_heads()
    options: dict[str, Any] = {
        **SCALES,
        "heads": heads,
        "normalize_audio": True,
        "gather_distributed": True,
        "reduction": "sum",
    }
    loss = TextGuidedLoss(**options)
    expected = text_guided_loss(**make(), source_mask=MASK, **options).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(**make(), source_mask=MASK), expected)
        assert len(list(each.parameters())) == len(list(heads.parameters()))
    assert loss.heads is heads
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items() if name != "heads")
    assert repr(loss).count("TextGuidedHeads(") == 1
    assert not list(TextGuidedLoss().parameters())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"sclae": 1.0}, TypeError),
        ({"image_scale": 0.0}, ValueError),
        ({"audio_scale": "1"}, TypeError),
        ({"pair_scale": -1.0}, ValueError),
        ({"presence_scale": 0.0}, ValueError),
        ({"presence_scale": True}, TypeError),
        ({"normalize_audio": None}, TypeError),
        ({"heads": torch.nn.Identity()}, TypeError),
        ({"reduction": "avg"}, ValueError),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        TextGuidedLoss(**options)


def test_wrong_inputs() -> None:
    for wrong in (-1, 5):
        inputs = make()
        inputs["sources"][1, 1] = wrong
        with pytest.raises(ValueError, match=rf"`sources` to be classes in \[0, 5\), but got {wrong}"):
            text_guided_loss(**inputs)
        text_guided_loss(**inputs, source_mask=torch.tensor([True, False]).expand(4, 2))
    with pytest.raises(TypeError, match="`source_mask`"):
        text_guided_loss(**make(), source_mask=torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"`class_text` to have shape \(M, C\) with M >= 1, but got \(0, 3\)"):
        text_guided_loss(**make(classes=1) | {"class_text": torch.zeros(0, 3)})
    with pytest.raises(ValueError, match=r"`audio` .* T, F >= 1"):
        text_guided_loss(**make() | {"audio": torch.zeros(4, 3, 0, 2)})
    with pytest.raises(TypeError, match="`presence_scale`"):
        text_guided_queries(*[make()[n] for n in ("visual", "audio")], torch.zeros(4, 1, 3), presence_scale="1")


def test_compiles_to_one_graph_for_every_batch_size() -> None:
    torch.compiler.reset()
    loss = TextGuidedLoss(heads=make_heads(), **SCALES)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch in (4, 6):
        inputs = make(batch) | {"source_mask": torch.cat([MASK, MASK])[:batch]}
        for name, x in inputs.items():
            if name != "class_text":
                torch._dynamo.mark_dynamic(x, 0)
        inputs["visual"].requires_grad_()
        actual, expected = compiled(**inputs), loss(**inputs)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        (wanted,), (got,) = (torch.autograd.grad(x, inputs["visual"]) for x in (expected, actual))
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    assert counter.frame_count == 1


def test_memory_of_a_full_batch() -> None:
    """No tensor has the pixels of all pairs, nor the channels of all pixels and names."""
    batch, sources, classes, channels, pixels = 32, 2, 40, 64, 49
    inputs = {
        "visual": torch.randn(batch, channels, 7, 7, requires_grad=True),
        "audio": torch.randn(batch, channels, 7, 7),
        "class_text": torch.randn(classes, channels),
        "sources": torch.randint(classes, (batch, sources)),
    }
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved = max(saved, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        text_guided_loss(**inputs, heads=TextGuidedHeads(channels)).loss.backward()
    assert saved == batch * pixels * 2 * channels  # the hidden layers of a gate of tokens


def test_memory_of_the_maps_of_many_names() -> None:
    """Hidden layers of at most 4096 pixels, counted once per name, are in memory at the same time."""
    channels, names, largest = 16, 400, 0
    features = torch.randn(2, channels, 7, 7), torch.randn(2, channels, 7, 7), torch.randn(2, names, channels)

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **kwargs or {})
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    with torch.no_grad(), Largest():
        text_guided_maps(*features, heads=TextGuidedHeads(channels))
    assert names * 2 * 49 > 4096 > largest / (2 * channels) > 4096 - 2 * 49
