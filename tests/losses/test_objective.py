"""The objective: its weighted sum, skipped terms and options."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslosses import ObjectAwareObjective, ObjectRegionSeparationLoss, OCALoss, ORILoss, TriMapContrastiveLoss


class Never(nn.Module):
    """A loss that must not be computed."""

    reduction = "mean"

    def forward(self, *_: Tensor) -> Tensor:
        raise AssertionError("computed")


class Foreign(OCALoss):
    """A loss that the objective does not know."""


def make(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 6, 3, 3), (3, 6), (3, 2, 6), (3, 6))
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    return *(torch.randn(*s, generator=generator).to(dtype) for s in shapes), mask


def test_is_the_weighted_sum() -> None:
    inputs = make()
    visual, audio, foreground, background, mask = inputs
    parts = TriMapContrastiveLoss(), OCALoss(temperature=0.2), ORILoss(epsilon=0.3)
    objective = ObjectAwareObjective(
        trimap_weight=0.5, oca_weight=2.0, ori_weight=0.25, trimap=parts[0], oca=parts[1], ori=parts[2]
    )
    terms = objective.terms(*inputs)
    expected = parts[0](visual, audio), parts[1](*inputs), parts[2](visual, foreground, background, mask)
    assert terms._fields == ("total", "trimap", "oca", "ori")
    assert all(torch.equal(got, wanted) for got, wanted in zip(terms[1:], expected, strict=True))
    torch.testing.assert_close(terms.total, 0.5 * expected[0] + 2 * expected[1] + 0.25 * expected[2])
    for each in (objective, copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        assert torch.equal(each(*inputs), terms.total)


@pytest.mark.parametrize("spoiled", [None, 0, 1, 2, 3])
@pytest.mark.parametrize(
    "ori",
    [
        ORILoss(epsilon=0.3, reduction="none"),
        ORILoss(formulation="distribution", kind="divergence", epsilon=0.3, reduction="none"),
        ObjectRegionSeparationLoss(reduction="none"),
    ],
)
def test_one_pass_over_the_pixels_changes_nothing(ori: Any, spoiled: int | None) -> None:
    """A loss that is watched by a hook is called by itself."""
    inputs = [x.clone() for x in make(torch.float64)]
    if spoiled is not None:
        inputs[spoiled][1] = torch.nan
    leaves = [x.requires_grad_() for x in inputs[:4]]
    described = torch.tensor([True, False, True])
    calls: list[Any] = []
    watched = copy.deepcopy(ori)
    watched.register_forward_hook(lambda *_: calls.append(None))
    once, twice = (
        ObjectAwareObjective(oca=OCALoss(reduction="none"), ori=x).terms(*inputs, described) for x in (ori, watched)
    )
    assert len(calls) == 1
    rest = torch.tensor([0, 2])
    assert once.oca[rest].isfinite().all()
    for got, wanted in zip(once, twice, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0, equal_nan=True)
    gradients = (torch.autograd.grad(x.total[rest].sum(), leaves) for x in (once, twice))
    for got, wanted in zip(*gradients, strict=True):
        assert got[rest].isfinite().all()
        torch.testing.assert_close(got[rest], wanted[rest], atol=1e-10, rtol=0)


def test_the_default_objective_reads_the_pixels_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslosses.losses._pairs.similarity_map", Never())
    monkeypatch.setattr("sslosses.losses.objective._zero_of", Never())  # its gradient would be another array of zeros
    inputs = make()
    for x in inputs[:4]:
        x.requires_grad_()
    objective = ObjectAwareObjective(ori=ORILoss(epsilon=0.3))
    assert all(x.any() for x in torch.autograd.grad(objective(*inputs), inputs[:4]))
    # The graph shows what a loss from elsewhere has used.
    used = torch.autograd.grad(ObjectAwareObjective(oca=Foreign(), ori_weight=0)(*inputs), inputs[:4])
    assert all(x.any() for x in used)
    objective.ori.forward = objective.ori.forward
    with pytest.raises(AssertionError, match="computed"):
        objective(*inputs)


def test_second_derivatives_of_one_pass() -> None:
    ori = ORILoss(solver="dense", gradient="unrolled", epsilon=0.5, max_iter=3, tol=1e-9)
    ori._warned = True
    objective = ObjectAwareObjective(oca=OCALoss(omega=0.3), ori=ori)
    inputs = [x[:2, ..., :2, :2] if x.ndim == 4 else x[:2] for x in make(torch.float64)[:4]]
    assert torch.autograd.gradgradcheck(objective, [x.clone().requires_grad_() for x in inputs], fast_mode=True)


def test_defaults_are_the_papers() -> None:
    objective = ObjectAwareObjective(ori=ORILoss(epsilon=0.3))
    terms = objective.terms(*make())
    torch.testing.assert_close(terms.total, terms.oca + 0.1 * terms.ori)
    assert "trimap_weight=0.0, oca_weight=1.0, ori_weight=0.1" in repr(objective)
    assert isinstance(ObjectAwareObjective().ori, ORILoss)


@pytest.mark.parametrize("name", ["trimap", "oca", "ori"])
def test_a_weight_of_zero_skips_the_computation(name: str) -> None:
    weights = {"trimap_weight": 1.0, "oca_weight": 1.0, "ori_weight": 1.0} | {f"{name}_weight": 0.0}
    objective = ObjectAwareObjective(**weights, **{"ori": ORILoss(epsilon=0.3)} | {name: Never()})
    terms = objective.terms(*make())
    assert float(getattr(terms, name)) == 0
    assert torch.isfinite(terms.total)
    setattr(objective, f"{name}_weight", 1.0)
    with pytest.raises(AssertionError, match="computed"):
        objective(*make())


WEIGHTS = [w for w in itertools.product((0.0, 1.0), repeat=3) if any(w)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_input_stays_in_the_graph(weights: tuple[float, float, float]) -> None:
    """An encoder without a gradient would stop DistributedDataParallel. Inputs that no loss needs may hold anything."""
    names = "trimap_weight", "oca_weight", "ori_weight"
    objective = ObjectAwareObjective(**dict(zip(names, weights, strict=True)), ori=ORILoss(epsilon=0.3))
    *inputs, mask = (t.requires_grad_() if t.is_floating_point() else t for t in make())
    gradients = torch.autograd.grad(objective(*inputs, mask), inputs)
    assert all(g.isfinite().all() for g in gradients)
    assert gradients[0].any()
    assert gradients[1].any() == (weights[:2] != (0.0, 0.0))
    if weights == (0.0, 0.0, 1.0):
        visual, audio, *captions = inputs
        for unused in (audio * torch.nan, audio.double(), audio[0, 0]):
            total = objective(visual, unused, *captions, mask)
            assert torch.equal(total, objective(*inputs, mask))
            assert total.dtype == torch.float32


def test_parameters_of_a_skipped_loss_stay_in_the_graph() -> None:
    class Scaled(OCALoss):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.scale = nn.Parameter(torch.ones(()))

    objective = ObjectAwareObjective(oca_weight=0.0, oca=Scaled(), ori=ORILoss(epsilon=0.3))
    objective(*(t.requires_grad_() if t.is_floating_point() else t for t in make())).backward()
    assert objective.oca.scale.grad == 0


def test_samples_without_a_background_caption() -> None:
    visual, audio, foreground, background, mask = make()
    described = torch.tensor([True, False, True])
    terms = ObjectAwareObjective(ori=ORILoss(epsilon=0.3)).terms(visual, audio, foreground, background, mask, described)
    assert torch.equal(terms.oca, OCALoss()(visual, audio, foreground, background, mask, described))
    assert torch.equal(terms.ori, ORILoss(epsilon=0.3)(visual, foreground, background, mask, described))
    assert terms.oca != OCALoss()(visual, audio, foreground, background, mask)
    total = ObjectAwareObjective(ori=ORILoss(epsilon=0.3))(visual, audio, foreground, background, mask, described)
    assert torch.equal(total, terms.total)


def test_a_loss_that_does_not_know_the_background_mask_is_named() -> None:
    class Own(nn.Module):
        def forward(self, visual: Tensor, foreground: Tensor, background: Tensor, source_mask: Tensor) -> Tensor:
            return visual.sum() + foreground.sum() + background.sum() + source_mask.sum()

    objective = ObjectAwareObjective(ori=Own())
    assert objective(*make()).isfinite()
    with pytest.raises(TypeError, match=r"Own.forward\(\) got an unexpected keyword argument 'background_mask'"):
        objective(*make(), torch.tensor([True, False, True]))


def test_one_switch_sets_gather_distributed_of_all_losses() -> None:
    for value in (True, False):
        objective = ObjectAwareObjective(gather_distributed=value, oca=OCALoss(), trimap=Never())
        assert objective.gather_distributed is value
        assert objective.oca.gather_distributed is objective.ori.gather_distributed is value
        assert not hasattr(objective.trimap, "gather_distributed")
        objective.gather_distributed = not value
        assert objective.oca.gather_distributed is objective.ori.gather_distributed is not value
    own = ObjectAwareObjective(oca=OCALoss(gather_distributed=True))
    assert own.oca.gather_distributed is True
    assert own.ori.gather_distributed is None
    with pytest.raises(ValueError, match="`gather_distributed` to be True as in `oca`, but got False"):
        ObjectAwareObjective(oca=OCALoss(gather_distributed=True), gather_distributed=False)
    with pytest.raises(TypeError, match="gather_distributed"):
        own.gather_distributed = 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes_under_autocast(dtype: torch.dtype) -> None:
    visual, *others = make(dtype)
    visual.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = ObjectAwareObjective(trimap_weight=1.0, ori=ORILoss(epsilon=0.3)).terms(visual, *others)
        skipped = ObjectAwareObjective(ori_weight=0.0).terms(visual, *others)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert {t.dtype for t in (*terms, *skipped)} == {expected}
    terms.total.backward()
    assert visual.grad is not None
    assert visual.grad.dtype == dtype
    assert torch.isfinite(visual.grad).all()


def test_the_reduction_is_that_of_the_losses_given() -> None:
    objective = ObjectAwareObjective(oca=OCALoss(reduction="none"), ori_weight=0.0)
    assert objective(*make()).shape == (3,)
    assert objective.ori.reduction == objective.trimap.reduction == "none"
    with pytest.raises(ValueError, match="one `reduction`, but got mean, none"):
        ObjectAwareObjective(oca=OCALoss(reduction="none"), ori=ORILoss())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"oca_weigth": 1.0}, TypeError, "oca_weigth"),
        ({"oca_weight": -1.0}, ValueError, "oca_weight"),
        ({"ori_weight": None}, TypeError, "ori_weight"),
        ({"oca_weight": 0.0, "ori_weight": 0.0}, ValueError, "weight above 0"),
        ({"oca": {"temperature": 0.07}}, TypeError, "`oca` to be a module"),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ObjectAwareObjective(**options)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
def test_compiles_to_one_graph() -> None:
    torch.compiler.reset()
    visual, *others = make(torch.float64)
    visual.requires_grad_()
    objective = ObjectAwareObjective(trimap_weight=0.5, ori=ORILoss(epsilon=0.3, max_iter=5))
    objective.ori._warned = True
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")
    expected, actual = objective(visual, *others), compiled(visual, *others)
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)
    (wanted,), (got,) = torch.autograd.grad(expected, visual), torch.autograd.grad(actual, visual)
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)


def test_an_option_of_a_loss_names_that_loss() -> None:
    with pytest.raises(TypeError, match=r"pass oca=OCALoss\(temperature=0\.07\)"):
        ObjectAwareObjective(temperature=0.07)
    with pytest.raises(TypeError, match=r"pass ori=ORILoss\(epsilon=0\.1\)"):
        ObjectAwareObjective(epsilon=0.1)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'temprature'\.$"):
        ObjectAwareObjective(temprature=0.07)
