"""Contestants of ``transport.py``: the library's solvers and the ways in which others solve the same problems.

Each answers ⟨P, C⟩ of every problem, (P,), from :class:`problems.Pairs`, differentiable with respect to source and
target. ``iterations`` bounds its updates of both potentials, and at ``tol`` (L1 error of both marginals) it may stop;
``tol`` is 0 where the iterations are to be fixed. One that needs the cost's matrix builds it inside.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from problems import Pairs
from torch import Tensor, nn

from sslosses.transport import SOLVERS, available, solve

Answer = Callable[[Pairs, float, int, float], Tensor]


class Contestant(NamedTuple):
    """A way of solving.

    Attributes:
        answer: (pairs, ε, iterations, tol) → (P,).
        gradient: what its derivative is: "fixed point" (exact there), "unrolled" (exact for its last iterate)
            or "envelope" (the plan taken for fixed, biased).
        updates: "alternating", "averaged" (f and g at once, about three times the iterations), "annealed" (averaged,
            and ε itself is reached at the last iteration only) or "none" (ε = 0).
        tolerance: whether it can stop at a tolerance.
        loops: whether it solves one problem after the other, so that its time is proportional to their number.
        missing: why it can't run here, or empty.
    """

    answer: Answer
    gradient: str
    updates: str = "alternating"
    tolerance: bool = False
    loops: bool = False
    missing: str = ""


class SinkhornDistance(nn.Module):
    """The log-domain module of many repositories: updates on a (P, N, M) cost, differentiated through."""

    def __init__(self, epsilon: float, iterations: int) -> None:
        super().__init__()
        self.epsilon, self.iterations = epsilon, iterations

    def forward(self, cost: Tensor) -> Tensor:
        mu = cost.new_full(cost.shape[:2], 1 / cost.shape[1])
        nu = cost.new_full((cost.shape[0], cost.shape[2]), 1 / cost.shape[2])
        u, v = torch.zeros_like(mu), torch.zeros_like(nu)
        for _ in range(self.iterations):
            u = self.epsilon * (torch.log(mu + 1e-8) - torch.logsumexp(self.modified(cost, u, v), dim=-1)) + u
            rows = self.modified(cost, u, v).transpose(-2, -1)
            v = self.epsilon * (torch.log(nu + 1e-8) - torch.logsumexp(rows, dim=-1)) + v
        plan = torch.exp(self.modified(cost, u, v))
        return torch.sum(plan * cost, dim=(-2, -1))

    def modified(self, cost: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (-cost + u.unsqueeze(-1) + v.unsqueeze(-2)) / self.epsilon


def textbook_log(pairs: Pairs, epsilon: float, iterations: int, _: float) -> Tensor:
    return SinkhornDistance(epsilon, iterations)(pairs.cost.dense())


def textbook_kernel(pairs: Pairs, epsilon: float, iterations: int, _: float) -> Tensor:
    cost = pairs.cost.dense()
    kernel = torch.exp(-cost / epsilon)
    a = kernel.new_full((*kernel.shape[:2], 1), 1 / kernel.shape[1])
    b = kernel.new_full((kernel.shape[0], kernel.shape[2], 1), 1 / kernel.shape[2])
    v = torch.ones_like(b)
    for _ in range(iterations):
        u = a / torch.bmm(kernel, v)
        v = b / torch.bmm(kernel.mT, u)
    return (u * kernel * v.mT * cost).sum((-2, -1))


def pot_sinkhorn2(pairs: Pairs, epsilon: float, iterations: int, tol: float, *, method: str = "sinkhorn") -> Tensor:
    import ot

    cost = pairs.cost.dense()
    a = cost.new_full(cost.shape[1:2], 1 / cost.shape[1])
    b = cost.new_full(cost.shape[2:], 1 / cost.shape[2])
    # POT measures in L2, and a vector's L1 norm is at most √M times its L2 norm.
    stop = tol / math.sqrt(len(b))
    with warnings.catch_warnings():
        # On an underflow POT warns and goes on with the iterate before it.
        warnings.filterwarnings("error", "Warning: numerical errors")
        return torch.stack(
            [ot.sinkhorn2(a, b, each, epsilon, method=method, numItermax=iterations, stopThr=stop) for each in cost]
        )


def pot_solve_batch(pairs: Pairs, epsilon: float, iterations: int, tol: float, *, grad: str = "autodiff") -> Tensor:
    import ot

    cost = pairs.cost.dense()
    stop = tol / math.sqrt(cost.shape[1])
    return ot.solve_batch(cost, epsilon, max_iter=iterations, tol=stop, grad=grad).value_linear


def _samples_loss(epsilon: float, iterations: int, cost: object, backend: str) -> nn.Module:
    from geomloss import SamplesLoss

    # GeomLoss takes its number of iterations from the way down to ε. From 1.01 ε by equal ratios is that number of
    # iterations at ε in all but name. Its own two, one before and one after, count.
    return SamplesLoss(
        "sinkhorn",
        p=1,
        blur=epsilon,
        diameter=1.01 * epsilon,
        scaling=1.01 ** (-1 / max(iterations - 4, 1)),
        cost=cost,
        debias=False,
        potentials=True,
        backend=backend,
    )


def _points(values: Tensor, positions: Tensor) -> Tensor:
    return torch.cat([values.unsqueeze(-1), positions.expand(len(values), -1, -1)], dim=-1)


def _ground(x: Tensor, y: Tensor) -> Tensor:
    values = (x[..., :, None, 0] - y[..., None, :, 0]).abs()
    return values + torch.linalg.vector_norm(x[..., :, None, 1:] - y[..., None, :, 1:], dim=-1)


# GeomLoss makes its potentials to be differentiated in ⟨f, a⟩ + ⟨g, b⟩. In the plan they count a constant added to the
# cost twice, so the plan is taken for fixed.
@torch.no_grad()
def _geomloss_potentials(
    pairs: Pairs, epsilon: float, iterations: int, cost: object, backend: str
) -> tuple[Tensor, Tensor]:
    loss = _samples_loss(epsilon, iterations, cost, backend)
    x, y = _points(pairs.source, pairs.positions), _points(pairs.target, pairs.positions)
    if backend == "tensorized":
        found = loss(x, y)
    else:
        # The online backend takes no batch with a cost of one's own.
        each = [loss(one, other) for one, other in zip(x, y, strict=True)]
        found = tuple(torch.cat(potentials) for potentials in zip(*each, strict=True))
    return found


def geomloss_tensorized(pairs: Pairs, epsilon: float, iterations: int, _: float) -> Tensor:
    f, g = _geomloss_potentials(pairs, epsilon, iterations, _ground, "tensorized")
    # GeomLoss switches the gradient mode on inside; leaving `no_grad` above restored it.
    cost = pairs.cost.dense()
    plan = ((f.unsqueeze(-1) + g.unsqueeze(-2) - cost.detach()) / epsilon).exp() / cost[0].numel()
    return (plan * cost).sum((-2, -1))


def geomloss_online(pairs: Pairs, epsilon: float, iterations: int, _: float) -> Tensor:
    from pykeops.torch import LazyTensor

    formula = "(Abs(Extract(X,0,1) - Extract(Y,0,1)) + Norm2(Extract(X,1,2) - Extract(Y,1,2)))"
    f, g = _geomloss_potentials(pairs, epsilon, iterations, formula, "online")

    def rows(value: Tensor) -> LazyTensor:
        return LazyTensor(value.reshape(*value.shape[:2], 1, -1).contiguous())

    def columns(value: Tensor) -> LazyTensor:
        return LazyTensor(value.reshape(value.shape[0], 1, value.shape[1], -1).contiguous())

    positions = pairs.positions[None]
    distances = ((rows(positions) - columns(positions)) ** 2).sum(-1).sqrt()

    def cost(source: Tensor, target: Tensor) -> LazyTensor:
        return (rows(source) - columns(target)).abs() + distances

    plan = ((rows(f) + columns(g) - cost(pairs.source.detach(), pairs.target.detach())) / epsilon).exp()
    total: Tensor = (plan * cost(pairs.source, pairs.target)).sum(2)
    return total[..., 0].mean(-1) / f.shape[1]


def geomloss_solve_batch(pairs: Pairs, epsilon: float, iterations: int, _: float) -> Tensor:
    from geomloss import ot

    cost = pairs.cost.dense()
    with torch.no_grad():
        plan = ot.solve_batch(cost, reg=epsilon, max_iter=iterations).plan
    return (plan * cost).sum((-2, -1))


def _library(
    pairs: Pairs, epsilon: float, iterations: int, tol: float, *, solver: str, gradient: str = "exact"
) -> Tensor:
    if solver == "exact":
        epsilon = 0.0
    # `solve` wants a tolerance above 0.
    options = {"epsilon": epsilon, "solver": solver, "max_iter": iterations, "tol": tol or 1e-30}
    return solve(pairs.cost, **options, gradient=gradient).value()


def _missing(package: str, attribute: str | None = None) -> str:
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if attribute and importlib.util.find_spec(f"{package}.{attribute}") is None:
        return f"the installed {package} has no {package}.{attribute}"
    return ""


def contestants() -> dict[str, Contestant]:
    """Name → contestant, the library's solvers first; those that can't run here say why."""
    found: dict[str, Contestant] = {}
    status = available()
    for name in SOLVERS:
        if name == "auto":
            continue
        averaged = name.startswith("geomloss")
        found[name] = Contestant(
            partial(_library, solver=name),
            "fixed point",
            "none" if name == "exact" else "averaged" if averaged else "alternating",
            tolerance=name != "exact",
            loops=name in ("pot", "exact", "geomloss-keops"),
            missing="" if status[name] else str(status[name]),
        )
    no_pot, no_geomloss = _missing("ot"), _missing("geomloss")
    no_keops = no_geomloss or _missing("pykeops") or found["geomloss-keops"].missing
    return found | {
        "dense, unrolled": Contestant(
            partial(_library, solver="dense", gradient="unrolled"), "unrolled", tolerance=True
        ),
        "ot.sinkhorn2": Contestant(pot_sinkhorn2, "unrolled", tolerance=True, loops=True, missing=no_pot),
        "ot.sinkhorn2, log": Contestant(
            partial(pot_sinkhorn2, method="sinkhorn_log"), "unrolled", tolerance=True, loops=True, missing=no_pot
        ),
        "ot.solve_batch, autodiff": Contestant(pot_solve_batch, "unrolled", tolerance=True, missing=no_pot),
        "ot.solve_batch, detached": Contestant(
            partial(pot_solve_batch, grad="envelope"), "envelope", tolerance=True, missing=no_pot
        ),
        "SamplesLoss, tensorized": Contestant(geomloss_tensorized, "envelope", "averaged", missing=no_geomloss),
        "SamplesLoss, online": Contestant(geomloss_online, "envelope", "averaged", loops=True, missing=no_keops),
        "geomloss.ot.solve_batch": Contestant(
            geomloss_solve_batch, "envelope", "annealed", missing=no_geomloss or _missing("geomloss", "ot")
        ),
        "textbook, log domain": Contestant(textbook_log, "unrolled"),
        "textbook, bmm": Contestant(textbook_kernel, "unrolled"),
    }
