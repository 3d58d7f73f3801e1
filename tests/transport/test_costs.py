"""Ground costs against loops written from the equations."""

import math

import pytest
import torch

from sslosses.transport import grid_cost, grid_positions, lazy_grid_cost, pointcloud_cost


def loop_positions(height, width):
    scale = max(height, width)
    return [((i + 0.5) / scale, (j + 0.5) / scale) for i in range(height) for j in range(width)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (4, 2)])
def test_grid_equals_loop(height, width):
    expected = loop_positions(height, width)
    positions = grid_positions(height, width, dtype=torch.float64)
    torch.testing.assert_close(positions, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)
    distances = [[math.dist(x, y) for y in expected] for x in expected]
    cost = grid_cost(height, width, dtype=torch.float64)
    torch.testing.assert_close(cost, torch.tensor(distances, dtype=torch.float64), rtol=0, atol=1e-15)
    assert torch.equal(lazy_grid_cost(height, width, dtype=torch.float64).dense(), cost)


def test_pointcloud_equals_loop():
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(2, 6, generator=generator, dtype=torch.float64)
    target = torch.rand(2, 4, generator=generator, dtype=torch.float64)
    x, y = loop_positions(2, 3), loop_positions(2, 2)
    cost = pointcloud_cost(
        source, target, torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64), 0.7, 0.3
    )
    dense = cost.dense()
    assert cost.shape == dense.shape == (2, 6, 4)
    for p in range(2):
        for i in range(6):
            for j in range(4):
                expected = 0.7 * abs(source[p, i] - target[p, j]) + 0.3 * math.dist(x[i], y[j])
                assert dense[p, i, j].item() == pytest.approx(expected.item(), abs=1e-15)


def test_pointcloud_is_differentiable_and_transposes():
    positions = grid_positions(2, 3, dtype=torch.float64)
    source = torch.rand(6, dtype=torch.float64, requires_grad=True)
    target = torch.rand(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, t: pointcloud_cost(s, t, positions, positions).dense(), (source, target))
    # The identity behind counting a pair of maps twice: C of (n, m) is the transpose of C of (m, n).
    there = pointcloud_cost(source, 1 - target, positions, positions).dense()
    back = pointcloud_cost(target, 1 - source, positions, positions).dense()
    torch.testing.assert_close(there, back.mT)


def test_equal_values_have_a_finite_gradient():
    positions = grid_positions(2, 2)
    values = torch.full((4,), 0.5, requires_grad=True)
    pointcloud_cost(values, 1 - values, positions, positions).dense().sum().backward()
    assert torch.equal(values.grad, torch.zeros(4))


def test_half_precision_is_cast():
    positions = grid_positions(2, 2, dtype=torch.bfloat16)
    values = torch.rand(4, dtype=torch.bfloat16)
    assert pointcloud_cost(values, values, positions, positions).dense().dtype == torch.float32


def test_arguments_are_checked():
    positions, values = grid_positions(2, 2), torch.rand(3, 4)
    with pytest.raises(ValueError, match=r"`target` to have shape \(batch0, M\)"):
        pointcloud_cost(values, values[0], positions, positions)
    with pytest.raises(ValueError, match="`source_positions` to have shape"):
        pointcloud_cost(values, values, positions[:3], positions)
    with pytest.raises(TypeError, match="`source` to have a floating dtype"):
        pointcloud_cost(values.long(), values, positions, positions)
    with pytest.raises(ValueError, match="`value_weight` to be a finite number and >= 0"):
        pointcloud_cost(values, values, positions, positions, -1.0)
    with pytest.raises(ValueError, match="`source` to have at least one dimension"):
        pointcloud_cost(torch.tensor(1.0), values, positions, positions)
    with pytest.raises(ValueError, match="`height`"):
        grid_positions(0, 2)
