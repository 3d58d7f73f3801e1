"""What scoring takes beside maps and truths, and what it refuses."""

from itertools import product

import pytest
import torch

from sslosses.metrics import Protocol, SoundLocalization, protocols
from sslosses.metrics._tables import CONFIDENCE, SOURCE
from sslosses.metrics.functional import optimal_assignment, silent_object_discrimination

DETECTION = {"mixture_figures": ("DetAP@0.3", "DetF1@0.3"), "normalization": "fixed range, min-max", "tau": 0.03}
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


@pytest.mark.parametrize("figure", ["CIoU@1.5", "CIoU@0", "nonsense", 3])
def test_an_unknown_figure(figure: object) -> None:
    with pytest.raises(ValueError, match="Expected a figure to be one of"):
        protocols.parse_figure(figure)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", 3])
def test_a_protocol_without_a_name(name: object) -> None:
    with pytest.raises(TypeError, match="Expected `name` to be a non-empty string"):
        Protocol(name, mixture_figures=("AUC",), single_figures=("AUC",))  # type: ignore[arg-type]


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
