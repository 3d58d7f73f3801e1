"""What the losses of matching and mismatched pairs have in common: negatives, batches, non-finite samples, modules."""

from __future__ import annotations

import copy
import datetime
import functools
import pickle
import tempfile
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.parallel import DistributedDataParallel

from sslosses import (
    AttentionPairLoss,
    ClusterCorrespondenceLoss,
    MultipleInstanceCorrespondenceLoss,
    attention_pair_loss,
    cluster_correspondence_loss,
    multiple_instance_correspondence_loss,
)
from sslosses.distributed import NotGatheredWarning

LIMIT = datetime.timedelta(minutes=2)
#: Name of a loss: its function, its module, and the shapes of its two arguments without B.
LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "correspondence": (
        multiple_instance_correspondence_loss,
        MultipleInstanceCorrespondenceLoss,
        (5, 2, 3),
        (5,),
    ),
    "attention": (attention_pair_loss, AttentionPairLoss, (5,), (5,)),
    "clusters": (cluster_correspondence_loss, ClusterCorrespondenceLoss, (5, 2, 3), (5, 2, 2)),
}
#: Options besides the defaults that every loss is tried with.
OTHERS: dict[str, dict[str, Any]] = {
    "correspondence": {"scale": 2.0, "bias": -0.5, "normalize": True, "negative_bins": 2},
    "attention": {"normalize": False, "form": "margin", "margin": 3.0},
    "clusters": {"visual_clusters": 3, "audio_clusters": 2, "sharpness": 2.0, "normalize": True, "margin": 1.4},
}
every_loss = pytest.mark.parametrize("name", LOSSES)
every_swap = pytest.mark.parametrize("swap", ["sound", "frame"])


def make(name: str, batch: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(batch, *s, generator=generator, dtype=torch.float64) for s in LOSSES[name][2:])
    return first, second


def call(name: str, *inputs: Tensor, **options: Any) -> Any:
    return LOSSES[name][0](*inputs, **options)


@every_loss
@every_swap
def test_an_index_is_shift_and_the_mean_of_all_indices_is_all(name: str, swap: str) -> None:
    inputs, base = make(name), torch.arange(4)
    options = {"swap": swap, "reduction": "none"}
    drawn = [call(name, *inputs, negatives=(base + step) % 4, **options).loss for step in (1, 2, 3)]
    torch.testing.assert_close(call(name, *inputs, negatives="shift", **options).loss, drawn[0])
    torch.testing.assert_close(call(name, *inputs, **options).loss, torch.stack(drawn).mean(0))
    small = call(name, *inputs, negatives=((base + 1) % 4).to(torch.uint8), **options).loss
    torch.testing.assert_close(small, drawn[0])


@every_loss
def test_reported_terms_have_no_gradient(name: str) -> None:
    inputs = [x.requires_grad_() for x in make(name)]
    for reduction in ("mean", "none"):
        terms = call(name, *inputs, reduction=reduction)
        assert [term.requires_grad for term in terms] == [True] + [False] * (len(terms) - 1)


@every_loss
@every_swap
def test_the_order_of_the_batch_does_not_matter(name: str, swap: str) -> None:
    inputs, order = make(name), torch.tensor([2, 0, 3, 1])
    options = OTHERS[name] | {"swap": swap, "reduction": "none"}
    expected = call(name, *inputs, **options).loss
    torch.testing.assert_close(call(name, *(x[order] for x in inputs), **options).loss, expected[order])


@every_loss
@pytest.mark.parametrize("negatives", ["all", "shift", torch.tensor([0])], ids=["all", "shift", "drawn"])
def test_one_sample_has_no_negative(name: str, negatives: str | Tensor) -> None:
    inputs = tuple(x.requires_grad_() for x in make(name, 1))
    terms = call(name, *inputs, negatives=negatives)
    gradients = torch.autograd.grad(terms.loss, inputs)
    if name == "attention":
        assert terms.loss == 0
        assert not any(gradient.any() for gradient in gradients)
        margin = call(name, *inputs, negatives=negatives, form="margin")
        torch.testing.assert_close(margin.loss, terms.positive_distance**2 / 4)
    else:
        assert terms.negative == 0
        torch.testing.assert_close(terms.loss, terms.positive / 2)
        assert all(gradient.any() for gradient in gradients)


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("negatives", ["all", "shift", torch.arange(0)], ids=["all", "shift", "drawn"])
def test_an_empty_batch_is_a_zero_with_its_graph(name: str, reduction: str, negatives: str | Tensor) -> None:
    inputs = tuple(x.requires_grad_() for x in make(name, 0))
    loss = call(name, *inputs, negatives=negatives, reduction=reduction).loss
    assert loss.shape == ((0,) if reduction == "none" else ())
    assert loss.sum() == 0
    loss.sum().backward()
    assert all(x.grad is not None for x in inputs)


@every_loss
@every_swap
@pytest.mark.parametrize("negatives", ["all", "shift", "drawn"])
@pytest.mark.parametrize("filler", [torch.nan, torch.inf])
@pytest.mark.parametrize("spoiled", [0, 1])
def test_a_sample_with_nan_or_inf_is_as_if_it_were_not_there(
    name: str, negatives: str, swap: str, filler: float, spoiled: int
) -> None:
    """Sample 2 is spoiled; the index of sample 3 is 2, so it has no negative."""
    rest = [0, 1, 3]
    drawn: dict[str, tuple[Any, Any]] = {
        "all": ("all", "all"),
        "shift": ("shift", "shift"),
        "drawn": (torch.tensor([3, 0, 1, 2]), torch.tensor([2, 0, 2])),
    }
    whole, without = drawn[negatives]
    inputs = make(name)
    kept = [x[rest].requires_grad_() for x in inputs]
    inputs[spoiled][2].view(-1)[1] = filler
    leaves = [x.requires_grad_() for x in inputs]
    options = {"swap": swap, "reduction": "none"}
    terms, expected = call(name, *leaves, negatives=whole, **options), call(name, *kept, negatives=without, **options)
    for term, wanted in zip(terms, expected, strict=True):
        assert term[2].isnan().all()
        torch.testing.assert_close(term[rest], wanted)
    gradients = torch.autograd.grad(terms.loss[rest].sum(), leaves)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected.loss.sum(), kept), strict=True):
        torch.testing.assert_close(gradient[rest], wanted)
        assert not gradient[2].any()


@every_loss
def test_a_batch_of_spoiled_samples(name: str) -> None:
    inputs = [torch.full_like(x, torch.nan) for x in make(name)]
    for negatives in ("all", "shift"):
        assert call(name, *inputs, negatives=negatives, reduction="none").loss.isnan().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision(name: str, dtype: torch.dtype) -> None:
    first, second = (x.to(dtype).requires_grad_() for x in make(name))
    with torch.autocast("cpu", dtype=dtype):
        terms = call(name, first, second)
    assert {term.dtype for term in terms} == {torch.float32}
    expected = call(name, first.double(), second.double())
    torch.testing.assert_close(terms.loss, expected.loss.float(), atol=1e-4, rtol=1e-4)
    terms.loss.backward()
    assert first.grad is not None
    assert first.grad.isfinite().all()
    assert first.grad.any()


@every_loss
@pytest.mark.parametrize("options", [False, True], ids=["defaults", "others"])
def test_zero_features_are_finite(name: str, options: bool) -> None:
    inputs = [torch.zeros(3, *shape, requires_grad=True) for shape in LOSSES[name][2:]]
    loss = call(name, *inputs, **(OTHERS[name] if options else {})).loss
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, inputs))


@every_loss
@pytest.mark.parametrize("negatives", ["all", "shift", "drawn"])
def test_compiles_to_one_graph_for_every_batch_size(name: str, negatives: str) -> None:
    torch.compiler.reset()
    loss = LOSSES[name][1](**OTHERS[name], **({"negatives": negatives} if negatives != "drawn" else {}))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for batch in (4, 3):
        inputs = [*make(name, batch)]
        if negatives == "drawn":
            inputs.append(torch.arange(batch - 1, -1, -1))
        for x in inputs:
            torch._dynamo.mark_dynamic(x, 0)
        torch.testing.assert_close(compiled(*inputs), loss(*inputs))
    assert counter.frame_count == 1


@every_loss
def test_module_is_the_function(name: str) -> None:
    function, module, *_ = LOSSES[name]
    inputs = make(name)
    assert torch.equal(module()(*inputs).detach(), function(*inputs).loss)
    options = OTHERS[name] | {"negatives": "shift", "swap": "frame", "gather_distributed": True, "reduction": "sum"}
    if name == "attention":
        options["swap"], options["detach_target"] = "sound", True
    loss = module(**options)
    expected = function(*inputs, **options).loss
    drawn = torch.tensor([2, 3, 1, 0])
    with_index = function(*inputs, **options | {"negatives": drawn}).loss
    for each in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(each(*inputs).detach(), expected)
        assert torch.equal(each(*inputs, drawn).detach(), with_index)
    assert all(f"{name}={value!r}" in repr(loss) for name, value in options.items())


WRONG: list[tuple[str, dict[str, Any], type[Exception]]] = [
    *((name, {"negatives": "none"}, ValueError) for name in LOSSES),
    *((name, {"negatives": torch.arange(4)}, ValueError) for name in LOSSES),
    *((name, {"swap": "both"}, ValueError) for name in LOSSES),
    *((name, {"reduction": "avg"}, ValueError) for name in LOSSES),
    *((name, {"normalize": 1}, TypeError) for name in LOSSES),
    *((name, {"gather_distributed": 1}, TypeError) for name in LOSSES),
    ("correspondence", {"negative_bins": 0}, ValueError),
    ("correspondence", {"scale": -1.0}, ValueError),
    ("correspondence", {"bias": "0"}, TypeError),
    ("attention", {"form": "hinge"}, ValueError),
    ("attention", {"margin": 0.0}, ValueError),
    ("attention", {"detach_target": None}, TypeError),
    ("clusters", {"visual_clusters": 0}, ValueError),
    ("clusters", {"audio_clusters": 1.0}, TypeError),
    ("clusters", {"iterations": 0}, ValueError),
    ("clusters", {"sharpness": 0.0}, ValueError),
    ("clusters", {"margin": 0.0}, ValueError),
    ("clusters", {"sharpnes": 1.0}, TypeError),
]


@pytest.mark.parametrize(("name", "options", "error"), WRONG)
def test_wrong_options_fail_at_construction(name: str, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        LOSSES[name][1](**options)


@every_loss
@pytest.mark.parametrize(
    ("negatives", "error", "text"),
    [
        (torch.arange(3), ValueError, r"with B = 4 as in `\w+`, but got \(3,\)"),
        (torch.arange(4)[:, None], ValueError, "shape"),
        (torch.arange(1, 5), ValueError, "indices of the 4 samples, but got values from 1 to 4"),
        (torch.arange(-1, 3), ValueError, "from -1 to 2"),
        (torch.arange(4.0), TypeError, "integer dtype"),
        (torch.ones(4, dtype=torch.bool), TypeError, "integer dtype"),
        (torch.arange(4, device="meta"), ValueError, "device"),
        (None, ValueError, "'all', 'shift'"),
        ([1, 2, 3, 0], ValueError, "'all', 'shift'"),
    ],
)
def test_wrong_indices_are_named(name: str, negatives: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"Expected `negatives` to .*{text}"):
        call(name, *make(name), negatives=negatives)


# Two processes.

DRAWN = torch.tensor([1, 0, 1, 1, 0, 3])
SETTINGS = list(product(LOSSES, ("all", "shift", "drawn"), ("sound", "frame"), ("mean", "sum", "none")))


class Encoders(nn.Module):
    """One layer per argument and the loss, equal in every process."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 5, dtype=torch.float64), nn.Linear(5, 5, dtype=torch.float64)
        self.loss = LOSSES[name][1](**options)

    def forward(self, first: Tensor, second: Tensor, *negatives: Tensor) -> Tensor:
        # NaN goes around the layers, whose own gradient it would spoil.
        bad = first.isnan().flatten(1).any(1)
        first, second = (
            layer(x.nan_to_num().movedim(1, -1)).movedim(-1, 1)
            for layer, x in ((self.first, first), (self.second, second))
        )
        first = first.masked_fill(bad.view(-1, *[1] * (first.ndim - 1)), torch.nan)
        return self.loss(first, second, *negatives)


def step(setting: tuple[str, str, str, str], rows: slice | None, split: int) -> list[Tensor]:
    """The loss and the gradient of all parameters, for a part of the batch or, in one process, for all of it.

    With the reduction "none", sample 2 has NaN and the loss is the sum of the others.
    """
    name, negatives, swap, reduction = setting
    options = OTHERS[name] | {"swap": swap, "reduction": reduction, "gather_distributed": rows is not None}
    drawn = DRAWN % torch.tensor([split] * split + [6 - split] * (6 - split))  # in the batch of each process
    if negatives != "drawn":
        options["negatives"] = negatives
    model: nn.Module = Encoders(name, **options)
    if rows is None:
        rows, drawn = slice(None), drawn + torch.tensor([0] * split + [split] * (6 - split))
    else:
        model = DistributedDataParallel(model)
    index = [drawn[rows]] if negatives == "drawn" else []
    inputs = make(name, 6)
    if reduction == "none":
        inputs[0][2].view(-1)[0] = torch.nan
    loss = model(*(x[rows] for x in inputs), *index).nansum()
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


SPLITS = (3, 2)  # number of samples of the first process: even, uneven


def work(rank: int, folder: str, split: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{split}", rank=rank, world_size=2, timeout=LIMIT)
    rows = slice(0, split) if rank == 0 else slice(split, 6)
    results: Any = [step(setting, rows, split) for setting in SETTINGS]
    for name, (function, module, *_) in LOSSES.items():
        for loss in (module(), function, module(gather_distributed=False)):
            with warnings.catch_warnings(record=True) as records:
                warnings.simplefilter("always")
                loss(*make(name))
            results.append([str(r.message) for r in records if issubclass(r.category, NotGatheredWarning)])
    torch.save(results, Path(folder) / f"{split}-{rank}.pt")
    dist.destroy_process_group()


def work_on_all(rank: int, folder: str) -> None:
    for split in SPLITS:
        work(rank, folder, split)


@functools.cache
def all_runs() -> dict[int, list[list[Any]]]:
    # In the same two processes, because their start takes longer than the work.
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work_on_all, args=(folder,), nprocs=2)
        return {
            split: [torch.load(Path(folder) / f"{split}-{rank}.pt", weights_only=True) for rank in range(2)]
            for split in SPLITS
        }


def run(split: int) -> list[list[Any]]:
    return all_runs()[split]


@pytest.mark.parametrize("split", [3, 2])
@pytest.mark.parametrize("setting", SETTINGS, ids="-".join)
def test_two_processes_equal_one(setting: tuple[str, str, str, str], split: int) -> None:
    """The negatives of other processes count, except for an index, which is in the batch of its process."""
    expected = step(setting, None, split)
    assert all(gradient.any() for gradient in expected[1:])
    results = [result[SETTINGS.index(setting)] for result in run(split)]
    if setting[-1] == "none":  # each process has the sum of its own samples, and the mean of the gradients
        total = results[0][0] + results[1][0]
        results = [[total, *(2 * gradient for gradient in result[1:])] for result in results]
    for result in results:
        for value, wanted in zip(result, expected, strict=True):
            torch.testing.assert_close(value, wanted, atol=1e-6 if value.dtype == torch.float32 else 1e-10, rtol=0)


def test_warns_unless_gathering_is_chosen() -> None:
    for results in run(3):
        for name, messages in zip(LOSSES, zip(*[iter(results[len(SETTINGS) :])] * 3, strict=True), strict=True):
            from_module, from_function, chosen = messages
            assert not chosen, name
            assert len(from_module) == len(from_function) == 1, name
            assert from_module[0].startswith(f"{LOSSES[name][1].__name__} is computed on the samples of this process")
            assert from_function[0].startswith(f"{LOSSES[name][0].__name__} is computed")
