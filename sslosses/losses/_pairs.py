"""Object region isolation (ORI), Eq. 7 and Algorithm 1, and a variant that constant maps do not satisfy."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslosses._checks import check_count, check_flag, check_number, check_option
from sslosses._torch import at_least_float32, autocast_off, check_no_transform, has_values
from sslosses.losses._inputs import check_references
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.similarity import similarity_map
from sslosses.transport import ConvergenceWarning, check_solver, grid_positions, lazy_grid_cost, pointcloud_cost, solve

TARGETS = ("complement", "separate")
FORMULATIONS = ("pointcloud", "distribution")
KINDS = ("transport", "regularized", "divergence")
GRADIENTS = ("exact", "envelope", "unrolled")
NORMALIZATIONS = ("softmax", "relu", "shift")


class RegionIsolationTerms(NamedTuple):
    """Terms of the ORI loss.

    Attributes:
        loss: scalar, or (B,) with ``reduction="none"``.
        distances: (B, K + 1, K + 1), at [n, m] D_W(S_n, 1 - S_m), or with ``target="separate"`` D_W(p_n, p_m), the
            background last; 0 where a padded source takes part and on the diagonal.
        converged: scalar bool, whether the solver reached its tolerance on every pair that counts.
        marginal_error: scalar without gradient, the largest marginal error of these pairs.
        potentials: f and g, (B, pairs, H·W) without gradient, of the pairs n < m (``"complement"`` of
            ``"distribution"``: n ≠ m) in the order of :func:`itertools.combinations` (``permutations``); 0 where a
            padded source takes part. As ``init`` of the next step on the same samples they save iterations.
    """

    loss: Tensor
    distances: Tensor
    converged: Tensor
    marginal_error: Tensor
    potentials: tuple[Tensor, Tensor]


class _Options(NamedTuple):
    target: str
    margin: float
    temperature: float
    solver: Any
    epsilon: float
    max_iter: int
    tol: float
    formulation: str
    kind: str
    gradient: str
    normalize: str
    value_weight: float
    position_weight: float
    reduction: str
    scaling: float | None

    def check(self, with_init: bool = False) -> None:
        check_number("margin", self.margin, above=0)
        check_number("temperature", self.temperature, above=0)
        check_number("epsilon", self.epsilon, least=0)
        check_count("max_iter", self.max_iter)
        check_number("tol", self.tol, above=0)
        check_option("formulation", self.formulation, FORMULATIONS)
        check_option("kind", self.kind, KINDS)
        check_option("gradient", self.gradient, GRADIENTS)
        check_option("normalize", self.normalize, NORMALIZATIONS)
        needed = {"formulation": "distribution", "normalize": "softmax"} if self.target == "separate" else {}
        for name, word in needed.items():
            if (given := getattr(self, name)) != word:
                raise ValueError(
                    f"Expected `{name}` to be {word!r} with target='separate', which transports softmaxes of the maps "
                    f"over the grid, but got {given!r}"
                )
        check_number("value_weight", self.value_weight, least=0)
        check_number("position_weight", self.position_weight, least=0)
        check_option("reduction", self.reduction, REDUCTIONS)
        check_solver(
            self.solver, epsilon=self.epsilon, gradient=self.gradient, scaling=self.scaling, with_init=with_init
        )


def object_region_isolation_loss(
    visual: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None = None,
    *,
    target: str = "complement",
    margin: float = 0.2,
    temperature: float = 0.1,
    solver: Any = "auto",
    epsilon: float = 0.05,
    max_iter: int = 100,
    tol: float = 1e-3,
    formulation: str | None = None,
    kind: str | None = None,
    gradient: str = "exact",
    normalize: str = "softmax",
    value_weight: float = 1.0,
    position_weight: float = 1.0,
    reduction: str = "mean",
    scaling: float | None = None,
    init: tuple[Tensor, Tensor] | None = None,
) -> RegionIsolationTerms:
    r"""Push the similarity maps of a sample's references apart.

    ``target="complement"``, the paper's loss: each map towards the complement of every other,

    .. math::
        \mathcal{L}_{ori} = \sum_{n \ne m} D_W(S_n, 1 - S_m), \quad S = \mathrm{Sim}(F_v, [F_r^p, l_r^n])

    over the K real foreground references and the background reference. What D_W compares, the paper leaves open:

    - ``formulation="pointcloud"`` (the supplement's description): every pixel is a point of mass 1/N, and

      .. math::
          C[x, y] = w_v |S_n(x) - (1 - S_m(y))| + w_s \|\mathrm{pos}(x) - \mathrm{pos}(y)\|_2

      with positions = pixel centers / max(H, W). The distances of (n, m) and (m, n) are equal here: half are solved,
      all are counted.
    - ``formulation="distribution"``: each map, made non-negative and normalized to mass 1, is a measure on the grid,
      and :math:`C[x, y] = \|\mathrm{pos}(x) - \mathrm{pos}(y)\|_2`. All ordered pairs are solved.

    As printed, constant maps S ≡ 1/2 satisfy every pair: alone the loss does not localize, it is a regularizer beside
    OCA. It does not see the audio.

    ``target="separate"``, this library's: every pair of maps at least a margin apart on the grid,

    .. math::
        \mathcal{L} = \sum_{n < m} \max(0, \mathrm{margin} - D_W(p_n, p_m)), \quad
        p = \mathrm{softmax}(S / \mathrm{temperature})

    over the pixels, with the cost of ``"distribution"``. Equal maps, constant ones among them, cost margin a pair, the
    most there is. Their gradient is 0 up to the solver's tolerance, as a maximum's is: any difference between the maps
    grows from there. It does not see the audio either, nor where the objects are: only that the maps lie in different
    places.

    Args:
        visual: (B, C, H, W), floating, visual features F_v.
        foreground: (B, K, C), floating, one reference a caption of a sounding object.
        background: (B, C), floating, reference of the background caption.
        source_mask: (B, K) bool, which of the K references are real; all if None. A sample without any has no pair
            and is left out of the reduction.
        target: ``"complement"`` or ``"separate"``.
        margin: of ``"separate"``, in the units of the positions, above 0. Three single pixels of a square grid can be
            0.95 apart; three maps that cover objects and the rest of the picture about 0.3.
        temperature: of the softmax of ``"separate"``, above 0.
        solver: a name that :func:`sslosses.transport.available` lists, or an object with the same protocol.
        epsilon: ε of the entropic problem, in the units of the cost; 0 for the exact solver and only there.
        max_iter: bound on the Sinkhorn iterations.
        tol: L1 marginal error at which they stop.
        formulation: ``"pointcloud"`` or ``"distribution"``. None: ``"pointcloud"`` for ``"complement"``,
            ``"distribution"``, the only one, for ``"separate"``.
        kind: ``"transport"``, Cuturi's Sinkhorn distance ⟨P, C⟩; ``"regularized"``, the minimum itself;
            ``"divergence"``, the debiased Sinkhorn divergence. None: ``"transport"``, but ``"divergence"`` for
            ``"separate"`` with ε > 0, as the other two are above 0 between equal maps and reach the margin there if ε
            is large.
        gradient: ``"exact"``, ``"envelope"`` (exact for ``kind="regularized"``, an approximation otherwise) or
            ``"unrolled"``; see :mod:`sslosses.transport`.
        normalize: how ``"distribution"`` makes measures of maps: ``"softmax"`` over the pixels, ``"relu"`` or
            ``"shift"`` (minus the least value), both divided by the sum, uniform where that is 0. ``"separate"`` takes
            ``"softmax"`` only.
        value_weight: w_v of ``"pointcloud"``, at least 0.
        position_weight: w_s of ``"pointcloud"``, at least 0.
        reduction: ``"mean"`` or ``"sum"`` (Eq. 7 as printed) over the samples with a real source, or ``"none"``:
            (B,), 0 for the others.
        scaling: ratio of ε-scaling, see :func:`sslosses.transport.solve`; it saves iterations for small ε.
        init: ``potentials`` of an earlier call to start from; what they were computed from may differ, not their shape.
            The self problems of ``kind="divergence"`` start afresh.

    Returns:
        :class:`RegionIsolationTerms`; float64 if an input is, else float32. With no pair in the batch the loss is a
        zero that keeps its graph. A sample with NaN or inf is NaN, and did not converge. Whether the solver converged
        is in the result, nothing warns.

    Raises:
        TypeError: if an input has the wrong type or dtype, or an option has the wrong type.
        ValueError: if shapes or devices do not fit, or an option is out of range, unknown or at odds with ``target``.

    Source: Um et al., "Object-aware Sound Source Localization via Audio-Visual Scene Understanding", Eq. 7, Algorithm 1
    and supplement 6.

    Example:
        >>> visual = torch.eye(2).reshape(1, 2, 1, 2)  # the left pixel shows (1, 0), the right one (0, 1)
        >>> left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> apart = object_region_isolation_loss(visual, left[:, None], right, epsilon=0.02)
        >>> print(f"{apart.loss:.3f}")  # S_1 = 1 - S_2: each map is the other's complement
        0.000
        >>> object_region_isolation_loss(visual, left[:, None], left, epsilon=0.02).distances
        tensor([[[0.0000, 0.5000],
                 [0.5000, 0.0000]]])
        >>> for other in (left, right):  # equal maps, and maps in different places
        ...     print(object_region_isolation_loss(visual, left[:, None], other, target="separate").loss)
        tensor(0.2000)
        tensor(0.)
    """
    formulation, kind = _defaults(target, formulation, kind, epsilon)
    options = _Options(
        target,
        margin,
        temperature,
        solver,
        epsilon,
        max_iter,
        tol,
        formulation,
        kind,
        gradient,
        normalize,
        value_weight,
        position_weight,
        reduction,
        scaling,
    )
    options.check(with_init=init is not None)
    real = check_references(visual, foreground, background, source_mask)
    for name, given in (
        ("visual", visual),
        ("foreground", foreground),
        ("background", background),
        ("source_mask", real),
    ):
        check_no_transform(name, given, differentiable=gradient == "unrolled")
    visual, foreground, background = at_least_float32(visual, foreground, background)
    with autocast_off(visual):
        # Whatever stands in a padded reference, NaN included, stays out of the gradient.
        background = background.where(real.any(1)[:, None], 0)
        references = torch.cat([foreground.where(real[..., None], 0), background[:, None]], dim=1)
        maps = similarity_map(visual, references)
        distances, converged, error, potentials = _all_pairs(maps, real, init, options)
        loss = reduce_samples(_sum_of_pairs(distances, real, options), real.any(1), reduction)
    return RegionIsolationTerms(loss, distances, converged, error, potentials)


def _defaults(target: str, formulation: str | None, value: str | None, epsilon: float) -> tuple[str, str]:
    """``formulation`` and ``value``, where None is what the target needs."""
    check_option("target", target, TARGETS)
    check_number("epsilon", epsilon, least=0)
    separate = target == "separate"
    # Without regularization there is nothing to debias, and the two self problems would be solved for a 0.
    best = "divergence" if separate and epsilon > 0 else "transport"
    default = "distribution" if separate else "pointcloud"
    return default if formulation is None else formulation, best if value is None else value


def _symmetric(target: str, formulation: str) -> bool:
    """Whether the distances of (n, m) and (m, n) are equal."""
    return target == "separate" or formulation == "pointcloud"


def _sum_of_pairs(distances: Tensor, real: Tensor, options: _Options) -> Tensor:
    """Of distances (B, S, S): their sum, or the hinge of each pair of real references summed, (B,)."""
    if options.target == "complement":
        return distances.sum((1, 2))
    present = _present(real)
    pairs = (present[:, :, None] & present[:, None]).triu(1)
    return (options.margin - distances).relu().where(pairs, 0).sum((1, 2))


def _present(real: Tensor) -> Tensor:
    """(B, K) of the sources → (B, K + 1), with the background, which always is."""
    return torch.cat([real, real.new_ones(real.shape[0], 1)], dim=1)


def _all_pairs(
    maps: Tensor, real: Tensor, init: tuple[Tensor, Tensor] | None, options: _Options
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Of maps (B, S, H, W): the distances as (B, S, S), the other three fields of the terms."""
    batch, count, height, width = maps.shape
    symmetric = _symmetric(options.target, options.formulation)
    first, second, column = _pairs(count, symmetric, maps.device)
    pairs = first.shape[0]
    present = _present(real)
    counted = (present[:, first] & present[:, second]).flatten()
    flat = maps.flatten(2)
    source, target = flat[:, first].flatten(0, 1), flat[:, second].flatten(0, 1)
    if options.target == "complement":
        target = 1 - target
    else:
        source, target = source / options.temperature, target / options.temperature
    shape = (batch, pairs, height * width)
    starts = _starts(init, shape)
    # Eagerly only the pairs that count are solved; a compiled graph has no sizes that depend on data.
    rows = counted.nonzero()[:, 0] if has_values(maps) else None
    if rows is not None:
        source, target = source[rows], target[rows]
        starts = starts and (starts[0][rows], starts[1][rows])
    solved = _transport(source, target, height, width, starts, options)
    f, g = solved.potentials
    if rows is not None:
        values = maps.new_zeros(batch * pairs).index_put((rows,), solved.values)
        converged, error = solved.converged.all(), solved.errors
        f, g = (flat.new_zeros(batch * pairs, x.shape[1]).index_put((rows,), x) for x in (f, g))
    else:
        values = solved.values.where(counted, 0)
        converged, error = (solved.converged | ~counted).all(), solved.errors.where(counted, 0)
        f, g = (x.where(counted[:, None], 0) for x in (f, g))

    # An extra column of zeros serves the diagonal.
    distances = torch.cat([values.view(batch, pairs), values.new_zeros(batch, 1)], dim=1)[:, column]
    largest = torch.cat([error.detach(), error.new_zeros(1)]).max()
    return distances, converged, largest, (f.view(shape), g.view(shape))


def _pairs(count: int, symmetric: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs n < m, or n ≠ m, of ``count`` maps in lexical order, as tensors that a graph of any count can hold.

    Returns:
        n and m of each pair, and the place of every (n, m) among them, (count, count); the diagonal's is their number.
    """
    index = torch.arange(count, device=device)
    n, m = index[:, None], index
    if symmetric:
        begin = index * (2 * count - 1 - index) // 2  # of the pairs with n as the first
        pair = torch.arange(count * (count - 1) // 2, device=device)
        first = (pair[:, None] >= begin[1:]).sum(1)
        second = pair - begin[first] + first + 1
        low, high = torch.minimum(n, m), torch.maximum(n, m)
        column = begin[low] + high - low - 1
    else:
        pair = torch.arange(count * (count - 1), device=device)
        first, rest = pair // (count - 1), pair % (count - 1)
        second = rest + (rest >= first)
        column = n * (count - 1) + m - (m > n).long()
    return first, second, column.where(n != m, pair.shape[0])


def _starts(init: tuple[Tensor, Tensor] | None, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor] | None:
    if init is None:
        return None
    f, g = init
    if f.shape != shape or g.shape != shape:
        raise ValueError(
            f"Expected `init` to hold potentials of shape {shape}, but got {tuple(f.shape)} and {tuple(g.shape)}"
        )
    return f.flatten(0, 1), g.flatten(0, 1)


class _Solved(NamedTuple):
    values: Tensor
    converged: Tensor
    errors: Tensor
    potentials: tuple[Tensor, Tensor]


def _transport(
    source: Tensor,
    target: Tensor,
    height: int,
    width: int,
    init: tuple[Tensor, Tensor] | None,
    options: _Options,
) -> _Solved:
    """Distances (P,) between the rows of source and target, both (P, height * width)."""
    if source.shape[0] == 0:
        return _Solved(source.sum(1), source.sum(1) >= 0, source.detach().sum(1), (source.detach(), target.detach()))
    weights: tuple[Tensor | None, Tensor | None]
    if options.formulation == "pointcloud":
        positions = grid_positions(height, width, dtype=source.dtype, device=source.device)
        cost: Any = pointcloud_cost(source, target, positions, positions, options.value_weight, options.position_weight)
        weights, self_costs = (None, None), cost.self_costs()
    else:
        cost = lazy_grid_cost(height, width, dtype=source.dtype, device=source.device)
        weights, self_costs = (_measure(source, options.normalize), _measure(target, options.normalize)), (cost, cost)
    result = solve(
        cost,
        *weights,
        epsilon=options.epsilon,
        solver=options.solver,
        max_iter=options.max_iter,
        tol=options.tol,
        gradient=options.gradient,
        self_costs=self_costs if options.kind == "divergence" else None,
        init=init,
        scaling=options.scaling,
    )
    converged, errors = result.converged, result.marginal_error
    for own in result.self_results or ():
        converged, errors = converged & own.converged, errors.maximum(own.marginal_error)
    f, g = result.potentials
    value = result.value(kind=options.kind, gradient=options.gradient)
    return _Solved(value, converged, errors, (f.detach(), g.detach()))


def _measure(values: Tensor, normalize: str) -> Tensor:
    """Make values (P, N) non-negative with sum 1."""
    if normalize == "softmax":
        return values.softmax(-1)
    values = values.relu() if normalize == "relu" else values - values.amin(-1, keepdim=True)
    mass = values.sum(-1, keepdim=True)
    empty = mass == 0
    return (values / mass.masked_fill(empty, 1)).masked_fill(empty, 1 / values.shape[-1])


class ObjectRegionIsolationLoss(nn.Module):
    """Module over :func:`object_region_isolation_loss`; the arguments are its options. Also named ``ORILoss``.

    Warns once per instance if the solver did not converge (not inside ``torch.compile``). With ``warm_start`` each call
    starts from the potentials of the last one of the same shape: for training that shows the same samples in the same
    order, such as whole batches or repeated steps on one. They are no part of the state dict.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range, unknown or at odds with ``target``.

    Example:
        >>> import torch
        >>> ori = ObjectRegionIsolationLoss(epsilon=0.02)
        >>> visual, left = torch.eye(2).reshape(1, 2, 1, 2), torch.tensor([[1.0, 0.0]])
        >>> print(f"{ori(visual, left[:, None], left):.4f}")
        1.0000
    """

    def __init__(
        self,
        *,
        target: str = "complement",
        margin: float = 0.2,
        temperature: float = 0.1,
        solver: Any = "auto",
        epsilon: float = 0.05,
        max_iter: int = 100,
        tol: float = 1e-3,
        formulation: str | None = None,
        kind: str | None = None,
        gradient: str = "exact",
        normalize: str = "softmax",
        value_weight: float = 1.0,
        position_weight: float = 1.0,
        reduction: str = "mean",
        scaling: float | None = None,
        warm_start: bool = False,
    ) -> None:
        """Check and keep the options."""
        super().__init__()
        check_flag("warm_start", warm_start)
        if warm_start and scaling is not None:
            raise ValueError("Expected `warm_start` or `scaling`, which makes its own start, but got both")
        formulation, kind = _defaults(target, formulation, kind, epsilon)
        _Options(
            target,
            margin,
            temperature,
            solver,
            epsilon,
            max_iter,
            tol,
            formulation,
            kind,
            gradient,
            normalize,
            value_weight,
            position_weight,
            reduction,
            scaling,
        ).check(with_init=warm_start)
        self.target = target
        self.margin = margin
        self.temperature = temperature
        self.solver = solver
        self.epsilon = epsilon
        self.max_iter = max_iter
        self.tol = tol
        self.formulation = formulation
        self.kind = kind
        self.gradient = gradient
        self.normalize = normalize
        self.value_weight = value_weight
        self.position_weight = position_weight
        self.reduction = reduction
        self.scaling = scaling
        self.warm_start = warm_start
        self._potentials: tuple[Tensor, Tensor] | None = None
        self._warned = False

    def forward(
        self, visual: Tensor, foreground: Tensor, background: Tensor, source_mask: Tensor | None = None
    ) -> Tensor:
        """The ORI loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        terms = object_region_isolation_loss(
            visual,
            foreground,
            background,
            source_mask,
            target=self.target,
            margin=self.margin,
            temperature=self.temperature,
            solver=self.solver,
            epsilon=self.epsilon,
            max_iter=self.max_iter,
            tol=self.tol,
            formulation=self.formulation,
            kind=self.kind,
            gradient=self.gradient,
            normalize=self.normalize,
            value_weight=self.value_weight,
            position_weight=self.position_weight,
            reduction=self.reduction,
            scaling=self.scaling,
            init=self._start(visual, foreground),
        )
        if self.warm_start:
            self._potentials = terms.potentials
        if not self._warned and has_values(terms.loss) and not bool(terms.converged):
            self._warned = True
            warnings.warn(
                f"Transport problems of {type(self).__name__} did not converge within max_iter={self.max_iter}: the "
                f"marginal error is up to {float(terms.marginal_error):.2g}, tol is {self.tol:g}. Raise max_iter or "
                f"epsilon, or accept the error by raising tol. Shown once per instance.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return terms.loss

    def _start(self, visual: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self.warm_start or self._potentials is None:
            return None
        batch, sources = foreground.shape[:2]
        pairs = sources * (sources + 1) // (2 if _symmetric(self.target, self.formulation) else 1)
        shape = (batch, pairs, visual.shape[-2:].numel())
        return self._potentials if self._potentials[0].shape == shape else None

    def extra_repr(self) -> str:
        """The options, for printing."""
        return (
            f"target={self.target!r}, margin={self.margin}, temperature={self.temperature}, "
            f"solver={self.solver!r}, epsilon={self.epsilon}, max_iter={self.max_iter}, tol={self.tol}, "
            f"formulation={self.formulation!r}, kind={self.kind!r}, gradient={self.gradient!r}, "
            f"normalize={self.normalize!r}, value_weight={self.value_weight}, "
            f"position_weight={self.position_weight}, reduction={self.reduction!r}, scaling={self.scaling}, "
            f"warm_start={self.warm_start}"
        )
