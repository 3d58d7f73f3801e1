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
    from sslosses.transport.problem import Problem
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
    problem = result.problem.detach()
    unequal, coarse = _limits_of_masses(problem, error, result.tol)
    for found, describe_cause in ((failed & coarse, _of_coarse), (failed & unequal & ~coarse, _of_unequal)):
        if bool(found.any()):
            sentences.append(describe_cause(result, found))
        failed = failed & ~found
    if not bool(failed.any()):
        return " ".join(sentences)
    if not result.epsilon:
        sentences.append(
            f"{int(failed.sum())} of {count} problems were not solved by {result.solver!r}, which stopped before it "
            "had found the optimum. Their costs may differ by more orders of magnitude than float64 resolves."
        )
        return " ".join(sentences)
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


def _limits_of_masses(problem: Problem, error: Tensor, tol: float) -> tuple[Tensor, Tensor]:
    """Where no plan is within ``tol``: because a and b differ in mass, and because of what the dtype resolves of it."""
    mass = problem.a.sum(-1)
    unit = torch.finfo(mass.dtype).eps * mass
    unequal = (mass - problem.b.sum(-1)).abs() > tol
    # An error of this size is rounding alone. A tolerance of this size is met by chance.
    coarse = (error <= 32 * unit) | (tol < 8 * unit)
    return unequal & error.isfinite(), coarse & error.isfinite()


def _of_unequal(result: TransportResult, found: Tensor) -> str:
    gap = (result.problem.a.sum(-1) - result.problem.b.sum(-1))[found].abs().max()
    return (
        f"{int(found.sum())} of {len(found)} problems did not converge with {result.solver!r}: the sums of a and b "
        f"differ by up to {float(gap):.2g}, so no plan has a smaller marginal error, and tol is {result.tol:g}. More "
        "iterations don't help. Divide a and b by their sums, or pass a larger tol."
    )


def _of_coarse(result: TransportResult, found: Tensor) -> str:
    dtype, mass = result.problem.a.dtype, float(result.problem.a.sum(-1)[found].max())
    name = str(dtype).removeprefix("torch.")
    remedies = [f"a tol of {_rounded_up(32 * torch.finfo(dtype).eps * mass):g} or more"]
    if mass > 2:
        remedies.insert(0, "masses that sum to 1")
    if dtype == torch.float32:
        remedies.insert(0, "the cost and the masses in float64")
    return (
        f"{int(found.sum())} of {len(found)} problems did not converge with {result.solver!r}: tol ({result.tol:g}) is "
        f"below what {name} resolves of a mass of {mass:.2g}. The marginal error is up to "
        f"{float(result.solution.marginal_error[found].max()):.2g}. More iterations don't help. Pass "
        f"{', '.join(remedies[:-1])}{', or ' if remedies[:-1] else ''}{remedies[-1]}."
    )


def _of_rounded(result: TransportResult, rounded: Tensor, rounding: Tensor) -> str:
    dtype = result.problem.a.dtype
    # ``rounding`` falls with 1/ε. Above a quarter of the tolerance, a plan of few points may miss it.
    enough = 4 * result.epsilon * float(rounding[rounded].max()) / result.tol
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
