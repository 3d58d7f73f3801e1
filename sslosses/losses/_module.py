"""Base classes of the loss modules, which store and print the options and pass them to the function behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor, nn

from sslosses._checks import check_count, check_flag, check_number, check_option
from sslosses._torch import has_values
from sslosses.losses._gathering import warn_if_not_gathered
from sslosses.losses._pairs import explain_failure, pair_count
from sslosses.transport import KINDS, ConvergenceWarning, check_solver

if TYPE_CHECKING:
    from typing import Self

Loss = TypeVar("Loss", bound="LossModule")
Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


def without_class_defaults(cls: type[Loss]) -> type[Loss]:
    """Delete the class attributes that hold the defaults of a dataclass's fields.

    PyTorch keeps a module that is an attribute, such as a solver with parameters, outside the instance's dictionary. A
    class attribute of the same name would hide it.
    """
    for field in fields(cls):
        if field.name in vars(cls):
            delattr(cls, field.name)
    return cls


@dataclass(kw_only=True, eq=False, repr=False)
class LossModule(nn.Module):
    """A module whose options are dataclass fields, with the names and defaults of the function's options.

    Subclasses are dataclasses with the same arguments and check their options in ``__post_init__``.
    """

    gather_distributed: bool | None = None

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        # A module as an option, such as a solver with parameters, can be assigned only after Module.__init__.
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self) -> None:
        # Stored, because torch.compile can't trace `fields`.
        self._option_names = tuple(field.name for field in fields(self))
        self.warned_of_processes = False
        # NumPy's scalars and fractions can't be compiled.
        for name, value in self._options().items():
            if not isinstance(value, bool) and isinstance(value, Real):
                setattr(self, name, check_number(name, value))

    def _options(self) -> dict[str, Any]:
        """The current options: an attribute that was changed takes effect in the next call."""
        return {name: getattr(self, name) for name in self._option_names}

    def _call_options(self) -> dict[str, Any]:
        """The current options for a call, where ``gather_distributed`` is chosen; warns once per instance if not."""
        options = self._options()
        if self.gather_is_open():
            if not self.warned_of_processes:
                self.warned_of_processes = warn_if_not_gathered(type(self).__name__)
            options["gather_distributed"] = False
        return options

    def gather_is_open(self) -> bool:
        """Whether ``gather_distributed`` makes a difference and was not chosen."""
        return self.gather_distributed is None

    def extra_repr(self) -> str:
        """Returns the options, for printing."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._option_names)


class PairLossModule(LossModule):
    """A loss that solves transport problems: it can start warm, and warns once if the solver did not converge."""

    _function: ClassVar[Callable[..., Any]]
    """Returns the terms of the loss."""
    _of_maps: ClassVar[Callable[..., Any]]
    """Returns them from maps and from which of these are present."""

    # Fields of the subclasses.
    solver: Any
    epsilon: float
    max_iter: int
    tol: float | None
    kind: str
    gradient: str
    scaling: float | None
    reduction: str
    warm_start: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("warm_start", self.warm_start)
        if self.warm_start and self.scaling is not None:
            raise ValueError(
                "Expected `warm_start` or `scaling`, which computes its own starting potentials, but got both"
            )
        check_solver(
            self.solver,
            epsilon=self.epsilon,
            gradient=self.gradient,
            scaling=self.scaling,
            with_init=self.warm_start,
        )
        check_count("max_iter", self.max_iter)
        check_number("tol", self._tolerance(), above=0)
        check_option("kind", self.kind, KINDS)
        self._potentials: tuple[Tensor, Tensor] | None = None
        self._warned = False

    def forward(
        self,
        visual: Tensor,
        foreground: Tensor,
        background: Tensor,
        source_mask: Tensor | None = None,
        background_mask: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        inputs = visual, foreground, background, source_mask, background_mask
        return self._loss(self._function, inputs, inputs)

    def of_maps(self, maps: Tensor, present: Tensor, inputs: Inputs) -> Tensor:
        """The loss from the maps of ``inputs``, as of ``_pairs.reference_maps``, that were computed before."""
        return self._loss(self._of_maps, (maps, present), inputs)

    def _loss(self, function: Callable[..., Any], arguments: tuple[Tensor | None, ...], inputs: Inputs) -> Tensor:
        options = self._call_options()
        warm_start = options.pop("warm_start")
        init = self._init(*inputs[:2]) if warm_start else None
        terms = function(*arguments, init=init, **options)
        if warm_start:
            self._potentials = terms.potentials
        if not self._warned and has_values(terms.loss) and not bool(terms.converged):
            self._warned = True
            limits = {"epsilon": self.epsilon, "max_iter": self.max_iter, "tol": self._tolerance()}
            reason = explain_failure(type(self).__name__, terms, inputs, **limits)
            warnings.warn(f"{reason} Shown once per instance.", ConvergenceWarning, stacklevel=3)
        loss: Tensor = terms.loss
        return loss

    def gather_is_open(self) -> bool:
        """Whether ``gather_distributed`` makes a difference and was not chosen."""
        return self.gather_distributed is None and self.reduction != "none"

    def _init(self, visual: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor] | None:
        """The potentials of the last call, if they fit this batch."""
        if self._potentials is None:
            return None
        batch, sources = foreground.shape[:2]
        shape = (batch, pair_count(sources + 1, self._symmetric()), visual.shape[-2:].numel())
        return self._potentials if self._potentials[0].shape == shape else None

    def _tolerance(self) -> Any:
        """The tolerance, where None stands for a default."""
        return self.tol

    def _symmetric(self) -> bool:
        """Whether the distances of (n, m) and (m, n) are equal, so that only half of them are solved."""
        return True
