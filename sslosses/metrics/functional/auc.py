"""Success rate over thresholds of cIoU, and the area under it."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import check_floating, check_number
from sslosses.metrics.functional._inputs import check_no_nan, check_values

#: Thresholds of the AUC, t = 0, 0.05, …, 1, as i / 20: a cIoU of exactly that fraction is rounded to the same number.
AUC_THRESHOLDS: tuple[float, ...] = tuple(i / 20 for i in range(21))


def success_rate(ciou: Tensor, threshold: float) -> Tensor:
    r"""Computes the share of entries whose cIoU reaches a threshold, :math:`\frac1n \sum_i [\mathrm{cIoU}_i \ge t]`.

    Args:
        ciou: cIoU of the entries, (..., n), floating, free of NaN.
        threshold: t, in [0, 1].

    Returns:
        Share in [0, 1], (...), dtype of ``ciou``; NaN for n = 0.

    Raises:
        TypeError: if ``ciou`` is not floating or ``threshold`` is not a number.
        ValueError: if ``threshold`` is outside [0, 1], or ``ciou`` has no dimension or contains NaN.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import success_rate
        >>> success_rate(torch.tensor([0.5, 0.2, 0.8, 0.4]), 0.5)
        tensor(0.5000)
    """
    _check_entries("ciou", ciou)
    threshold = check_number("threshold", threshold, least=0, most=1)
    return (ciou >= threshold).to(ciou.dtype).mean(-1)


def area_under_success(rates: Tensor) -> Tensor:
    """Computes the area under success rates at t = 0, 0.05, …, 1 by the trapezoid rule.

    Args:
        rates: success rates at :data:`AUC_THRESHOLDS`, (..., 21), floating.

    Returns:
        Area in [0, 1], (...), dtype of ``rates``.

    Raises:
        TypeError: if ``rates`` is not floating.
        ValueError: if the last dimension is not 21.
    """
    check_floating("rates", rates)
    check_values("rates", rates)
    if rates.ndim < 1 or rates.shape[-1] != len(AUC_THRESHOLDS):
        raise ValueError(f"Expected `rates` to have shape (..., {len(AUC_THRESHOLDS)}), but got {tuple(rates.shape)}")
    return _area_under_success(rates)


def _area_under_success(rates: Tensor) -> Tensor:
    return torch.trapezoid(rates, dx=0.05, dim=-1)


def success_auc(ciou: Tensor) -> Tensor:
    """Computes the AUC of this field: the area under the success rate over t = 0, 0.05, …, 1 by the trapezoid rule.

    Args:
        ciou: cIoU of the entries, (..., n), floating, free of NaN.

    Returns:
        AUC in [0, 1], (...), dtype of ``ciou``; NaN for n = 0.

    Raises:
        TypeError: if ``ciou`` is not floating.
        ValueError: if it has no dimension or contains NaN.

    Reference:
        Chen et al., Localizing Visual Sounds the Hard Way, CVPR 2021, evaluation code.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import success_auc
        >>> success_auc(torch.tensor([0.5, 0.0]))
        tensor(0.2750)
    """
    _check_entries("ciou", ciou)
    return _success_auc(ciou)


def _success_auc(ciou: Tensor) -> Tensor:
    thresholds = torch.tensor(AUC_THRESHOLDS, dtype=ciou.dtype, device=ciou.device)
    return _area_under_success((ciou.unsqueeze(-2) >= thresholds[:, None]).to(ciou.dtype).mean(-1))


def _check_entries(name: str, value: Tensor) -> None:
    check_floating(name, value)
    check_values(name, value)
    if value.ndim < 1:
        raise ValueError(f"Expected `{name}` to have shape (..., n), but got ()")
    check_no_nan(name, value)
