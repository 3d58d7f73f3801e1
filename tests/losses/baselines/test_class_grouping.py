"""AVGN's class grouping: equal to loops over heads, tokens and features."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import ClassGrouping
from sslosses.losses.baselines import class_grouping

CLASSES, DIM, HEADS = 4, 8, 2


def make(**options: Any) -> ClassGrouping:
    torch.manual_seed(0)
    grouping = ClassGrouping(CLASSES, **{"dim": DIM, "depth": 2, "heads": HEADS} | options).double()
    for parameter in grouping.parameters():  # biases and norms that are not trivial, and larger weights
        nn.init.normal_(parameter, mean=0.1, std=0.4)
    return grouping.eval()


def inputs(batch: int = 3, length: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = (batch, length, DIM), (CLASSES, DIM)
    features, tokens = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return features, tokens


def norm(layer: nn.Module, x: Tensor) -> Tensor:
    """Layer normalization of one vector."""
    centered = x - x.mean()
    return centered / (centered.square().mean() + 1e-5).sqrt() * layer.weight + layer.bias


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


def mlp(layers: nn.Module, x: Tensor) -> Tensor:
    hidden = linear(layers[0], x)
    return linear(layers[2], hidden * (1 + torch.erf(hidden / 2**0.5)) / 2)


def attend(layer: nn.MultiheadAttention, queries: list[Tensor], keys: list[Tensor]) -> list[Tensor]:
    (wq, wk, wv), (bq, bk, bv) = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    width = DIM // HEADS
    results = []
    for query in queries:
        parts = []
        for head in range(HEADS):
            rows = slice(head * width, (head + 1) * width)
            q = (wq @ query + bq)[rows]
            scores = torch.stack([q @ (wk @ key + bk)[rows] / math.sqrt(width) for key in keys]).softmax(0)
            parts.append(sum(s * (wv @ key + bv)[rows] for s, key in zip(scores, keys, strict=True)))
        results.append(linear(layer.out_proj, torch.cat(parts)))
    return results


@torch.no_grad()
def reference(model: ClassGrouping, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Groups (M, C) and assignment (M, L) of one sample."""
    rows = [*features, *tokens]
    for block in model.blocks:
        normed = [norm(block.attention_norm, x) for x in rows]
        rows = [x + y for x, y in zip(rows, attend(block.attention, normed, normed), strict=True)]
        rows = [x + mlp(block.mlp, norm(block.mlp_norm, x)) for x in rows]
    features = [norm(model.feature_norm, x) for x in rows[: len(features)]]
    tokens = torch.stack([norm(model.token_norm, x) for x in rows[len(features) :]])
    mixed = torch.stack([mlp(model.token_mixer, channel) for channel in tokens.T], 1)
    groups = [norm(model.mixed_norm, x) for x in mixed]
    groups = [g + x for g, x in zip(groups, attend(model.attention, groups, features), strict=True)]
    groups = [norm(model.attended_norm, g + mlp(model.attended_mlp[1], norm(model.attended_mlp[0], g))) for g in groups]
    scores = [[float(linear(model.query, g) @ linear(model.key, f)) / math.sqrt(DIM) for f in features] for g in groups]
    assignment = torch.tensor(scores, dtype=torch.float64).softmax(0)
    results = []
    for g, shares in zip(groups, assignment, strict=True):
        weights = shares / (sum(shares) + 1)
        gathered = sum(w * linear(model.value, f) for w, f in zip(weights, features, strict=True))
        g = g + linear(model.output, gathered)
        results.append(g + mlp(model.group_mlp[1], norm(model.group_mlp[0], g)))
    return torch.stack(results), assignment


@pytest.mark.parametrize("length", [1, 5])
def test_equals_the_loop(length: int) -> None:
    model, (features, tokens) = make(), inputs(length=length)
    actual = model.group(features, tokens)
    for b in range(3):
        groups, assignment = reference(model, features[b], tokens)
        torch.testing.assert_close(actual.groups[b], groups, atol=1e-10, rtol=0)
        torch.testing.assert_close(actual.assignment[b], assignment, atol=1e-10, rtol=0)
    torch.testing.assert_close(actual.assignment.sum(1), torch.ones(3, length, dtype=torch.float64))
    assert torch.equal(model(features, tokens), actual.groups)


def test_weights_of_the_example() -> None:
    scores = torch.tensor([[1, 0, 2], [0, 0, 1]], dtype=torch.float64)
    values = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.float64)
    weights = class_grouping._class_weights(make()._assign(scores[None]))
    expected = torch.tensor([[[0.493605, 0.415601], [0.263942, 0.377324]]], dtype=torch.float64)
    torch.testing.assert_close(weights @ values, expected, atol=1e-6, rtol=0)


def test_the_order_of_features_and_samples_does_not_matter() -> None:
    model, (features, tokens) = make(), inputs()
    order, samples = torch.tensor([3, 0, 4, 2, 1]), torch.tensor([2, 0, 1])
    expected = model.group(features, tokens)
    actual = model.group(features[samples][:, order], tokens)
    torch.testing.assert_close(actual.groups, expected.groups[samples], atol=1e-12, rtol=0)
    torch.testing.assert_close(actual.assignment, expected.assignment[samples][..., order], atol=1e-12, rtol=0)


def test_a_hard_assignment_has_the_gradient_of_the_soft_one() -> None:
    soft, hard = make(), make(assignment="hard")
    scores = torch.randn(2, CLASSES, 5, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, CLASSES, 5, dtype=torch.float64)
    chosen = hard._assign(scores)
    torch.testing.assert_close(chosen.detach(), torch.eye(CLASSES).double()[scores.argmax(1)].mT)
    (got,) = torch.autograd.grad((chosen * values).sum(), scores)
    (wanted,) = torch.autograd.grad((soft._assign(scores) * values).sum(), scores)
    torch.testing.assert_close(got, wanted)


def test_noise_of_a_hard_assignment_in_training() -> None:
    model = make(assignment="hard").train()
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0]).reshape(1, 4, 1).expand(1, 4, 20_000)
    torch.manual_seed(0)
    chosen = model._assign(scores)
    assert set(chosen.unique().tolist()) == {0, 1}
    torch.testing.assert_close(chosen.mean(2), scores[..., 0].softmax(1), atol=0.02, rtol=0)
    soft = make().train()
    assert torch.equal(soft._assign(scores), scores.softmax(1))


def test_branches_are_left_out_in_training_only() -> None:
    block = class_grouping._Block(DIM, HEADS, 4, 0.25)
    branch = torch.ones(20_000, 2, DIM)
    assert torch.equal(block.eval()._dropped(branch), branch)
    torch.manual_seed(0)
    dropped = block.train()._dropped(branch)
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))  # a sample as a whole
    assert float((dropped[:, 0, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    model, (features, tokens) = make(drop_path=0.5).train(), inputs()
    assert not torch.equal(model(features, tokens), model(features, tokens))
    model = make(drop_path=0.0).train()
    assert torch.equal(model(features, tokens), model(features, tokens))


def test_initialization() -> None:
    torch.manual_seed(0)
    model = ClassGrouping(50, dim=64)
    for name, parameter in model.named_parameters():
        if "norm" in name or ("mlp.0." in name and parameter.ndim == 1 and not name.startswith("blocks")):
            continue
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 2:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.15), name
    assert len(model.blocks) == 3
    assert model.blocks[0].attention.num_heads == 8
    assert model.blocks[0].mlp[0].weight.shape == (256, 64)
    assert model.token_mixer[0].weight.shape == (32, 50)
    # Equal tokens become different groups, as the mixer has weights per token.
    groups = model.eval()(torch.randn(2, 7, 64), torch.zeros(50, 64)).detach()
    assert float((groups[:, 0] - groups[:, 1]).abs().max()) > 1e-3


def test_everything_trains() -> None:
    model, (features, tokens) = make().train(), inputs()
    features.requires_grad_()
    tokens.requires_grad_()
    model(features, tokens).square().sum().backward()
    for name, tensor in [*model.named_parameters(), ("features", features), ("tokens", tokens)]:
        assert tensor.grad is not None, name
        assert tensor.grad.any() or name == "key.bias", name  # it adds the same to the scores of all classes


def test_gradcheck() -> None:
    model, (features, tokens) = make(), inputs(2, 2)
    leaves = features.requires_grad_(), tokens.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, t: tuple(model.group(f, t)), leaves, fast_mode=True)


def test_copies_have_the_same_state() -> None:
    model, arguments = make(), inputs()
    expected = model(*arguments)
    other = ClassGrouping(CLASSES, dim=DIM, depth=2, heads=HEADS).double().eval()
    other.load_state_dict(model.state_dict())
    for each in (copy.deepcopy(model), other):
        assert torch.equal(each(*arguments), expected)


def test_autocast_and_an_empty_batch() -> None:
    model, (features, tokens) = make().float(), inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        groups = model(features.float(), tokens.float())
    torch.testing.assert_close(groups.double(), make()(features, tokens), atol=0.2, rtol=0.05)
    empty = model.group(features[:0].float(), tokens.float())
    assert empty.groups.shape == (0, CLASSES, DIM)
    assert empty.assignment.shape == (0, CLASSES, 5)


def test_compiles_to_one_graph_for_every_batch_size() -> None:
    torch.compiler.reset()
    model = make(depth=1, drop_path=0.0).train()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for batch in (5, 7):
        features, tokens = inputs(batch, 6)
        torch._dynamo.mark_dynamic(features, 0)
        torch.testing.assert_close(compiled(features, tokens), model(features, tokens), atol=1e-10, rtol=0)
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "`num_classes`"),
        ({"dim": 9}, ValueError, r"`dim` to be a multiple of `heads` \(2\), but got 9"),
        ({"depth": 0}, ValueError, "`depth`"),
        ({"heads": 1.0}, TypeError, "`heads`"),
        ({"mlp_ratio": 0}, ValueError, "`mlp_ratio`"),
        ({"drop_path": 1.0}, ValueError, "`drop_path` to be below 1, but got 1.0"),
        ({"drop_path": -0.1}, ValueError, "`drop_path`"),
        ({"assignment": "gumbel"}, ValueError, "`assignment`"),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClassGrouping(**{"num_classes": 3, "dim": 8, "heads": 2} | options)


@pytest.mark.parametrize(
    ("features", "tokens", "error", "message"),
    [
        ((2, 5, 7), (CLASSES, 7), ValueError, r"`features` .* C = 8, but got \(2, 5, 7\)"),
        ((2, 0, 8), (CLASSES, 8), ValueError, r"`features` .* L >= 1 .*, but got \(2, 0, 8\)"),
        ((2, 5, 8), (3, 8), ValueError, r"`tokens` .* M = 4, but got \(3, 8\)"),
        ((2, 5, 8), (CLASSES, 7), ValueError, "`tokens`"),
        ((2, 8), (CLASSES, 8), ValueError, "`features`"),
    ],
)
def test_wrong_shapes(features: tuple[int, ...], tokens: tuple[int, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()(torch.zeros(features), torch.zeros(tokens))
    with pytest.raises(TypeError, match="`features`"):
        make()(torch.zeros(2, 5, 8, dtype=torch.int64), torch.zeros(CLASSES, 8))
