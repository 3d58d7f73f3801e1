"""Contestants of ``transport.py``: the solvers of the library and those of other packages.

Each computes ⟨P, C⟩ per problem, (P,), from :class:`problems.Pairs`, differentiable with respect to source and target.
``iterations`` limits the updates of both potentials. ``tol`` is the L1 error of both marginals at which it may stop; 0
means a fixed number of iterations. A contestant that needs the cost matrix builds it itself.
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
    """A way to solve the problems.

    Attributes:
        answer: (pairs, ε, iterations, tol) → (P,).
        gradient: "fixed point" (exact at the fixed point), "unrolled" (exact for the last iterate) or "envelope" (with
            the plan held fixed, biased).
        updates: "alternating", "averaged" (f and g at once, about three times as many iterations), "annealed"
            (averaged, and only the last iteration is at ε) or "none" (ε = 0).
        tolerance: whether it can stop at a tolerance.
        loops: whether it solves the problems one by one, so that its time is proportional to their number.
        missing: why it can't run here, or empty.
    """

    answer: Answer
    gradient: str
    updates: str = "alternating"
    tolerance: bool = False
    loops: bool = False
    missing: str = ""


class SinkhornDistance(nn.Module):
    """The log-domain module of many repositories: updates of a (P, N, M) cost; the gradient goes through them.

    ``half_step`` adds a last update of the rows, with which the library's solvers end.
    """

    def __init__(self, epsilon: float, iterations: int, *, half_step: bool = False) -> None:
        super().__init__()
        self.epsilon, self.iterations, self.half_step = epsilon, iterations, half_step

    def forward(self, cost: Tensor) -> Tensor:
        mu = cost.new_full(cost.shape[:2], 1 / cost.shape[1])
        nu = cost.new_full((cost.shape[0], cost.shape[2]), 1 / cost.shape[2])
        u, v = torch.zeros_like(mu), torch.zeros_like(nu)
        for iteration in range(self.iterations + self.half_step):
            u = self.epsilon * (torch.log(mu + 1e-8) - torch.logsumexp(self.modified(cost, u, v), dim=-1)) + u
            if iteration < self.iterations:
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
    # POT measures the error in L2, and the L1 norm of a vector is at most √M times its L2 norm.
    stop = tol / math.sqrt(len(b))
    with warnings.catch_warnings():
        # On an underflow POT warns and returns the previous iterate.
        warnings.filterwarnings("error", "Warning: numerical errors")
        return torch.stack(
            [ot.sinkhorn2(a, b, c, epsilon, method=method, numItermax=iterations, stopThr=stop) for c in cost]
        )


def pot_solve_batch(pairs: Pairs, epsilon: float, iterations: int, tol: float, *, grad: str = "autodiff") -> Tensor:
    import ot

    cost = pairs.cost.dense()
    stop = tol / math.sqrt(cost.shape[1])
    return ot.solve_batch(cost, epsilon, max_iter=iterations, tol=stop, grad=grad).value_linear


def _samples_loss(epsilon: float, iterations: int, cost: object, backend: str) -> nn.Module:
    from geomloss import SamplesLoss

    # GeomLoss derives its number of iterations from the path of ε. Equal ratios from 1.01 ε down to ε give that number
    # of iterations nearly at ε. Its first and last iteration count too.
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


# The potentials of GeomLoss are meant to be differentiated in ⟨f, a⟩ + ⟨g, b⟩. In the plan, a constant added to the
# cost would count twice, so the plan is held fixed.
@torch.no_grad()
def _geomloss_potentials(
    pairs: Pairs, epsilon: float, iterations: int, cost: object, backend: str
) -> tuple[Tensor, Tensor]:
    loss = _samples_loss(epsilon, iterations, cost, backend)
    x, y = _points(pairs.source, pairs.positions), _points(pairs.target, pairs.positions)
    if backend == "tensorized":
        potentials = loss(x, y)
    else:
        # The online backend takes no batch with a custom cost.
        per_problem = [loss(source, target) for source, target in zip(x, y, strict=True)]
        potentials = tuple(torch.cat(parts) for parts in zip(*per_problem, strict=True))
    return potentials


def geomloss_tensorized(pairs: Pairs, epsilon: float, iterations: int, _: float) -> Tensor:
    f, g = _geomloss_potentials(pairs, epsilon, iterations, _ground, "tensorized")
    # GeomLoss switches the gradient mode on; leaving `no_grad` above has restored it.
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
    # `solve` needs a tolerance above 0.
    options = {"epsilon": epsilon, "solver": solver, "max_iter": iterations, "tol": tol or 1e-30}
    return solve(pairs.cost, **options, gradient=gradient).value()


def _missing(package: str, attribute: str | None = None) -> str:
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if attribute and importlib.util.find_spec(f"{package}.{attribute}") is None:
        return f"the installed {package} has no {package}.{attribute}"
    return ""


def contestants() -> dict[str, Contestant]:
    """Contestants by name, the solvers of the library first; ``missing`` says why one can't run here."""
    solvers: dict[str, Contestant] = {}
    status = available()
    for name in SOLVERS:
        if name == "auto":
            continue
        averaged = name.startswith("geomloss")
        solvers[name] = Contestant(
            partial(_library, solver=name),
            "fixed point",
            "none" if name == "exact" else "averaged" if averaged else "alternating",
            tolerance=name != "exact",
            loops=name in ("pot", "exact", "geomloss-keops"),
            missing="" if status[name] else str(status[name]),
        )
    no_pot, no_geomloss = _missing("ot"), _missing("geomloss")
    no_keops = no_geomloss or _missing("pykeops") or solvers["geomloss-keops"].missing
    return solvers | {
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
