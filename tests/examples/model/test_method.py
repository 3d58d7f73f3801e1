"""Options of methods, the choice among a method's own maps, what methods share, and their registry."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import avsl.methods
import pytest
import torch
import torch.nn.functional as F
from avsl.config import CONFIGS, IDENTIFICATIONS, METHODS, Config
from avsl.data.loading import SceneBatch
from avsl.methods import method_class
from avsl.methods.object_aware import ObjectAware
from avsl.model.encoders import Encoded, Encoders
from avsl.model.localizer import Localizer
from avsl.model.method import Method, NoOptions, ScoredMaps, read_options, select_maps
from torch import Tensor

from ..own_maps import CONFIG, OwnMaps, setting

FILES = sorted(path.stem for path in Path(avsl.methods.__file__).parent.glob("*.py") if path.stem != "__init__")


@dataclasses.dataclass(frozen=True)
class Options:
    """One of each type."""

    rate: float = 0.5
    count: int = 3
    sharp: bool = True
    kind: str = "mean"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"Expected `count` to be at least 1, but got {self.count}")


# Options


def test_options_that_are_not_given_have_their_defaults() -> None:
    assert read_options(Options, "x", ()) == Options()
    assert read_options(NoOptions, "x", ()) == NoOptions()


def test_options_have_the_types_of_their_fields() -> None:
    options = read_options(Options, "x", ("rate=2", "count=7", "sharp=False", "kind=a=b"))
    assert options == Options(2.0, 7, False, "a=b")
    assert [type(value) for value in vars(options).values()] == [float, int, bool, str]
    assert read_options(Options, "x", ("sharp=true", "rate=-1e-3")) == Options(rate=-0.001)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["speed=1"], "to be once each of rate, count, sharp, kind, as name=value, but got 'speed=1'"),
        (["rate"], "to be once each of rate, count, sharp, kind, as name=value, but got 'rate'"),
        (
            ["rate=1", "count=2", "rate=1"],
            "to be once each of rate, count, sharp, kind, as name=value, but got 'rate=1'",
        ),
        ([" rate=1"], "to be once each of rate, count, sharp, kind, as name=value, but got ' rate=1'"),
        (["rate=fast"], "to hold rate as float, but got 'fast'"),
        (["rate="], "to hold rate as float, but got ''"),
        (["rate=nan"], "to hold rate as float, but got 'nan'"),
        (["rate=-inf"], "to hold rate as float, but got '-inf'"),
        (["count=2.0"], "to hold count as int, but got '2.0'"),
        (["sharp=1"], "to hold sharp as bool, but got '1'"),
    ],
)
def test_wrong_options(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'Expected `method_options` of my-method {message}')}$"):
        read_options(Options, "my-method", texts)


def test_a_method_without_options() -> None:
    message = "Expected `method_options` of x to be empty, since it has no options, but got 'rate=1'"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_options(NoOptions, "x", ["rate=1"])


def test_an_option_out_of_range_is_refused_by_the_method() -> None:
    with pytest.raises(ValueError, match="Expected `count` to be at least 1, but got 0"):
        read_options(Options, "x", ["count=0"])


def test_options_of_the_configuration_reach_the_method() -> None:
    config = dataclasses.replace(CONFIG, method_options=("temperature=0.5", "omega=0.1"))
    method = Localizer(config.as_dict(), 0).method
    assert (method.options.temperature, method.options.omega, method.options.alpha_background) == (0.5, 0.1, 0.4)
    with pytest.raises(ValueError, match=r"`method_options` of object-aware to be empty, .* but got 'tau=1'"):
        Localizer(dataclasses.replace(CONFIG, method="object-aware", method_options=("tau=1",)).as_dict(), 10)


# The choice among a method's own maps

SCORES = torch.tensor([[0.1, 0.9, 0.5, -1.0], [0.2, -0.5, 0.1, 0.0]])
MAPS = torch.arange(1.0, 9.0).view(2, 4, 1, 1) + torch.arange(6.0).view(2, 3) / 10


def chosen(num_sources: int | None, classes: Tensor | None = None, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    maps, valid = select_maps(ScoredMaps(MAPS, SCORES, threshold), num_sources, classes)
    computed = select_maps(ScoredMaps(on_demand, SCORES, threshold), num_sources, classes)
    assert torch.equal(computed[0], maps)
    assert torch.equal(computed[1], valid)
    return maps, valid


def on_demand(numbers: Tensor) -> Tensor:
    """The maps of these numbers, (B, K, h, w)."""
    return torch.stack([maps[each] for maps, each in zip(MAPS, numbers, strict=True)])


def rows(*indices: list[int]) -> Tensor:
    """The maps of these indices, scene by scene; -1 for no map."""
    empty = torch.zeros(2, 3)
    return torch.stack(
        [torch.stack([MAPS[b, i] if i >= 0 else empty for i in scene]) for b, scene in enumerate(indices)]
    )


def test_maps_of_given_classes() -> None:
    """In the order of the classes, whatever their scores and the number of sources."""
    for number in (None, 1, 2):
        maps, valid = chosen(number, torch.tensor([[3, 0], [2, 2]]))
        assert torch.equal(maps, rows([3, 0], [2, 2]))
        assert valid.tolist() == [[True, True]] * 2


@pytest.mark.parametrize(
    ("number", "indices"), [(1, ([1], [0])), (2, ([1, 2], [0, 2])), (4, ([1, 2, 0, 3], [0, 2, 3, 1]))]
)
def test_maps_of_a_known_number_of_sources(number: int, indices: tuple[list[int], list[int]]) -> None:
    """Those with the largest scores, also below the threshold."""
    maps, valid = chosen(number)
    assert torch.equal(maps, rows(*indices))
    assert valid.tolist() == [[True] * number] * 2


def test_more_sources_than_maps() -> None:
    maps, valid = chosen(7)
    assert torch.equal(maps, chosen(4)[0])
    assert valid.shape == (2, 4)


@pytest.mark.parametrize(
    ("threshold", "indices"),
    [
        (0.05, ([1, 2, 0], [0, 2, -1])),
        (0.1, ([1, 2], [0, -1])),  # at the threshold is not above
        (0.6, ([1], [0])),  # at least one per scene
        (-torch.inf, ([1, 2, 0, 3], [0, 2, 3, 1])),
    ],
)
def test_maps_of_an_unknown_number_of_sources(threshold: float, indices: tuple[list[int], list[int]]) -> None:
    """Those with scores above the threshold; there are as many slots as the largest number."""
    maps, valid = chosen(None, threshold=threshold)
    assert torch.equal(maps, rows(*indices))
    assert valid.tolist() == [[i >= 0 for i in scene] for scene in indices]


@pytest.mark.parametrize("number", [None, 2])
def test_no_scenes_have_no_maps(number: int | None) -> None:
    maps, valid = select_maps(ScoredMaps(MAPS[:0], SCORES[:0], 0.0), number, None)
    assert (len(maps), len(valid)) == (0, 0)
    assert maps.shape[:2] == valid.shape


# What methods share


class OnlyALoss(Method):
    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        raise AssertionError(batch, encoders)


def test_the_space_of_a_method_is_that_of_the_encoders_unless_it_says_otherwise() -> None:
    torch.manual_seed(0)
    encoded = Encoded(torch.randn(2, 3, 4, 5), torch.randn(2, 3), torch.randn(2, 8, 4, 5), torch.randn(2, 8, 2, 2))
    method = OnlyALoss(setting())
    visual, audio = method.features(encoded)
    torch.testing.assert_close(visual, encoded.visual / encoded.visual.norm(dim=1, keepdim=True))
    assert torch.equal(audio, encoded.audio)
    maps = method.sound_map(encoded)
    assert maps.shape == (2, 4, 5)
    for b in range(2):
        expected = F.cosine_similarity(encoded.visual[b], encoded.audio[b, :, None, None], dim=0)
        torch.testing.assert_close(maps[b], expected)
    assert "own" not in method.identifications
    with pytest.raises(NotImplementedError, match="OnlyALoss has no maps of its own"):
        method.own_maps(encoded, 2)
    assert method.start_epoch(0, Encoders(None, None), iter(())) is None


def test_a_method_has_to_have_a_loss() -> None:
    class Nothing(Method):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing(setting())


def test_a_method_knows_what_it_is_built_for() -> None:
    method = OwnMaps(setting(classes=("drum",)))
    assert method.setting.classes == ("drum",)
    assert method.config is CONFIG


def test_the_localizer_tells_a_method_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsl.model.localizer.method_class", lambda _: OwnMaps)
    model = Localizer(CONFIG.as_dict(), 11, classes=["cello", "flute", "saxophone"], sources=4)
    given = model.method.setting
    assert (given.trunk, given.sound, given.text, given.sources) == (8, 8, 11, 4)
    assert given.classes == model.classes == ("cello", "flute", "saxophone")
    again = Localizer(**model.hparams)
    assert (again.classes, again.method.setting.sources) == (model.classes, 4)
    copied = given.copy_audio()
    assert copied is not model.audio
    assert all(map(torch.equal, copied.parameters(), model.audio.parameters()))


# The registry


def test_every_file_is_a_method_of_its_name() -> None:
    assert [name.replace("-", "_") for name in METHODS] == FILES
    classes = [method_class(name) for name in METHODS]
    assert len(set(classes)) == len(FILES)
    assert method_class("object-aware") is ObjectAware
    assert Config().method == "object-aware"
    with pytest.raises(ValueError, match=r"Expected `method` to be one of .*lvs, .*object-aware.*, but got 'lvss'"):
        Config(method="lvss")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_complete(name: str) -> None:
    """Its options can be written as name=value, and its identifications exist."""
    method = method_class(name)
    assert issubclass(method, Method)
    assert not method.__abstractmethods__
    defaults = read_options(method.Options, name, ())
    texts = [f"{option}={value}" for option, value in vars(defaults).items()]
    assert read_options(method.Options, name, texts) == defaults
    with pytest.raises(dataclasses.FrozenInstanceError):
        defaults.anything = 1
    assert list(method.identifications) == [i for i in IDENTIFICATIONS if i in method.identifications]
    own = {"own", "given"} & set(method.identifications)
    assert bool(own) is (method.own_maps is not Method.own_maps)


@pytest.mark.parametrize("path", sorted((CONFIGS / "methods").rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_configuration_of_a_method(path: Path) -> None:
    """Its options are those of the method, which has its identification."""
    config = Config.load([str(path)], {})
    method = method_class(config.method)
    assert read_options(method.Options, config.method, config.method_options)
    assert config.identification in method.identifications


def test_every_method_has_a_configuration() -> None:
    named = {Config.load([f"methods/{path.stem}"], {}).method for path in (CONFIGS / "methods").glob("*.yaml")}
    assert named == set(METHODS) - {"object-aware"}
