"""How a public function is called: ordinary arguments, their shapes in letters, and which classes apply."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

import sslosses
from sslosses import clustering, distributed, identification, losses, masks, similarity, transport

MODULES = (sslosses, losses, transport, masks, similarity, identification, clustering, distributed)
SIZES = {"B": 3, "G": 5, "C": 6, "H": 3, "W": 4, "K": 2, "N": 5, "M": 4, "D": 2, "T": 2, "F": 3}
#: Optional arguments of losses, (B, K) and (B,).
MASKS = {"source_mask": "BK", "background_mask": "B"}
#: Options whose extremes make a hard problem, with the values to try.
ENDS: dict[str, tuple[float, ...]] = {
    "tau": (-2.0, -1.0, 0.0, 1.0, 2.0),
    "temperature": (1e-3, 1e3),
    "omega": (1e-44, 1e-4, 1e-2, 10.0),
    "alpha": (-1.0, 1.0),
    "alpha_foreground": (1.0,),
    "alpha_background": (-1.0,),
    "epsilon": (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0),
    "margin": (1e-6, 1e6),
    "threshold": (-1.0, 1.0),
    "area": (1e-9, 1.0),
    "weight": (0.0, 1.0),
    "peak_threshold": (-1.0, 1.0),
    "merge_threshold": (-1.0, 1.0),
    "background_threshold": (-1.0, 1.0),
    "value_weight": (0.0, 10.0),
    "position_weight": (0.0, 10.0),
    "max_iter": (1,),
    "max_iterations": (1, 1000),
    "num_sources": (1, 20),
    "max_sources": (1, 20),
    "separation_threshold": (0.0, 2.0),
    "weight_temperature": (1e-44, 1e-3, 1e3),
    "membership_temperature": (1e-44, 1e-3, 1e3),
    "start_weight": (0.0, 1e3),
    "contrast_weight": (0.0, 1e3),
    "sound_weight": (0.0, 1e3),
    "iterations": (1, 100),
    "restarts": (1, 20),
    "scaling": (1e-3, 0.999),
    "scale": (1e-3, 1e3),
    "bias": (-1e3, 1e3),
    "negative_bins": (1, 5),
    "visual_clusters": (1, 20),
    "audio_clusters": (1, 20),
    "sharpness": (1e-3, 1e6),
    "image_scale": (1e-3, 1e3),
    "audio_scale": (1e-3, 1e3),
    "pair_scale": (1e-3, 1e3),
    "presence_scale": (1e-3, 1e3),
}


@dataclass(frozen=True)
class Subject:
    """A public function, or a module that is built from the options and then called.

    Attributes:
        name: public name.
        shapes: letters of the shape of every tensor argument; "..." stands for leading dimensions that broadcast.
        options: keyword arguments besides the tensors.
        variant: tells subjects of one function apart.
        samples: arguments whose sample i changes only row i of the result, if called with ``none``.
        none: options that give one result per sample.
        scaled: arguments whose vectors may have any length.
        vectors: arguments that may hold zero vectors along their dimension C.
        smooth: whether the result has a gradient.
        call: calls the function with tensors and options; None looks it up by name.
        meta: whether it takes meta tensors.
        maps: whether H and W may have any size.
        light: whether another subject of the same function runs the classes that take time.
        kinds: arguments that are not features: "mask" (bool), "class" (integers below the size of M), "probability".
        constant: floating arguments that have no gradient, besides positions.
        contrast: whether a sample is compared with the other samples of the batch.
    """

    name: str
    shapes: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    samples: tuple[str, ...] = ()
    none: dict[str, Any] = field(default_factory=dict)
    scaled: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    smooth: bool = True
    call: Callable[..., Any] | None = None
    meta: bool = True
    maps: bool = False
    light: bool = False
    kinds: dict[str, str] = field(default_factory=dict)
    constant: tuple[str, ...] = ()
    contrast: bool = False

    def __str__(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The function or module of this name."""
        return next(getattr(module, self.name) for module in MODULES if hasattr(module, self.name))

    def __call__(self, arguments: dict[str, Any], **options: Any) -> Any:
        options = self.options | options
        if self.call is not None:
            return self.call(**arguments, **options)
        if isinstance(self.function, type) and issubclass(self.function, nn.Module):
            return self.function(**options)(**arguments)
        return self.function(**arguments, **options)

    def arguments(self, dtype: torch.dtype = torch.float64, **sizes: int) -> dict[str, Any]:
        """Ordinary tensors: features from a normal distribution, maps in [-1, 1], masses of sum 1."""
        sizes = SIZES | sizes
        generator = torch.Generator().manual_seed(0)
        arguments: dict[str, Any] = {}
        for name, letters in self.shapes.items():
            shape = tuple(sizes[letter] for letter in letters.removeprefix("...").split())
            value = torch.randn(shape, generator=generator, dtype=torch.float64)
            if name in ("similarity", "cost", "source", "target"):
                value = value.tanh()
            elif name in ("a", "b"):
                value = value.softmax(-1)
            elif name.endswith("positions") or self.kinds.get(name) == "probability":
                value = value.sigmoid()
            if self.kinds.get(name) == "mask":
                arguments[name] = value > 0
            elif self.kinds.get(name) == "class":
                arguments[name] = torch.randint(sizes["M"], shape, generator=generator)
            else:
                arguments[name] = value.to(dtype)
        return arguments

    def is_floating(self, name: str) -> bool:
        """Whether an argument has a floating dtype."""
        return self.kinds.get(name) not in ("mask", "class")

    def has_gradient(self, name: str) -> bool:
        """Whether the gradient of a smooth result with respect to an argument is tested."""
        return self.is_floating(name) and name not in self.constant and "positions" not in name

    def optional_names(self) -> set[str]:
        """Arguments for which None stands for a default."""
        function = self.function.forward if isinstance(self.function, type) else self.function
        return {p.name for p in inspect.signature(function).parameters.values() if p.default is None}

    def takes_tensor(self, name: str) -> bool:
        """Whether an option may be a tensor instead of a number or a word."""
        return "Tensor" in str(inspect.signature(self.function).parameters[name].annotation)

    def option_names(self) -> dict[str, Any]:
        """Options and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.name not in self.shapes and p.name not in MASKS}
