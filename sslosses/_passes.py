"""Unit vectors, cosines of pixels and weighted sums of pixels, in few passes over large features.

On a CPU, these functions take as long as they read and write memory. Autograd of plain operations reads the features
about twenty times for OCA and its gradient; :func:`pool_by_first_map` reads them three times forward and three times
backward, and writes one gradient. Second derivatives are those of differentiable operations.

Compiled graphs, ``torch.func`` and forward mode get plain operations, except that a compiled graph on a CPU gets
:func:`pool_by_first_map` as an operator.

Squares leave the range of float32 for entries of 1e-23 or 1e19. Only then are vectors divided by their largest entry.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._torch import can_branch, has_transform

# Elements of a product that is summed right away: it stays in a cache.
_CACHED = 1 << 20


def unit(value: Tensor, dim: int) -> Tensor:
    """Scale ``value``, however small or large, to length 1 along ``dim``; a zero vector stays zero with zero gradient.

    Squares of 1e-30 or 1e30 do not fit into float32, and a lower bound for the length would make the result depend on
    the scale. So the vector is first divided by its largest entry, unless all squares fit. The result does not depend
    on that factor, so it is detached. A vector with all entries below 1e-35 (2e-305 in float64) counts as zero: its
    gradient would overflow.

    Example:
        >>> unit(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]), dim=1)
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    if is_plain(value):
        value = value / _divisor(value, dim)
        return value * _over_length((value * value).sum(dim, keepdim=True))
    value, inverse = _with_inverse_length(value, dim)
    result: Tensor = _Unit.apply(value, inverse, dim)  # type: ignore[no-untyped-call]
    return result


def pixel_cosines(features: Tensor, directions: Tensor) -> Tensor:
    """Cosines (B, K, N) of all pixels (B, C, N) with unit vectors (B, K, C) or (K, C), without unit features."""
    if is_plain(features, directions):
        features = features / _divisor(features, 1)
        inverse = _over_length((features * features).sum(1, keepdim=True))
        return torch.matmul(directions, features) * inverse
    features, inverse = _with_inverse_length(features, 1)
    result: Tensor = _PixelCosines.apply(features, directions, inverse)  # type: ignore[no-untyped-call]
    return result


def weighted_sums(features: Tensor, weights: Tensor) -> Tensor:
    """Sums (B, C, K) of the pixels (B, C, N) under weights (B, K, N)."""
    if is_plain(features, weights):
        return torch.bmm(features, weights.mT)
    result: Tensor = _WeightedSums.apply(features, weights)  # type: ignore[no-untyped-call]
    return result


def pool_by_first_map(
    features: Tensor, directions: Tensor, alpha_foreground: float, alpha_background: float, omega: float
) -> tuple[Tensor, Tensor]:
    """Cosines of all pixels, and their means under both masks of the first cosine's map.

    Args:
        features: (B, C, N).
        directions: (B, K, C), unit vectors.
        alpha_foreground: as in :func:`~sslosses.masks.masked_pool`.
        alpha_background: the same.
        omega: the same, as a divisor of the dtype.

    Returns:
        (B, K, N) cosines and (B, 2, C) *halves* of the means, as a mean can overflow by rounding.
    """
    options = (alpha_foreground, alpha_background, omega)
    if torch.compiler.is_compiling() and features.device.type == "cpu":
        cosines, halves, *_ = _pool_forward_op(features, directions, *options)
    elif is_plain(features, directions):
        cosines, halves = _pool_by_first_map(features, directions, *options)
    else:
        cosines, halves = _PoolByFirstMap.apply(features, directions, options)  # type: ignore[no-untyped-call]
    return cosines, halves


def _pool_by_first_map(
    features: Tensor, directions: Tensor, alpha_foreground: float, alpha_background: float, omega: float
) -> tuple[Tensor, Tensor]:
    cosines = pixel_cosines(features, directions)
    weights = _mask_scores(cosines[:, 0], alpha_foreground, alpha_background, omega)
    weights = F.logsigmoid(weights).softmax(-1)
    return cosines, weighted_sums(features, weights / 2).mT


def _mask_scores(cosines: Tensor, alpha_foreground: float, alpha_background: float, omega: float) -> Tensor:
    """What the masks are sigmoids of, (B, 2, N)."""
    return torch.stack([cosines - alpha_foreground, alpha_background - cosines], dim=1) / omega


class _Unit(torch.autograd.Function):
    """Vectors over their lengths."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, inverse: Tensor, dim: int) -> Tensor:
        result = value * inverse
        ctx.save_for_backward(value, inverse, result)
        ctx.dim = dim
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        value, inverse, result = ctx.saved_tensors
        inverse = _differentiable(inverse, value, ctx.dim)
        along = (grad * result).sum(ctx.dim, keepdim=True)
        return torch.addcmul(grad, result, along, value=-1) * inverse, None, None


class _PixelCosines(torch.autograd.Function):
    """Products of pixels and unit vectors, over the lengths of the pixels."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, directions: Tensor, inverse: Tensor) -> Tensor:
        result = torch.matmul(directions, features) * inverse
        ctx.save_for_backward(features, directions, inverse, result)
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grad_outputs
        features, directions, inverse, result = ctx.saved_tensors
        inverse = _differentiable(inverse, features, 1)
        along = (grad * result).sum(1, keepdim=True) * inverse * inverse
        grad = grad * inverse
        grad_features = grad_directions = None
        if ctx.needs_input_grad[0]:
            each = directions if directions.ndim == 3 else directions.expand(features.shape[0], -1, -1)
            grad_features = _outer(each.mT, grad, features)
            if torch.is_grad_enabled():
                grad_features = grad_features - features * along
            else:
                grad_features.addcmul_(features, along, value=-1)
        if ctx.needs_input_grad[1]:
            grad_directions = torch.bmm(features, grad.mT).mT
            if directions.ndim == 2:
                grad_directions = grad_directions.sum(0)
        return grad_features, grad_directions, None


class _WeightedSums(torch.autograd.Function):
    """A batched product. Autograd's own backward pass multiplies in a memory layout that takes ten times as long."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(features, weights)
        return torch.bmm(features, weights.contiguous().mT)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grad_outputs
        features, weights = ctx.saved_tensors
        grad_features = _outer(grad, weights, features) if ctx.needs_input_grad[0] else None
        grad_weights = torch.bmm(grad.mT.contiguous(), features) if ctx.needs_input_grad[1] else None
        return grad_features, grad_weights


def _pool_forward(
    features: Tensor, directions: Tensor, alpha_foreground: float, alpha_background: float, omega: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The results of :func:`pool_by_first_map`, and what the backward pass needs."""
    square = _fitting_square(features, 1)
    if square is None:
        divisor = _divisor(features, 1)
        scaled = features / divisor
        inverse = _over_length(_squared_sum(scaled, 1))
    else:
        scaled, divisor, inverse = features, torch.ones_like(square), square.rsqrt()
    cosines = torch.matmul(directions, scaled) * inverse
    scores = _mask_scores(cosines[:, 0], alpha_foreground, alpha_background, omega)
    weights = F.logsigmoid(scores).softmax(-1)
    halves = (0.5 * torch.bmm(features, weights.mT)).mT.contiguous()
    return cosines, halves, divisor, inverse, scores, weights


def _pool_backward(
    omega: float,
    of_features: bool,
    grad_cosines: Tensor,
    grad_halves: Tensor,
    features: Tensor,
    directions: Tensor,
    cosines: Tensor,
    divisor: Tensor,
    inverse: Tensor,
    scores: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradients of the features, empty unless ``of_features``, and of the directions, each written once."""
    grad_means = (0.5 * grad_halves).contiguous()
    # Backward through the softmax, the logarithm of the sigmoid and the scores.
    grad = torch.bmm(grad_means, features)
    grad = weights * (grad - (weights * grad).sum(-1, keepdim=True)) * torch.sigmoid(-scores)
    first = grad_cosines[:, :1] + (grad[:, :1] - grad[:, 1:]) / omega
    grad_cosines = torch.cat([first, grad_cosines[:, 1:]], dim=1)
    along = (grad_cosines * cosines).sum(1, keepdim=True) * inverse * inverse
    grad_products = grad_cosines * inverse
    scaled = features
    if not (can_branch(divisor) and bool((divisor == 1).all())):
        scaled, along = features / divisor, along / divisor
    grad_directions = torch.bmm(scaled, grad_products.mT).mT.contiguous()
    if not of_features:
        return features.new_empty(0), grad_directions
    left, right = torch.cat([directions, grad_means], dim=1), torch.cat([grad_products / divisor, weights], dim=1)
    return _outer(left.mT, right, features).addcmul_(scaled, along, value=-1), grad_directions


class _PoolByFirstMap(torch.autograd.Function):
    """Cosines and means in one function, so that the backward pass writes one gradient of the features."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, directions: Tensor, options: tuple[float, float, float]
    ) -> tuple[Tensor, Tensor]:
        cosines, halves, *others = _pool_forward(features, directions, *options)
        ctx.save_for_backward(features, directions, cosines, *others)
        ctx.options = options
        return cosines, halves

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        saved, needed = ctx.saved_tensors, ctx.needs_input_grad[:2]
        if not torch.is_grad_enabled():
            return *_pool_backward(ctx.options[-1], needed[0], *grad_outputs, *saved), None
        # A second derivative is that of plain operations.
        inputs = [x for x, counts in zip(saved, needed, strict=False) if counts]
        outputs = _pool_by_first_map(*saved[:2], *ctx.options)
        grads = iter(torch.autograd.grad(outputs, inputs, grad_outputs, create_graph=True))
        return *(next(grads) if counts else None for counts in needed), None


# Custom operators for compiled graphs, whose own code for these products takes twice as long on a CPU.
_pool_forward_op = torch.library.custom_op("sslosses::pool_by_first_map", _pool_forward, mutates_args=())
_pool_backward_op = torch.library.custom_op("sslosses::pool_by_first_map_backward", _pool_backward, mutates_args=())


@_pool_forward_op.register_fake
def _(features: Tensor, directions: Tensor, *_options: float) -> tuple[Tensor, ...]:
    batch, channels, pixels = features.shape
    rows = (directions.shape[1], pixels), (2, channels), (1, pixels), (1, pixels), (2, pixels), (2, pixels)
    return tuple(features.new_empty((batch, *shape)) for shape in rows)


@_pool_backward_op.register_fake
def _(_omega: float, _of_features: bool, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    _, _, features, directions, *_ = tensors
    batch, channels, pixels = features.shape
    last = _is_channels_last(features)
    grad = features.new_empty(batch, pixels, channels).mT if last else features.new_empty(features.shape)
    return grad, directions.new_empty(directions.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cosines, _, *others = output
    ctx.save_for_backward(*inputs[:2], cosines, *others)
    ctx.omega = inputs[-1]


def _backward(ctx: Any, grad_cosines: Tensor, grad_halves: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return *_pool_backward_op(ctx.omega, True, grad_cosines, grad_halves, *ctx.saved_tensors), None, None, None


_pool_forward_op.register_autograd(_backward, setup_context=_keep)


def _outer(left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """The product of (B, C, K) and (B, K, N) with the memory layout of ``like``: channels last or first."""
    return torch.bmm(right.mT, left.mT).mT if _is_channels_last(like) else torch.bmm(left, right)


def _is_channels_last(features: Tensor) -> bool:
    return features.stride(1) == 1 and features.shape[1] > 1


def is_plain(*tensors: Tensor) -> bool:
    """Whether plain operations are needed: in a graph that is compiled or traced, or under another derivative."""
    if torch.compiler.is_compiling() or has_transform():
        return True
    unpack = torch.autograd.forward_ad.unpack_dual
    return any(unpack(x).tangent is not None for x in tensors)  # type: ignore[no-untyped-call]


def _with_inverse_length(value: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """``value``, scaled if its squares leave the range of the dtype, and the inverse of its length, 0 for zero."""
    square = _fitting_square(value, dim)
    if square is not None:
        return value, square.rsqrt()
    value = value / _divisor(value, dim)
    return value, _over_length(_squared_sum(value.detach(), dim))


def _fitting_square(value: Tensor, dim: int) -> Tensor | None:
    """The sums of squares, if it is cheap to see that they fit and they do."""
    if not can_branch(value):
        return None
    square = _squared_sum(value.detach(), dim)
    return square if _fits(square, value.shape[dim]) else None


def _fits(square: Tensor, count: int) -> bool:
    """Whether sums of ``count`` squares have lost no digits by underflow or overflow. Zero and NaN count as lost."""
    if not square.numel():
        return False
    least, most = (float(x) for x in square.aminmax())
    limits = torch.finfo(square.dtype)
    return least >= max(count, 1) * limits.tiny / limits.eps and most <= limits.max


def _divisor(value: Tensor, dim: int) -> Tensor:
    """About the largest entries of vectors, as divisors of the vectors; inf for vectors that count as zero."""
    fixed = value.detach()
    # Not vector_norm, which takes 7 times as long on a CPU; abs would make a copy.
    divisor = largest = torch.maximum(fixed.amax(dim, keepdim=True), -fixed.amin(dim, keepdim=True))
    if not is_plain(value):
        # A power of two, so that results have the same digits as without scaling.
        divisor = largest / (2 * largest.frexp().mantissa)
    return divisor.masked_fill(largest < 1024 * torch.finfo(largest.dtype).tiny, math.inf)


def _squared_sum(value: Tensor, dim: int) -> Tensor:
    """Sums of squares, in parts whose squares stay in a cache. Norms of strided vectors take 10 times as long."""
    per_sample = value[:1].numel()
    whole = value.numel() <= _CACHED or dim % value.ndim == 0 or not per_sample
    if whole or value.device.type != "cpu":
        return (value * value).sum(dim, keepdim=True)
    parts = torch.split(value, max(1, _CACHED // per_sample))
    squares = torch.empty_like(parts[0])
    return torch.cat([torch.mul(x, x, out=squares[: len(x)]).sum(dim, keepdim=True) for x in parts])


def _over_length(square: Tensor) -> Tensor:
    """The inverse of the length, 0 for zero, whose first and second derivative are 0, too."""
    return square.masked_fill(square == 0, math.inf).rsqrt()


def _differentiable(inverse: Tensor, value: Tensor, dim: int) -> Tensor:
    """The inverse length of ``value``, with a graph if there will be a second derivative."""
    return _over_length((value * value).sum(dim, keepdim=True)) if torch.is_grad_enabled() else inverse
