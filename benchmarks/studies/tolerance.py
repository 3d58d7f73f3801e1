"""What a marginal error costs: errors of loss and gradient of the losses on maps, against the tolerance.

The features are those of five kinds of batches: random ones as before training, in few and in many dimensions; smooth
ones; maps of objects that are found; and maps around 1/2. The reference is the same loss in float64 with a tolerance of
1e-9. The gradient is that with respect to the visual features, and its error is relative, in the Euclidean norm.

    python benchmarks/studies/tolerance.py

Writes benchmarks/results/tolerance.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from study import study_parser, write_json
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from sslosses import object_region_isolation_loss, object_region_separation_loss

TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4)
UNBOUNDED = 20_000
LOSSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "ORI, pointcloud": (object_region_isolation_loss, {}),
    "ORI, distribution": (object_region_isolation_loss, {"formulation": "distribution"}),
    "ORI, divergence": (object_region_isolation_loss, {"kind": "divergence"}),
    "separation": (object_region_separation_loss, {}),
}
Batch = tuple[Tensor, Tensor, Tensor]


def batches(size: int, generator: torch.Generator) -> Iterator[tuple[str, Batch]]:
    """Visual features, two foreground references and the background reference of every kind of batch."""

    def noise(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator, dtype=torch.float64)

    def smooth(channels: int) -> Tensor:
        return interpolate(noise(channels, 4, 4), (14, 14), mode="bicubic")

    yield "random, 512 dimensions, 7x7", (noise(512, 7, 7), noise(2, 512), noise(512))
    yield "random, 16 dimensions, 7x7", (noise(16, 7, 7), noise(2, 16), noise(16))
    yield "smooth, 32 dimensions, 14x14", (smooth(32), noise(2, 32), noise(32))

    foreground, background = normalize(noise(2, 32), dim=-1), normalize(noise(32), dim=-1)
    visual = 0.1 * noise(32, 14, 14) + background[..., None, None]
    visual[:, :, 2:7, 2:7] += (2 * foreground[:, 0] - background)[..., None, None]
    visual[:, :, 8:13, 7:12] += (2 * foreground[:, 1] - background)[..., None, None]
    yield "two objects found, 14x14", (visual, foreground, background)

    base = normalize(noise(32), dim=-1)
    references = 0.7 * base[:, None] + 0.2 * noise(2, 32)
    yield "around 1/2, 14x14", (0.3 * smooth(32) + base[..., None, None], references, 0.7 * base + 0.2 * noise(32))


def graded(loss: Any, batch: Batch, **options: Any) -> tuple[Tensor, Tensor]:
    """The loss and its gradient with respect to the visual features, after as many iterations as it takes."""
    visual = batch[0].clone().requires_grad_()
    value = loss(visual, *batch[1:], max_iter=UNBOUNDED, **options).loss
    return value.detach(), torch.autograd.grad(value, visual)[0]


def measure(size: int, seed: int) -> list[dict[str, object]]:
    """One row per batch, loss and tolerance."""
    rows: list[dict[str, object]] = []
    for name, batch in batches(size, torch.Generator().manual_seed(seed)):
        for title, (loss, options) in LOSSES.items():
            value, gradient = graded(loss, batch, tol=1e-9, **options)
            if not gradient.any():  # the hinge of the separation loss, where the objects are apart
                continue
            for tol in TOLERANCES:
                actual, actual_gradient = graded(loss, batch, tol=tol, **options)
                limited = loss(*batch, tol=tol, max_iter=100, **options)
                rows.append(
                    {
                        "batch": name,
                        "loss": title,
                        "tol": tol,
                        "loss_error": ((actual - value).abs() / value.abs()).item(),
                        "gradient_error": ((actual_gradient - gradient).norm() / gradient.norm()).item(),
                        "converged_in_100": bool(limited.converged),
                        "marginal_error_at_100": limited.marginal_error.item(),
                    }
                )
                print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
    return rows


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--size", type=int, default=8, help="samples per batch; default: 8")
    parser.add_argument("--seed", type=int, default=0, help="seed of the features")
    options = parser.parse_args()
    rows = measure(options.size, options.seed)
    write_json(
        options.output / "tolerance.json", {"settings": {"size": options.size, "seed": options.seed}, "rows": rows}
    )


if __name__ == "__main__":
    main()
