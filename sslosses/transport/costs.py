"""Ground costs of moving a unit of mass from x to y: as a matrix, or as a lazy cost that keeps the points only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sslosses._checks import check_count, check_floating, check_number, check_shapes
from sslosses._torch import at_least_float32


def grid_positions(
    height: int, width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """Computes the pixel centers of a ``height`` × ``width`` map, divided by max(height, width), in row-major order.

    Args:
        height: rows of the map, at least 1.
        width: columns of the map, at least 1.
        dtype: floating dtype of the result.
        device: device of the result; None is torch's default.

    Returns:
        (height·width, 2) tensor of (row, column) positions in (0, 1).

    Raises:
        TypeError, ValueError: if ``height`` or ``width`` is not an integer of at least 1.

    Example:
        >>> grid_positions(1, 2)
        tensor([[0.2500, 0.2500],
                [0.2500, 0.7500]])
    """
    height = check_count("height", height)
    width = check_count("width", width)
    rows = torch.arange(height, dtype=dtype, device=device) + 0.5
    columns = torch.arange(width, dtype=dtype, device=device) + 0.5
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    return grid.reshape(-1, 2) / max(height, width)


def grid_cost(
    height: int, width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """Computes C[x, y] = ‖pos(x) − pos(y)‖₂ between the pixels of one grid.

    pos(x) are the positions of :func:`grid_positions`.

    Args:
        height: rows of the grid, at least 1.
        width: columns of the grid, at least 1.
        dtype: floating dtype of the result.
        device: device of the result; None is torch's default.

    Returns:
        (N, N) tensor, N = height·width.

    Raises:
        TypeError, ValueError: if ``height`` or ``width`` is not an integer of at least 1.

    Example:
        >>> grid_cost(1, 2)
        tensor([[0.0000, 0.5000],
                [0.5000, 0.0000]])
    """
    positions = grid_positions(height, width, dtype=dtype, device=device)
    return _distances(positions, positions)


@dataclass(frozen=True, eq=False)
class PointcloudCost:
    """The lazy cost of :func:`pointcloud_cost`: keeps the points and evaluates the cost where it is needed.

    Attributes:
        source: (..., N) values of the source points.
        target: (..., M) values of the target points.
        source_positions: (N, D) positions of the source points, shared by all problems.
        target_positions: (M, D) positions of the target points.
        value_weight: w_v, at least 0.
        position_weight: w_s, at least 0.
    """

    source: Tensor
    target: Tensor
    source_positions: Tensor
    target_positions: Tensor
    value_weight: float
    position_weight: float

    @property
    def shape(self) -> torch.Size:
        """Shape (..., N, M) of the matrix."""
        return torch.Size((*self.source.shape, self.target.shape[-1]))

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the values."""
        return self.source.dtype

    @property
    def device(self) -> torch.device:
        """Device of the values."""
        return self.source.device

    def dense(self) -> Tensor:
        """The (..., N, M) matrix, differentiable with respect to the values; ``|0|`` has derivative 0."""
        values = (self.source.unsqueeze(-1) - self.target.unsqueeze(-2)).abs()
        distances = _distances(self.source_positions, self.target_positions)
        return self.value_weight * values + self.position_weight * distances

    def bound(self) -> Tensor:
        """An upper bound of each matrix's entries, (...); it is not finite if a value or a position is not."""
        positions = self.source_positions
        if self.target_positions is not positions:
            positions = torch.cat((positions, self.target_positions))
        extent = torch.linalg.vector_norm(positions.amax(0) - positions.amin(0))
        source_low, source_high = self.source.aminmax(dim=-1)
        target_low, target_high = self.target.aminmax(dim=-1)
        values = torch.maximum(source_high - target_low, target_high - source_low)
        bound: Tensor = self.value_weight * values + self.position_weight * extent
        return bound

    def self_costs(self) -> tuple[PointcloudCost, PointcloudCost]:
        """Source against source and target against target: the ``self_costs`` of :func:`solve`."""
        source_cost = replace(self, target=self.source, target_positions=self.source_positions)
        target_cost = replace(self, source=self.target, source_positions=self.target_positions)
        return source_cost, target_cost

    def select(self, index: slice | Tensor) -> PointcloudCost:
        """The costs of some problems of a flat batch."""
        return replace(self, source=self.source[index], target=self.target[index])

    def rows(self, index: slice) -> PointcloudCost:
        """The same rows of every matrix."""
        return replace(self, source=self.source[..., index], source_positions=self.source_positions[index])

    def detach(self) -> PointcloudCost:
        """The same cost without a graph."""
        return replace(
            self,
            source=self.source.detach(),
            target=self.target.detach(),
            source_positions=self.source_positions.detach(),
            target_positions=self.target_positions.detach(),
        )

    def to(self, dtype: torch.dtype) -> PointcloudCost:
        """The same cost in another dtype."""
        return replace(
            self,
            source=self.source.to(dtype),
            target=self.target.to(dtype),
            source_positions=self.source_positions.to(dtype),
            target_positions=self.target_positions.to(dtype),
        )

    def expand(self, batch_shape: torch.Size) -> PointcloudCost:
        """The same cost with its batch dimensions broadcast to ``batch_shape`` and flattened to one."""
        return replace(
            self,
            source=self.source.expand(*batch_shape, -1).reshape(batch_shape.numel(), self.source.shape[-1]),
            target=self.target.expand(*batch_shape, -1).reshape(batch_shape.numel(), self.target.shape[-1]),
        )


def pointcloud_cost(
    source: Tensor,
    target: Tensor,
    source_positions: Tensor,
    target_positions: Tensor,
    value_weight: float = 1.0,
    position_weight: float = 1.0,
) -> PointcloudCost:
    """Makes the lazy cost ``C[x, y] = w_v·|source(x) − target(y)| + w_s·‖pos(x) − pos(y)‖₂``; no matrix is stored.

    In the object-region isolation loss ``source`` is S_n and ``target`` is 1 − S_m. Half precision is cast to float32.

    Args:
        source: (..., N) floating tensor, one value per source point.
        target: (..., M) floating tensor with the same leading dimensions, one value per target point.
        source_positions: (N, D) floating tensor without a gradient, such as :func:`grid_positions`.
        target_positions: (M, D) floating tensor without a gradient.
        value_weight: w_v, at least 0.
        position_weight: w_s, at least 0.

    Returns:
        A :class:`PointcloudCost` for :func:`solve`. Its ``dense()`` is the matrix.

    Raises:
        TypeError: if a tensor is not floating or a weight is not a number.
        ValueError: if shapes or devices disagree, a weight is negative, or a position requires a gradient.

    Example:
        >>> positions = grid_positions(1, 2)
        >>> pointcloud_cost(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), positions, positions).dense()
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """
    arguments = {
        "source": source,
        "target": target,
        "source_positions": source_positions,
        "target_positions": target_positions,
    }
    for name, value in arguments.items():
        check_floating(name, value)
        if value.ndim == 0:
            raise ValueError(f"Expected `{name}` to have at least one dimension, but got a scalar")
    lead = " ".join(f"batch{i}" for i in range(source.ndim - 1))
    check_shapes(
        source=(source, f"{lead} N"),
        target=(target, f"{lead} M"),
        source_positions=(source_positions, "N D"),
        target_positions=(target_positions, "M D"),
    )
    for name in ("source_positions", "target_positions"):
        if arguments[name].requires_grad:
            raise ValueError(
                f"Expected `{name}` to be constant, as the cost has gradients for `source` and `target` only, "
                "but got a tensor that requires one. Detach it, or build the cost's matrix yourself"
            )
    value_weight = check_number("value_weight", value_weight, least=0)
    position_weight = check_number("position_weight", position_weight, least=0)
    source, target = at_least_float32(source, target)
    return PointcloudCost(
        source,
        target,
        source_positions.to(source.dtype),
        target_positions.to(source.dtype),
        float(value_weight),
        float(position_weight),
    )


def lazy_grid_cost(
    height: int, width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> PointcloudCost:
    """Makes the cost of :func:`grid_cost` as a lazy cost, for solvers that never store the matrix.

    Args:
        height: rows of the grid, at least 1.
        width: columns of the grid, at least 1.
        dtype: floating dtype of the result.
        device: device of the result; None is torch's default.

    Returns:
        A :class:`PointcloudCost` of shape (N, N), N = height·width.

    Raises:
        TypeError, ValueError: if ``height`` or ``width`` is not an integer of at least 1.

    Example:
        >>> torch.equal(lazy_grid_cost(2, 3).dense(), grid_cost(2, 3))
        True
    """
    positions = grid_positions(height, width, dtype=dtype, device=device)
    values = positions.new_zeros(positions.shape[0])
    return PointcloudCost(values, values, positions, positions, 0.0, 1.0)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # Not torch.cdist: its matrix-product form rounds 0 to 1e-4 in float32, and its gradient is not needed.
    distances: Tensor = torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), dim=-1)
    return distances
