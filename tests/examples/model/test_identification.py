"""The identifications of a method's sources, against loops and the library's functions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from avsl.config import IDENTIFICATIONS, ONE_MAP, TWO_WAYS
from avsl.data.loading import SceneBatch
from avsl.methods import method_class
from avsl.model.encoders import Encoded, Encoders
from avsl.model.identification import check_identification, source_maps
from avsl.model.localizer import Localizer
from avsl.model.method import Method, SourceMaps
from torch import Tensor

from sslosses import IdentifiedObjects, cluster_objects, identify_objects

from ..own_maps import CONFIG, OwnMaps, setting

# With these thresholds, random features have sources, of which some are merged.
THRESHOLDS = {"peak_threshold": -1.0, "background_threshold": 1.0, "merge_threshold": 0.5}
MASKS = {"alpha_background": 0.2, "omega": 3.0}
FOUND = dataclasses.replace(CONFIG, **THRESHOLDS, **MASKS)
CLASSES = torch.tensor([[2, 0], [1, 1], [0, 2]])


def encoded(scenes: int = 3) -> Encoded:
    generator = torch.Generator().manual_seed(0)
    shapes = (4, 5, 6), (4,), (3, 5, 6), (3, 1, 1)
    return Encoded(*(torch.randn(scenes, *shape, generator=generator) for shape in shapes))


def maps_of(
    identification: str, num_sources: int | None, method: Method | None = None, classes: Tensor | None = None
) -> SourceMaps:
    return source_maps(method or OwnMaps(setting(FOUND)), FOUND, encoded(), num_sources, identification, classes)


def similarities() -> Tensor:
    """S_a of each scene."""
    visual, audio, *_ = encoded()
    return torch.stack([F.cosine_similarity(v, a[:, None, None], dim=0) for v, a in zip(visual, audio, strict=True)])


def at_peaks(maps: Tensor, valid: Tensor) -> Tensor:
    """S_a at the largest value of each map, 0 where there is no source."""
    peaks = torch.zeros(valid.shape)
    for b, k in valid.nonzero().tolist():
        row, column = divmod(int(maps[b, k].argmax()), maps.shape[3])
        peaks[b, k] = similarities()[b, row, column]
    return peaks


@pytest.mark.parametrize("number", [None, 1, 2, 3])
def test_repeat_is_the_map_of_the_sound_for_every_source(number: int | None) -> None:
    maps, valid, peaks = maps_of("repeat", number)
    count = number or 1  # one, if it is not known
    torch.testing.assert_close(maps, similarities()[:, None].expand(-1, count, -1, -1))
    assert valid.tolist() == [[True] * count] * 3
    torch.testing.assert_close(peaks, similarities().amax((1, 2))[:, None].expand(-1, count))


@pytest.mark.parametrize("number", [None, 1, 2, 3])
def test_single_is_the_map_of_the_sound_for_one_source(number: int | None) -> None:
    maps, valid, peaks = maps_of("single", number)
    torch.testing.assert_close(maps[:, 0], similarities())
    assert valid.tolist() == [[slot == 0 for slot in range(number or 1)]] * 3
    torch.testing.assert_close(peaks[:, 0], similarities().amax((1, 2)))
    assert not maps[:, 1:].any()
    assert not peaks[:, 1:].any()


@pytest.mark.parametrize(("number", "counts"), [(1, [1, 1, 1]), (2, [2, 2, 2]), (9, [3, 3, 3]), (None, [1, 2, 1])])
def test_own_maps_are_those_with_the_largest_scores(number: int | None, counts: list[int]) -> None:
    scene = encoded()
    scene = scene._replace(sound=torch.tensor([[0.0, 1.5, 1.0], [1.2, -2.0, 3.0], [0.1, 0.2, 0.3]])[..., None, None])
    orders = [[1, 2, 0], [2, 0, 1], [2, 1, 0]]
    maps, valid, peaks = source_maps(OwnMaps(setting()), CONFIG, scene, number, "own")
    assert valid.sum(1).tolist() == counts
    assert maps.shape[1] == max(counts)
    for b, count in enumerate(counts):
        assert torch.equal(maps[b, :count], scene.trunk[b, orders[b][:count]])
        assert not maps[b, count:].any()
    torch.testing.assert_close(peaks, at_peaks(maps, valid))


def test_own_maps_do_not_look_at_given_classes() -> None:
    for ours, expected in zip(maps_of("own", 2, classes=CLASSES), maps_of("own", 2), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("number", [None, 2])
def test_given_classes_have_their_maps(number: int | None) -> None:
    maps, valid, peaks = maps_of("given", number, classes=CLASSES)
    assert torch.equal(maps, torch.stack([encoded().trunk[b, row] for b, row in enumerate(CLASSES)]))
    assert valid.all()
    torch.testing.assert_close(peaks, at_peaks(maps, valid))


def test_classes_that_are_not_given() -> None:
    with pytest.raises(ValueError, match=r"Expected another `identification`, since the classes .* but got 'given'"):
        maps_of("given", 2)


class Moved(Method):
    """Its features are not the encoders' outputs."""

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        raise AssertionError(batch, encoders)

    def features(self, scene: Encoded) -> tuple[Tensor, Tensor]:
        return scene.trunk + 0.3, scene.sound[:, :, 0, 0]


def library(identification: str, visual: Tensor, audio: Tensor, number: int | None) -> IdentifiedObjects:
    if identification == "clustering":
        return cluster_objects(visual, audio, num_sources=number)
    return identify_objects(visual, audio, num_sources=number, **THRESHOLDS, **MASKS)


@pytest.mark.parametrize("number", [1, 2, None])
@pytest.mark.parametrize("identification", TWO_WAYS)
def test_objects_are_those_of_the_library(identification: str, number: int | None) -> None:
    scene = encoded()
    for method, visual, audio in (
        (OwnMaps(setting(FOUND)), F.normalize(scene.visual, dim=1), scene.audio),
        (Moved(setting(FOUND)), scene.trunk + 0.3, scene.sound[:, :, 0, 0]),
    ):
        ours, expected = maps_of(identification, number, method), library(identification, visual, audio, number)
        for name in SourceMaps._fields:
            torch.testing.assert_close(getattr(ours, name), getattr(expected, name))
        assert ours.valid.any()
    if identification == "iterative":  # of merged objects, not the similarity at the largest value of their map
        assert not torch.allclose(ours.peaks, at_peaks(ours.maps, ours.valid)) or number == 1


def test_thresholds_are_those_of_the_configuration_that_is_passed() -> None:
    """Commands change them after the method was built."""
    one = dataclasses.replace(FOUND, merge_threshold=-1.0)
    method = OwnMaps(setting(FOUND))
    merged = source_maps(method, one, encoded(), None, "iterative").valid.sum(1)
    assert merged.tolist() == [1, 1, 1]
    assert (maps_of("iterative", None, method).valid.sum(1) > 1).all()


@pytest.mark.parametrize(
    ("name", "identification", "supported"),
    [
        ("object-aware", "repeat", TWO_WAYS),
        ("object-aware", "given", TWO_WAYS),
        ("lvs", "own", ONE_MAP),
        ("lvs", "kmeans", ONE_MAP),
    ],
)
def test_an_identification_that_the_method_lacks(name: str, identification: str, supported: tuple[str, ...]) -> None:
    method = method_class(name)(setting(dataclasses.replace(CONFIG, method=name), text=10))
    message = (
        f"Expected `identification` of the method {name} to be one of {', '.join(supported)}, "
        f"but got '{identification}'"
    )
    config = dataclasses.replace(CONFIG, method=name)
    with pytest.raises(ValueError, match=f"^{message}$"):
        source_maps(method, config, encoded(), 2, identification, CLASSES)
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_identification(type(method), name, identification)


def test_the_model_uses_the_identification_of_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsl.model.localizer.method_class", lambda _: OwnMaps)
    scene, plain = encoded(), Localizer(FOUND.as_dict(), 0)
    for chosen in IDENTIFICATIONS:
        configured = Localizer(dataclasses.replace(FOUND, identification=chosen).as_dict(), 0)
        expected = maps_of(chosen, 2, classes=CLASSES)
        assert all(map(torch.equal, configured.source_maps(scene, 2, classes=CLASSES), expected))
        assert all(map(torch.equal, plain.source_maps(scene, 2, chosen, CLASSES), expected))
