"""What scoring takes beside maps and truths, and what it refuses."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torchmetrics import MetricCollection

from sslosses.metrics import AUC, CIoU, Protocol, SoundLocalization, chance_levels, protocols
from sslosses.metrics._pipeline.tables import CONFIDENCE, SOURCE
from sslosses.metrics.functional import (
    boxes_to_truths,
    detection_average_precision,
    detection_f1,
    greedy_assignment,
    optimal_assignment,
    resize_bilinear,
    silent_object_discrimination,
)
from sslosses.metrics.functional.resize import _weights

DETECTION = {"mixture_metrics": ("DetAP@0.3", "DetF1@0.3"), "normalization": "fixed range, min-max", "tau": 0.03}
LEFT, RIGHT = [[0.0, 0.0, 0.5, 1.0]], [[0.5, 0.0, 1.0, 1.0]]


def halves() -> torch.Tensor:
    """Two maps of one sample: the first is high on the right half, the second on the left."""
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, :, 2:] = maps[0, 1, :, :2] = 1
    return maps


@pytest.mark.parametrize(
    ("assignment", "expected"), [("greedy", [0.2, 0.9]), ("optimal", [0.2, 0.9]), ("position", [0.9, 0.2])]
)
@pytest.mark.parametrize("as_list", [False, True])
def test_a_given_confidence_goes_with_its_map(assignment: str, expected: list[float], as_list: bool) -> None:
    metric = SoundLocalization(protocols.paper.replace(name="detection", assignment=assignment, **DETECTION))
    confidences = torch.tensor([[0.9, 0.2]])
    metric.update(halves(), [[LEFT, RIGHT]], confidences=confidences.tolist() if as_list else confidences)
    entries, _ = metric.tables()
    in_order = entries[entries[:, SOURCE].argsort(), CONFIDENCE]
    torch.testing.assert_close(in_order, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_one_map_a_frame_has_its_own_confidence() -> None:
    metric = SoundLocalization(protocols.paper.replace(name="detection", assignment="one per frame", **DETECTION))
    metric.update(halves(), [[LEFT, RIGHT]], confidences=torch.tensor([[0.9, 0.2]]))
    (entry,) = metric.tables()[0]
    assert entry[CONFIDENCE] == pytest.approx(0.9)  # the largest of the maps that are summed
    metric.reset()
    metric.update(halves(), [[LEFT, RIGHT]])
    (entry,) = metric.tables()[0]
    # The mean of the upper fourth of the summed map, which is 1 everywhere, in the range ±1/τ.
    assert entry[CONFIDENCE] == pytest.approx((1 + 1 / 0.03) * 0.03 / 2, abs=1e-6)


@pytest.mark.parametrize("protocol", ["noprior", "lvs", "avgn"])
def test_maps_that_are_not_valid_do_not_count(protocol: str) -> None:
    """With boxes; a tensor with the maps that there are, cut out by hand, gives the same."""
    maps = torch.cat([halves(), halves().flip(1) + 0.1 * torch.rand(1, 2, 4, 4)])
    valid = torch.tensor([[True, False], [True, True]])
    found, expected = SoundLocalization(protocol), SoundLocalization(protocol)
    found.update(maps, [[LEFT, RIGHT]] * 2, valid)
    expected.update([maps[0, :1], maps[1]], [[LEFT, RIGHT]] * 2)
    for ours, theirs in zip(found.tables(), expected.tables(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("row", [torch.zeros(1, 3), torch.zeros(1, 2, 1), [[0.5, 0.5, 0.5]]])
def test_confidences_of_another_number_of_maps(row: object) -> None:
    metric = SoundLocalization("paper")
    with pytest.raises(ValueError, match=r"Expected `confidences"):
        metric.update(halves(), [[LEFT, RIGHT]], confidences=row)  # type: ignore[arg-type]
    assert metric.tables()[0].numel() == 0


@pytest.mark.parametrize("metric", ["CIoU@1.5", "CIoU@0", "nonsense", 3])
def test_an_unknown_metric(metric: object) -> None:
    with pytest.raises(ValueError, match="Expected a metric to be one of"):
        protocols.parse_metric(metric)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", 3])
def test_a_protocol_without_a_name(name: object) -> None:
    with pytest.raises(TypeError, match="Expected `name` to be a non-empty string"):
        Protocol(name, mixture_metrics=("AUC",), single_metrics=("AUC",))  # type: ignore[arg-type]


def test_no_source_and_no_pixel() -> None:
    with pytest.raises(ValueError, match="with S >= 1"):
        optimal_assignment(torch.zeros(1, 2, 0))
    with pytest.raises(ValueError, match="with h, w >= 1"):
        silent_object_discrimination(
            torch.zeros(1, 0, 3), torch.ones(1, 2, 2, dtype=torch.bool), torch.ones(1, 1, 2, 2, dtype=torch.bool)
        )


@pytest.mark.parametrize(("maps", "sources"), [(2, 2), (3, 3), (3, 4), (4, 2)])
def test_of_tied_assignments_the_first_maps_are_taken(maps: int, sources: int) -> None:
    """Against the definition, on scores and classes so coarse that most samples have several best assignments."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 2, (300, maps, sources), generator=generator).double()
    allowed = torch.rand(300, maps, sources, generator=generator) < 0.6

    def order(sample: int, chosen: tuple[int, ...]) -> tuple[float, int, tuple[int, ...]]:
        pairs = [(m, s) for s, m in enumerate(chosen) if m < maps]
        total = sum(scores[sample, m, s].item() for m, s in pairs)
        return -total, -len(pairs), chosen

    def best(sample: int) -> list[int]:
        # A source may go without: the maps' number stands for that, after all of them.
        choices = product(*([m for m in range(maps) if allowed[sample, m, s]] + [maps] for s in range(sources)))
        real = (c for c in choices if len({m for m in c if m < maps}) == sum(m < maps for m in c))
        return [m if m < maps else -1 for m in min(real, key=lambda chosen: order(sample, chosen))]

    assert optimal_assignment(scores, allowed).tolist() == [best(sample) for sample in range(300)]


def test_the_largest_class_id_is_one() -> None:
    metric = SoundLocalization("paper")
    metric.update(halves(), [[LEFT, RIGHT]], source_classes=[[2**53, 0]])
    with pytest.raises(ValueError, match=r"integers up to 9007199254740992"):
        metric.update(halves(), [[LEFT, RIGHT]], source_classes=[[2**53 + 2, 0]])


@pytest.mark.parametrize(("maps", "value"), [(1, 6e37), (2, 3e37), (1, -6e37)])
def test_maps_whose_sums_may_be_infinite(maps: int, value: float) -> None:
    """Beyond an eighth of the largest number, shared by the maps of a sample."""
    metric = SoundLocalization("paper")
    with pytest.raises(ValueError, match="Expected `maps` to be within"):
        metric.update(torch.full((1, maps, 2, 2), value), [[LEFT, RIGHT]])
    metric.update(torch.full((1, maps, 2, 2), value / 2), [[LEFT, RIGHT]])


def test_priors_whose_sums_may_be_infinite() -> None:
    metric = SoundLocalization("ez-vsl")
    with pytest.raises(ValueError, match="Expected `priors` to be within"):
        metric.update(halves(), [[LEFT, RIGHT]], priors=torch.full((1, 2, 2), -6e37))


@pytest.mark.parametrize("tau", [1e10, 1e300])
def test_a_tau_that_makes_maps_infinite(tau: float) -> None:
    metric = SoundLocalization(protocols.avgn.replace(tau=tau))
    with pytest.raises(ValueError, match="Expected `maps` to be finite"):
        metric.update(halves() * 1e37, [[LEFT, RIGHT]])


@pytest.mark.parametrize("layout", ["stacked", "side-by-side"])
def test_frames_too_large_together(layout: str) -> None:
    metric = SoundLocalization(protocols.paper.replace(size=4096), layout=layout)
    with pytest.raises(ValueError, match=r"at most 16384 pixels .* but got 5 frames of 4096"):
        metric.update(torch.rand(1, 1, 5, 5), [[LEFT] * 5])


@pytest.mark.parametrize("value", [-0.5, 1.5])
def test_truths_beyond_0_and_1(value: float) -> None:
    with pytest.raises(ValueError, match="Expected `truths` to hold"):
        SoundLocalization("paper").update(torch.rand(1, 1, 7, 7), torch.full((1, 1, 224, 224), value))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64, torch.float16])
@pytest.mark.parametrize("protocol", ["paper", "tvsl", "clean"])
def test_masks_of_any_dtype(dtype: torch.dtype, protocol: str) -> None:
    maps, masks = torch.rand(3, 2, 7, 7), torch.rand(3, 2, 224, 224) < 0.3
    found, expected = SoundLocalization(protocol), SoundLocalization(protocol)
    found.update(maps, masks.to(dtype))
    expected.update(maps, masks)
    assert {k: v.item() for k, v in found.compute().items()} == {k: v.item() for k, v in expected.compute().items()}


@pytest.mark.parametrize("seed", [-(2**63), -5, 2**64 - 1])
def test_chance_takes_every_seed_that_torch_takes(seed: int) -> None:
    small = protocols.paper.replace(size=4)
    assert chance_levels(torch.ones(1, 1, 4, 4, dtype=torch.bool), small, seed=seed)
    for beyond in (-(2**63) - 1, 2**64):
        with pytest.raises(ValueError, match="seed"):
            chance_levels(torch.ones(1, 1, 4, 4, dtype=torch.bool), small, seed=beyond)


@pytest.mark.parametrize("value", [torch.inf, -0.1, torch.nan])
@pytest.mark.parametrize("assign", [greedy_assignment, optimal_assignment])
def test_overlaps_that_are_none(assign: Callable[..., object], value: float) -> None:
    with pytest.raises(ValueError, match="Expected `scores` to hold finite values >= 0"):
        assign(torch.tensor([[[0.5, value]]]))


@pytest.mark.parametrize("threshold", [-0.5, 1.5])
def test_detection_refuses_a_threshold(threshold: float) -> None:
    with pytest.raises(ValueError, match="Expected `threshold`"):
        detection_f1(torch.ones(2), torch.ones(2), threshold)


def test_an_empty_mask_makes_no_pair() -> None:
    mask, none = torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2, dtype=torch.bool)
    for sounding, silent in ((none, mask), (mask, none)):
        assert silent_object_discrimination(torch.rand(1, 2, 2), sounding, silent[:, None]).pairs == 0


@pytest.mark.parametrize("name", ["maps", "sounding", "silent", "same_class", "valid"])
def test_discrimination_of_what_holds_no_values(name: str) -> None:
    mask = torch.ones(1, 2, 2, dtype=torch.bool)
    flags = torch.ones(1, 1, dtype=torch.bool)
    given = {"maps": torch.rand(1, 2, 2), "sounding": mask, "silent": mask[:, None], "same_class": flags}
    given["valid"] = flags
    with pytest.raises(TypeError, match=f"Expected `{name}` to be a dense tensor, but got one of layout"):
        silent_object_discrimination(**given | {name: given[name].to_sparse()})
    with pytest.raises(ValueError, match="Expected `maps` to hold values, but got a tensor on the device meta"):
        silent_object_discrimination(**{key: value.to("meta") for key, value in given.items()})


def test_many_boxes_add_up_under_autocast() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(257, 4)  # bfloat16 has no 257
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert boxes_to_truths(boxes, 1, add=True).item() == 257


def test_a_size_first_met_in_inference_mode_takes_gradients_later() -> None:
    _weights.cache_clear()
    maps = torch.rand(1, 2, 3, dtype=torch.float64)  # the weights' dtype: they are used as they are
    with torch.inference_mode():
        resize_bilinear(maps, (4, 5))
    maps.requires_grad_()
    resize_bilinear(maps, (4, 5)).sum().backward()
    assert maps.grad is not None


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        resize_bilinear(torch.rand(2, 2), (4, 4), True)  # type: ignore[misc]
    assert resize_bilinear(maps=torch.rand(2, 2), size=(4, 4)).shape == (4, 4)


def test_discrimination_resizes_with_half_pixel_centers() -> None:
    maps = torch.tensor([[[0.0, 1.0, 0.0]]])  # 0, 1/4, 3/4, 3/4, 1/4, 0; with aligned corners 0, 0.4, 0.8, …
    sounding = torch.tensor([[[True, False, True, False, False, False]]])
    silent = torch.tensor([[[[False, True, False, False, False, False]]]])
    assert silent_object_discrimination(maps, sounding, silent).share == 1


@pytest.mark.parametrize("name", ["ciou", "confidence"])
@pytest.mark.parametrize("detection", [detection_f1, detection_average_precision])
def test_detection_of_integers(detection: Callable[..., object], name: str) -> None:
    given = {"ciou": torch.rand(3), "confidence": torch.rand(3)}
    with pytest.raises(TypeError, match=f"Expected `{name}` to have a floating dtype"):
        detection(**given | {name: torch.ones(3, dtype=torch.long)})


def test_printing_shows_what_is_computed() -> None:
    metric = SoundLocalization("lvs", task="single")
    names = ", ".join(metric.metrics)
    assert repr(metric) == f"SoundLocalization({names}; protocol='lvs', task='single', layout='one')"
    assert repr(CIoU(0.5)) == "CIoU(CIoU@0.5; protocol='paper', task='mixtures', layout='one')"
    assert "AUC(AUC; protocol='clean'" in repr(MetricCollection([AUC("clean")]))
