"""A pytest plugin: each launch of a Triton kernel runs the code compiled for an H100 in an emulator on the CPU.

``test_gpu.py`` runs ``gpu_cases.py`` with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ptx
import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from sslosses.transport.solvers.fused.gpu import gradient, gradient_tiled, sinkhorn, sinkhorn_tiled

KERNELS = {
    sinkhorn: ("sinkhorn_resident", "sinkhorn_strips"),
    sinkhorn_tiled: ("sinkhorn_tiled",),
    gradient: ("gradient_resident", "gradient_strips"),
    gradient_tiled: ("transport_value", "gradient_tiled"),
}
TYPES = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int64: "*i64"}
# The shared memory of a block on an H100.
SHARED_MEMORY = 227 * 1024


class Emulated:
    """Takes the place of a kernel."""

    def __init__(self, kernel: Any):
        self.kernel = kernel
        self.compiled: dict[Any, Any] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            binary = self.binary(arguments, options)
            # Sizes of 1 are part of the code. Triton adds pointers to scratch memory, which these kernels do not need.
            values = [
                value.numpy() if isinstance(value, torch.Tensor) else value
                for argument in arguments
                for value in (argument if isinstance(argument, tuple) else (argument,))
                if not is_one(value)
            ]
            ptx.launch(
                binary.asm["ptx"], grid[0], 32 * binary.metadata.num_warps, binary.metadata.shared, [*values, 0, 0]
            )

        return launch

    def binary(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The kernel as it would be compiled for an H100 at this launch."""
        signature, constants, hints = {}, {}, {}
        options, remaining = dict(options), iter(arguments)

        def specialize(value: Any, path: tuple[int, ...], annotation: str | None = None) -> Any:
            if isinstance(value, tuple):
                return tuple(specialize(part, (*path, i)) for i, part in enumerate(value))
            if is_one(value):
                constants[path] = 1
                return "constexpr"
            # Triton compiles a kernel anew for multiples of 16.
            if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
                hints[path] = [["tt.divisibility", 16]]
            if isinstance(value, torch.Tensor):
                return TYPES[value.dtype]
            assert annotation == "fp64" or isinstance(value, int)
            return annotation or "i32"

        for i, parameter in enumerate(self.kernel.params):
            if parameter.is_constexpr:
                signature[parameter.name], constants[(i,)] = "constexpr", options.pop(parameter.name)
            else:
                signature[parameter.name] = specialize(next(remaining), (i,), parameter.annotation_type)
        assert next(remaining, None) is None
        key = str((signature, constants, hints, options))
        if key not in self.compiled:
            source = ASTSource(self.kernel, signature, constants, hints)
            binary = self.compiled[key] = compile(source, GPUTarget("cuda", 90, 32), options)
            assert ".target sm_90a" in binary.asm["ptx"]
            assert binary.metadata.shared <= SHARED_MEMORY
        return self.compiled[key]


def is_one(value: Any) -> bool:
    return isinstance(value, int) and value == 1


@pytest.fixture(autouse=True, scope="session")
def _emulated() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, names in KERNELS.items():
            for name in names:
                patch.setattr(module, name, Emulated(getattr(module, name)))
        # Fills new memory with NaN, by which the emulator recognizes memory that was never written.
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(False)
