"""A plugin of pytest: launches of the Triton kernels run what they compile to for an H100, on the CPU.

``fused_gpu_cases.py`` is run with it by ``test_fused_gpu.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ptx
import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from sslosses.transport.solvers.fused.gpu import gradient, sinkhorn

KERNELS = {
    sinkhorn: ("sinkhorn_resident", "sinkhorn_strips", "sinkhorn_tiled"),
    gradient: ("transport_value", "gradient_resident", "gradient_strips", "gradient_tiled"),
}
TYPES = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int64: "*i64"}
# All there is on an H100.
SHARED_MEMORY = 227 * 1024


class Emulated:
    """Stands for a kernel."""

    def __init__(self, kernel: Any):
        self.kernel = kernel
        self.compiled: dict[Any, Any] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            binary = self.binary(arguments, options)
            # Sizes of 1 are part of the code. Triton adds pointers to scratch memory, which these kernels do not need.
            given = [each.numpy() if isinstance(each, torch.Tensor) else each for each in arguments if not is_one(each)]
            ptx.launch(
                binary.asm["ptx"], grid[0], 32 * binary.metadata.num_warps, binary.metadata.shared, [*given, 0, 0]
            )

        return launch

    def binary(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The kernel as it would be compiled for an H100 at this launch."""
        signature, constants, hints = {}, {}, {}
        options, given = dict(options), iter(arguments)
        for i, parameter in enumerate(self.kernel.params):
            if parameter.is_constexpr:
                signature[parameter.name], constants[(i,)] = "constexpr", options.pop(parameter.name)
                continue
            value = next(given)
            if is_one(value):
                signature[parameter.name], constants[(i,)] = "constexpr", 1
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = TYPES[value.dtype]
            else:
                assert parameter.annotation_type == "fp64" or isinstance(value, int)
                signature[parameter.name] = parameter.annotation_type or "i32"
            # Triton compiles a kernel anew for multiples of 16.
            if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
                hints[(i,)] = [["tt.divisibility", 16]]
        assert next(given, None) is None
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
        # New memory is filled with NaN, by which the emulator knows what is still to be written.
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(False)
