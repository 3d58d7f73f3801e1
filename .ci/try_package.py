"""Uses the installed package, with the solvers named as arguments, from a folder where nothing of this project lies."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import sslosses
from sslosses import ObjectAwareObjective, ORILoss
from sslosses.metrics import SoundLocalization
from sslosses.transport import available, solve

place = Path(sslosses.__file__).parent
assert "site-packages" in place.parts, f"{place} is not the installed package"
assert (place / "py.typed").exists()

visual = torch.randn(4, 16, 5, 5, requires_grad=True)
audio, background = torch.randn(4, 16), torch.randn(4, 16)
ObjectAwareObjective(ori=ORILoss(epsilon=0.3))(visual, audio, torch.randn(4, 2, 16), background).backward()
assert visual.grad is not None
assert visual.grad.abs().sum() > 0

wanted = sys.argv[1:]
status = available()
assert all(status[name] for name in wanted), status
cost = torch.rand(3, 6, 6, requires_grad=True)
reference = {epsilon: solve(cost, epsilon=epsilon, solver=name, max_iter=1000, tol=1e-6).value()
             for epsilon, name in ((0.0, "exact"), (0.2, "dense"))}  # fmt: skip
for name in wanted:
    epsilon = 0.0 if name == "exact" else 0.2
    value = solve(cost, epsilon=epsilon, solver=name, max_iter=1000, tol=1e-6).value()
    torch.testing.assert_close(value, reference[epsilon], rtol=0, atol=1e-4)
    (gradient,) = torch.autograd.grad(value.sum(), cost)
    assert gradient.abs().sum() > 0, name
    print("solver", name)

metric = SoundLocalization("lvs", task="single")
metric.update(torch.rand(2, 1, 7, 7), [[[[0.1, 0.1, 0.6, 0.6]]]] * 2)
print({name: round(float(value), 3) for name, value in metric.compute().items()})

clips = ["one_000001", "two_000002"]
entries = [{"file": clip, "class": "a bird", "bbox": [[0.1, 0.2, 0.6, 0.9]]} for clip in clips]
Path("vggss.json").write_text(json.dumps(entries), encoding="utf-8")
np.savez("maps.npz", **{clip: np.random.default_rng(0).random((7, 7), dtype=np.float32) for clip in clips})
command = [sys.executable, "-m", "sslosses.evaluate", "--maps", "maps.npz", "--annotations", "vggss.json"]
command += ["--format", "vggss", "--protocol", "paper", "--no-sheet", "--out", "scores"]  # pictures need an extra
subprocess.run(command, check=True)
assert any(Path("scores").iterdir())
subprocess.run([sys.executable, "-m", "sslosses.evaluate", "--self-test"], check=True)
