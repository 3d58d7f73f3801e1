import pytest
import torch

from sslosses.metrics.layout import FrameLayout


@pytest.mark.parametrize(
    ("name", "axis", "grid", "shape"),
    [
        ("one", None, (1, 1), "(M, h, w)"),
        ("stacked", -2, (3, 1), "(M, 3·h, w)"),
        ("side-by-side", -1, (1, 3), "(M, h, 3·w)"),
    ],
)
def test_frames_are_found_in_a_map(name, axis, grid, shape):
    layout = FrameLayout(name)
    frames = torch.rand(2, 1 if axis is None else 3, 4, 5)
    maps = frames[:, 0] if axis is None else torch.cat(frames.unbind(1), axis)
    assert (layout.axis, layout.grid(3), layout.shape(3)) == (axis, grid, shape)
    assert torch.equal(layout.split(maps, 3), frames)


def test_unknown_layout_lists_those_available():
    with pytest.raises(ValueError, match="'one', 'stacked', 'side-by-side', but got 'two'"):
        FrameLayout("two")
