"""The Triton kernels: their answers on a GPU or in Triton's interpreter, and that they compile for a GPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sslosses.transport import grid_positions, pointcloud_cost
from sslosses.transport.problem import Problem

pytest.importorskip("triton", minversion="3.4")

KERNELS = {
    "triton_sinkhorn": ("sinkhorn_resident", "sinkhorn_strips", "sinkhorn_tiled"),
    "triton_gradient": ("transport_value", "gradient_resident", "gradient_strips", "gradient_tiled"),
}


@pytest.mark.slow
def test_cases():
    # In a process of their own: the interpreter is a property of the whole process, from the import of triton on.
    # What this run was asked to do (coverage, an order) is not for that one: a tracer doubles the interpreter's time.
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS" and not k.startswith("COVERAGE_")}
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    cases = Path(__file__).with_name("fused_gpu_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(cases)]
    root = cases.parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout), done.stdout


class Recorder:
    """Stands for a kernel and keeps what it was launched with."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            self.launches.append((self.kernel, arguments, options))

        return launch


def compiled(kernel, arguments, options):
    """The kernel as it would be compiled for an H100 at this launch."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    types = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int64: "*i64"}
    given = iter(arguments)
    signature, constants, divisible = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        if parameter.is_constexpr:
            signature[parameter.name], constants[(i,)] = "constexpr", options.pop(parameter.name)
            continue
        value = next(given)
        # Triton compiles a kernel anew for sizes of 1 and for multiples of 16.
        if isinstance(value, int) and value == 1:
            signature[parameter.name], constants[(i,)] = "constexpr", 1
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = types[value.dtype]
            divisible[(i,)] = [["tt.divisibility", 16]]
        elif isinstance(value, int):
            signature[parameter.name] = "i32"
            if value % 16 == 0:
                divisible[(i,)] = [["tt.divisibility", 16]]
        else:
            assert parameter.annotation_type == "fp64"
            signature[parameter.name] = "fp64"
    assert next(given, None) is None
    return compile(ASTSource(kernel, signature, constants, divisible), GPUTarget("cuda", 90, 32), options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "columns", "dtype"),
    [
        (49, 49, torch.float32),
        (98, 98, torch.float32),
        (196, 196, torch.float32),
        (1, 300, torch.float32),
        (49, 49, torch.float64),
    ],
)
def test_compiles_for_an_h100(monkeypatch, tmp_path, rows, columns, dtype):
    from sslosses.transport.solvers.fused import gpu

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches = []
    for module, names in KERNELS.items():
        kernels = getattr(gpu, module)
        for name in names:
            monkeypatch.setattr(kernels, name, Recorder(getattr(kernels, name), launches))
    here, there = grid_positions(1, rows, dtype=dtype), grid_positions(1, columns, dtype=dtype)
    a, b = torch.full((2, rows), 1 / rows, dtype=dtype), torch.full((2, columns), 1 / columns, dtype=dtype)
    problem = Problem(pointcloud_cost(a, b, here, there), a, b, 0.05)
    gpu.sinkhorn(problem, max_iter=100, tol=1e-3, init=None)
    gpu.value_gradient(problem, a, b, exact=True)
    if rows == 98:
        gpu.transport_value(problem, a, b)
        gpu.value_gradient(problem, a, b, exact=False)
        gpu.sinkhorn(problem.materialised(), max_iter=100, tol=1e-3, init=None)
    for kernel, arguments, options in launches:
        binary = compiled(kernel, arguments, options)
        assert ".target sm_90a" in binary.asm["ptx"]
        # Each program has to fit: 227 KiB of shared memory are all there are.
        assert binary.metadata.shared <= 227 * 1024
