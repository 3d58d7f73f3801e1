"""The sentences that say how a solver ended, why a problem failed, and what to change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslosses._checks import find_non_finite
from sslosses.transport.costs import PointcloudCost
from sslosses.transport.rounding import is_negligible, rounding_error

if TYPE_CHECKING:
    from sslosses.transport.result import TransportResult


def describe(result: TransportResult) -> str:
    """Says how many problems converged. If some did not, it says why and what to change."""
    error, count = result.solution.marginal_error, result.solution.marginal_error.numel()
    if error.is_meta:
        return "Meta tensors have shapes only: nothing was solved."
    if count == 0:
        return "Nothing to solve: the batch is empty."
    failed = ~(error <= result.tol)
    if not bool(failed.any()):
        return (
            f"All {count} problems converged within {int(result.iterations.max())} iterations to a marginal error of "
            f"at most {float(error.max()):.2g} (tol {result.tol:g})."
        )
    # solve() returns NaN for the problems with NaN or inf in an argument, and for no other.
    broken = error.isnan()
    sentences = [_of_broken(result, broken)] if bool(broken.any()) else []
    failed = failed & ~broken
    if not bool(failed.any()):
        return sentences[0]
    if not result.epsilon:
        sentences.append(
            f"{int(failed.sum())} of {count} problems were not solved by {result.solver!r}, which stopped before it "
            "had found the optimum. Their costs may differ by more orders of magnitude than float64 resolves."
        )
        return " ".join(sentences)
    problem = result.problem.detach()
    rounding = rounding_error(problem, problem.largest_cost())
    # Either the tolerance is out of reach, or the solver believed to have reached it.
    stopped = ~is_negligible(rounding, result.tol) & (result.solution.iterations < result.max_iter)
    rounded = failed & ((rounding > result.tol) | stopped)
    if bool(rounded.any()):
        sentences.append(_of_rounded(result, rounded, rounding))
    failed = failed & ~rounded
    if bool(failed.any()):
        sentences.append(
            f"{int(failed.sum())} of {count} problems did not converge with {result.solver!r} within "
            f"{int(result.solution.iterations[failed].max())} iterations: the marginal error is up to "
            f"{float(error[failed].max()):.2g}, tol is {result.tol:g}. Raise max_iter ({result.max_iter}) or epsilon "
            f"({result.epsilon:g}), or accept the error by raising tol."
        )
    return " ".join(sentences)


def _of_broken(result: TransportResult, broken: Tensor) -> str:
    first = int(broken.nonzero()[0, 0])
    problem = result.problem.select(slice(first, first + 1))
    cost = problem.cost
    if isinstance(cost, PointcloudCost):
        points = {name: getattr(cost, name) for name in ("source", "target", "source_positions", "target_positions")}
    else:
        points = {"cost": cost}
    where = find_non_finite(**{name: x.squeeze(0) for name, x in {**points, "a": problem.a, "b": problem.b}.items()})
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(first), result.batch_shape))
    return (
        f"{int(broken.sum())} of {len(broken)} problems hold NaN or inf in the cost or the masses: their values are "
        f"NaN. In {f'problem {list(index)}' if index else 'the problem'}, {where or 'the cost exceeds the dtype'}."
    )


def _of_rounded(result: TransportResult, rounded: Tensor, rounding: Tensor) -> str:
    dtype = result.problem.a.dtype
    # ``rounding`` falls with 1/ε; above half the tolerance, a solver may miss it.
    enough = 2 * result.epsilon * float(rounding[rounded].max()) / result.tol
    remedy = f"an epsilon of {_rounded_up(enough):g} or more, or a larger tol"
    remedy = f"the cost and the masses in float64, {remedy}" if dtype == torch.float32 else remedy
    error = float(result.solution.marginal_error[rounded].max())
    return (
        f"{int(rounded.sum())} of {len(rounded)} problems did not converge with {result.solver!r}: epsilon "
        f"({result.epsilon:g}) is below what {str(dtype).removeprefix('torch.')} resolves of their costs. The marginal "
        f"error is up to {error:.2g} by rounding, tol is {result.tol:g}. More iterations don't help. Pass {remedy}."
    )


def _rounded_up(x: float) -> float:
    """Two digits."""
    if not 0 < x < math.inf:
        return x
    digit = 10.0 ** (math.floor(math.log10(x)) - 1)
    return math.ceil(x / digit) * digit
