"""AudioCLIP's image tower and its maps, against plain references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from avsl.model.encoders.audioclip.image import ImageMap, ImageTower
from avsl.model.encoders.audioclip.sizes import SMALL
from torch import Tensor

from .audioclip_references import Values, attention, image_map, part, varied_weights


@pytest.fixture(scope="module")
def values() -> Values:
    return part(varied_weights(), "visual.")


def tower(values: Values) -> ImageTower:
    made = ImageTower(SMALL).double()
    made.load_state_dict(values)
    return made.eval()


def pixels(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def tokens(features: Tensor, positions: Tensor) -> Tensor:
    return torch.cat([features.mean((2, 3))[:, None], features.flatten(2).transpose(1, 2)], 1) + positions


def test_the_tower_equals_its_reference(values: Values) -> None:
    image = pixels(224, 224)
    pool = part(values, "attnpool.")
    expected = image_map(image, values)
    with torch.no_grad():
        torch.testing.assert_close(tower(values).features(image), expected)
        embedding = attention(tokens(expected, pool["positional_embedding"]), pool)[:, 0]
        torch.testing.assert_close(tower(values)(image), embedding)
    assert expected.shape == (2, 512, 7, 7)
    assert embedding.shape == (2, 16)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (32, 32), (96, 160), (70, 40)])
def test_values_of_places(values: Values, height: int, width: int) -> None:
    """Each place by itself: no attention, no positions."""
    image, pool = pixels(height, width), part(values, "attnpool.")
    features = image_map(image, values)
    with torch.no_grad():
        ours = ImageMap(tower(values), "values")(image)
    assert ours.shape == (2, 16, *features.shape[2:])
    for row, column in ((0, 0), (features.shape[2] - 1, features.shape[3] - 1)):
        value = features[:, :, row, column] @ pool["v_proj.weight"].T + pool["v_proj.bias"]
        expected = value @ pool["c_proj.weight"].T + pool["c_proj.bias"]
        torch.testing.assert_close(ours[:, :, row, column], expected)


def test_tokens_of_places(values: Values) -> None:
    image, pool = pixels(224, 224), part(values, "attnpool.")
    with torch.no_grad():
        ours = ImageMap(tower(values), "tokens")(image)
    expected = attention(tokens(image_map(image, values), pool["positional_embedding"]), pool)
    torch.testing.assert_close(ours, expected[:, 1:].transpose(1, 2).unflatten(2, (7, 7)))


def test_positions_are_interpolated(values: Values) -> None:
    image, pool = pixels(96, 160), part(values, "attnpool.")
    grid = pool["positional_embedding"][1:].T.view(1, 512, 7, 7)
    places = F.interpolate(grid, (3, 5), mode="bicubic")[0].flatten(1).T
    positions = torch.cat([pool["positional_embedding"][:1], places])
    with torch.no_grad():
        ours = ImageMap(tower(values), "tokens")(image)
    expected = attention(tokens(image_map(image, values), positions), pool)
    torch.testing.assert_close(ours, expected[:, 1:].transpose(1, 2).unflatten(2, (3, 5)))


@pytest.mark.parametrize("kind", ["values", "tokens"])
def test_every_parameter_is_used(values: Values, kind: str) -> None:
    """One that is not would stop DistributedDataParallel."""
    made = ImageMap(tower(values), kind)
    made(pixels(64, 64)).sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None] == []


def test_an_unknown_map(values: Values) -> None:
    with pytest.raises(ValueError, match="`kind` to be one of values, tokens, but got 'pooled'"):
        ImageMap(tower(values), "pooled")


def test_the_published_size() -> None:
    with torch.device("meta"):
        made, image = ImageTower().eval(), torch.empty(1, 3, 224, 224)
        assert made(image).shape == (1, 1024)
        assert made.features(image).shape == (1, 2048, 7, 7)
        assert made.attnpool.heads == 32
        assert sum(p.numel() for p in made.parameters()) == 38_316_896
        assert ImageMap(made, "values")(image).shape == (1, 1024, 7, 7)
