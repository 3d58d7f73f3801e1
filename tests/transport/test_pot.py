"""POT beside a GPU: for problems on the CPU it must not start CUDA, which it does for tensors of torch."""

import ot.backend
import pytest
import torch

from sslosses.transport import solve


@pytest.mark.parametrize(("solver", "given"), [("pot", False), ("pot", True), ("pot-batch", False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shared", [False, True])
def test_on_a_cpu_beside_a_gpu_pot_sees_no_tensor(solver, given, dtype, shared, monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand((1 if shared else 3, 4, 5), generator=generator, dtype=dtype)
    a = torch.full((3, 4), 0.25, dtype=dtype)
    a[0, 0], a[0, 1] = 0, 0.5  # a mass of 0
    b = torch.full((3, 5), 0.2, dtype=dtype)
    init = solve(cost, a, b, epsilon=0.5, solver="dense").potentials if given else None
    options = {"epsilon": 0.5, "solver": solver, "init": init, "tol": 1e-5, "max_iter": 1000}
    expected = solve(cost, a, b, **options)

    def fail(_: object) -> None:
        raise AssertionError("POT starts CUDA")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ot.backend, "_BACKENDS", {})
    monkeypatch.setattr(ot.backend.TorchBackend, "__init__", fail)
    result = solve(cost, a, b, **options)
    assert result.potentials[0].dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(result.plan, expected.plan, rtol=0, atol=tolerance)
    torch.testing.assert_close(result.value(), expected.value(), rtol=0, atol=tolerance)
