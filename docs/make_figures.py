"""Draws the pictures of the pages of docs/ from trained models.

The pictures of the method show a model of the example's earlier default recipe, the sheets and the pictures that
explain show the default run. The same checkpoints give the same pictures:

    OMP_NUM_THREADS=1 python examples/train_music.py --config crops
    python docs/make_figures.py --run runs/composed-crops-seed0
    OMP_NUM_THREADS=1 python examples/train_music.py
    python docs/make_figures.py --default-run runs/composed-seed0

The first writes docs/figures/scene.jpg and docs/figures/method-*.png, and runs the blocks of get_started.md for
get_started.png. The second writes docs/figures/explained-*.png and docs/figures/composed_sheet.jpg.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sslosses import (
    background_mask,
    foreground_mask,
    hard_mask,
    mask_weights,
    masked_pool,
    similarity_map,
    trimap_masks,
)
from sslosses.similarity import cosine
from sslosses.transport import grid_cost, grid_positions, pointcloud_cost, solve

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from avsl.data.folders import ClipFolder
from avsl.evaluation.held_out import HeldOutScenes, load_held_out
from avsl.evaluation.predict import predict
from avsl.evaluation.sheet import draw_boxes, draw_sheet, overlay, picture_of
from avsl.model.checkpoints import open_model, recorded_data
from avsl.model.localizer import Localizer
from avsl.model.method import SourceMaps
from avsl.training.data_location import FOLDERS
from diagrams import draw_files
from explanations import Features, encode, features, oca_picture, pipeline_picture

ROOT = Path(__file__).resolve().parents[1]
plt.rcParams.update({"font.size": 9, "axes.titlesize": 9, "savefig.dpi": 110})
EPSILON = 0.05
#: Test scenes of the pictures that explain: a duet, and three solos of which the first and third have one class.
DUET, SOLOS = 2, (6, 1, 11)


def panel(axis: Axes, values: Tensor, title: str, low: float | None = None, high: float | None = None) -> None:
    """Draws one map as squares, with its range below."""
    axis.imshow(values, cmap="viridis", vmin=low, vmax=high)
    axis.set(xticks=[], yticks=[], title=title)
    axis.set_xlabel(f"{_short(values.min())} … {_short(values.max())}", fontsize=8)


def _short(value: Tensor) -> str:
    return f"{value + 0.0:.2g}".replace("e-0", "e-")  # + 0.0: no "-0"


def draw_scene(held_out: HeldOutScenes, index: int, sound: Tensor, identified: SourceMaps) -> Figure:
    figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.4), layout="constrained")
    picture = picture_of(held_out, index)
    for axis in axes:
        axis.axis("off")
        axis.imshow(picture)
        draw_boxes(axis, held_out, index, silent=axis is axes[0])
    axes[0].set_title("sounding: green, silent: red")
    overlay(axes[1], picture, sound)
    axes[1].set_title("map of the sound")
    for k in range(2):
        overlay(axes[k + 2], picture, identified.maps[0, k])
        axes[k + 2].set_title(f"map of source {k + 1}")
    return figure


def draw_masks(held_out: HeldOutScenes, index: int, sound: Tensor, reference: Tensor) -> Figure:
    """Draws two rows for S_a and two for a map that reaches the thresholds."""
    figure, axes = plt.subplots(4, 4, figsize=(7.6, 8.4), layout="constrained")
    halves = (("$S_a$, similarity to the sound", sound), ("$S_{r,1}$, to caption 1", reference))
    for (upper, lower), (name, similarity) in zip(axes.reshape(2, 2, 4), halves, strict=True):
        upper[0].imshow(picture_of(held_out, index))
        draw_boxes(upper[0], held_out, index, silent=True)
        upper[0].axis("off")
        panel(upper[1], similarity, name, -0.5, 1)
        panel(upper[2], foreground_mask(similarity), "$M^p$, soft", 0, 1)
        panel(upper[3], mask_weights(similarity, alpha=0.65, omega=0.03), "$w^p = M^p/\\sum M^p$")
        panel(lower[0], hard_mask(similarity, area=0.25).float(), "hard, a quarter of the area", 0, 1)
        panel(lower[1], trimap_masks(similarity).ignore, "between: ignored", 0, 1)
        panel(lower[2], background_mask(similarity), "$M^n$, soft", 0, 1)
        panel(lower[3], mask_weights(similarity, alpha=0.4, omega=0.03, foreground=False), "$w^n$", 0)
    return figure


def draw_references(held_out: HeldOutScenes, index: int, scene: Features) -> Figure:
    maps = scene.reference_maps[0]
    figure, axes = plt.subplots(1, len(maps) + 1, figsize=(10, 3.5), layout="constrained")
    axes[0].imshow(picture_of(held_out, index))
    draw_boxes(axes[0], held_out, index, silent=True)
    axes[0].axis("off")
    for k, (axis, values) in enumerate(zip(axes[1:], maps, strict=True)):
        name = f"$S_{{r,{k + 1}}}$" if k < len(maps) - 1 else "$S_r$ of the background"
        panel(axis, values, f"{name}:\n{_wrapped(scene.captions[0][k])}", -0.5, 1)
    return figure


def _wrapped(caption: str, width: int = 30) -> str:
    lines = [""]
    for word in caption.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def draw_negatives(batch: Features, tau: float) -> Figure:
    """Draws what OCA compares in a batch: c_ij, with crosses on the pairs that τ leaves out by either test."""
    sound = similarity_map(batch.visual, batch.audio)
    pooled = masked_pool(batch.visual, sound, alpha=0.65, omega=0.03)
    references = batch.foreground.mean(1)
    cosines = cosine(references[:, None], pooled[None])
    between = cosine(references[:, None], references[None])
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.9), layout="constrained", sharey=True)
    tests = ("visual-reference: Sim($l_{v,j}^p$, $l_{r,i}^p$)", "reference-reference: Sim($l_{r,j}^p$, $l_{r,i}^p$)")
    other = ~torch.eye(len(cosines), dtype=torch.bool)
    for axis, name, tested in zip(axes, tests, (cosines, between), strict=True):
        image = axis.imshow(cosines, cmap="viridis", vmin=-0.5, vmax=1)
        dropped = (tested > tau) & other
        rows, columns = dropped.nonzero(as_tuple=True)
        axis.plot(columns, rows, "rx", markersize=5)
        kept = 1 - dropped.sum() / other.sum()
        axis.set(title=f"{name} > {tau:g}\nkeeps {100 * kept:.0f} % of the negatives", xlabel="features of scene j")
    axes[0].set_ylabel("captions of scene i")
    figure.colorbar(image, ax=axes, label="$c_{ij}$", shrink=0.8)
    return figure


def draw_transport(maps: Tensor) -> Figure:
    """Draws the transport problem of two reference maps in both formulations."""
    one, two = maps[0], maps[1]
    height, width = one.shape
    positions = grid_positions(height, width)
    cost = pointcloud_cost(one.flatten(), 1 - two.flatten(), positions, positions)
    plans = [solve(cost, epsilon=e, solver=s, max_iter=2000).plan for e, s in ((EPSILON, "dense"), (0.0, "exact"))]
    order, across = one.flatten().argsort(), (1 - two.flatten()).argsort()
    figure = plt.figure(figsize=(13, 6), layout="constrained")
    axes = figure.subplots(2, 5)
    panel(axes[0, 0], one, "$S_1$", -0.5, 1.5)
    panel(axes[0, 1], 1 - two, "$1 - S_2$", -0.5, 1.5)
    axes[0, 2].imshow(cost.dense()[order][:, across], cmap="magma")
    axes[0, 2].set(title="cost, pixels in order of their value", xlabel="pixels of $1 - S_2$", ylabel="pixels of $S_1$")
    for axis, plan, name in zip(axes[0, 3:], plans, (f"plan at ε = {EPSILON}", "exact plan, ε = 0"), strict=True):
        axis.imshow(_spread(plan[order][:, across] * plan.shape[0]), cmap="magma_r", vmin=0, vmax=0.3)
        axis.set(title=name, xlabel="pixels of $1 - S_2$")
    first, second = (F.softmax(m.flatten() / 0.1, 0) for m in (one, two))
    panel(axes[1, 0], first.view_as(one), "$p_1$ = softmax($S_1$/0.1)", 0)
    panel(axes[1, 1], second.view_as(one), "$p_2$ = softmax($S_2$/0.1)", 0)
    ground = grid_cost(height, width)
    axes[1, 2].imshow(ground, cmap="magma")
    axes[1, 2].set(title="cost: distance of the pixels", xlabel="pixels of $p_2$", ylabel="pixels of $p_1$")
    for axis, epsilon, solver in ((axes[1, 3], EPSILON, "dense"), (axes[1, 4], 0.0, "exact")):
        result = solve(ground, first, second, epsilon=epsilon, solver=solver, max_iter=2000)
        _arrows(axis, result.plan, first.view_as(one) + second.view_as(one))
        axis.set_title(f"what moves at ε = {epsilon:g}: {result.value():.2f}")
    for axis in axes[:, 2:].flat:
        axis.set(xticks=[], yticks=[])
    return figure


def _spread(plan: Tensor) -> Tensor:
    """Spreads each entry over its neighbors, because single pixels of a sparse plan vanish in print."""
    return F.max_pool2d(plan[None], 3, stride=1, padding=1)[0]


def _arrows(axis: Axes, plan: Tensor, background: Tensor, count: int = 60) -> None:
    """Draws the ``count`` largest entries of a plan between pixels as arrows."""
    width = background.shape[1]
    axis.imshow(background, cmap="Grays", vmin=0, vmax=2 * float(background.max()))
    values, entries = plan.flatten().topk(count)
    start, end = entries // plan.shape[1], entries % plan.shape[1]
    x, y = start % width, start // width
    axis.quiver(
        x,
        y,
        end % width - x,
        end // width - y,
        values,
        angles="xy",
        scale_units="xy",
        scale=1,
        cmap="viridis",
        width=0.008,
    )


def draw_identification(held_out: HeldOutScenes, index: int, visual: Tensor, sound: Tensor) -> Figure:
    """Draws the steps of the identification: the peaks, the pixels that they claim, and their maps."""
    energy = (visual * sound).flatten(1).T
    silent = background_mask(sound).flatten()
    ground = (energy * silent[:, None]).mean(0)
    to_ground = (energy - ground).norm(dim=1)
    unclaimed = torch.ones(sound.numel(), dtype=torch.bool)
    figure, axes = plt.subplots(2, 5, figsize=(10.6, 4.6), layout="constrained")
    panel(axes[0, 0], sound, "$S_a$ and its peaks, in order")
    axes[1, 0].imshow(picture_of(held_out, index))
    draw_boxes(axes[1, 0], held_out, index, silent=True)
    axes[1, 0].axis("off")
    for step in range(4):
        peak = int(sound.flatten().masked_fill(~unclaimed, -torch.inf).argmax())
        distance = (energy - energy[peak]).norm(dim=1)
        claimed = (distance < to_ground) & unclaimed
        y, x = divmod(peak, sound.shape[1])
        axes[0, 0].text(x, y, str(step + 1), color="red", ha="center", va="center", fontsize=9, weight="bold")
        shown = torch.where(claimed, 1.0, torch.where(unclaimed, 0.3, 0.0)).view_as(sound)
        axes[0, step + 1].imshow(shown, cmap="viridis", vmin=0, vmax=1)
        axes[0, step + 1].set(xticks=[], yticks=[], title=f"claimed by {step + 1}: {int(claimed.sum())} pixels")
        panel(axes[1, step + 1], -distance.view_as(sound), f"map of {step + 1}")
        unclaimed &= ~claimed
    return figure


def save(figure: Figure, path: Path, dpi: int = 110) -> None:
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png", dpi=dpi)
    plt.close(figure)
    picture = Image.open(pixels).convert("RGB")
    encoded = io.BytesIO()  # Pillow does not report a full disk if it writes a JPEG itself
    if path.suffix == ".png":  # flat squares and letters: few colors, a quarter of the size
        picture.quantize(256, dither=Image.Dither.NONE).save(encoded, format="PNG", optimize=True)
    else:
        picture.save(encoded, format="JPEG", quality=88)
    path.write_bytes(encoded.getvalue())
    print(f"{path}: {path.stat().st_size // 1000} kB")


def run_get_started(target: Path) -> None:
    """Runs the page's Python and keeps the picture that it writes."""
    page = (ROOT / "docs" / "start" / "get_started.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "get_started.py"
        program.write_text(code, encoding="utf-8")
        subprocess.run([sys.executable, program.name], cwd=folder, check=True, env={**os.environ, "MPLBACKEND": "Agg"})
        shutil.copy(Path(folder) / "maps.png", target)


def draw_method(options: argparse.Namespace) -> None:
    """Draws the pictures of the method from ``--run``."""
    model, folder = _opened(options.run)
    held_out = load_held_out(folder, "duet", model.config.image_size)
    index = options.scene
    scene = features(model, held_out, [index], options.cache)
    sound = similarity_map(scene.visual, scene.audio)[0]
    identified = model.source_maps(encode(model, held_out, [index]), num_sources=2)
    batch = features(model, held_out, list(range(24)), options.cache)
    for name, figure in (
        ("scene.jpg", draw_scene(held_out, index, sound, identified)),
        ("method-masks.png", draw_masks(held_out, index, sound, scene.reference_maps[0, 0])),
        ("method-references.png", draw_references(held_out, index, scene)),
        ("method-negatives.png", draw_negatives(batch, model.config.tau)),
        ("method-transport.png", draw_transport(scene.reference_maps[0])),
        ("method-identification.png", draw_identification(held_out, index, scene.visual[0], sound)),
    ):
        save(figure, options.out / name)
    run_get_started(options.out / "get_started.png")


def draw_explanations(options: argparse.Namespace) -> None:
    """Draws the pictures that explain from ``--default-run``."""
    model, folder = _opened(options.default_run)
    duets, solos = (load_held_out(folder, subset, model.config.image_size) for subset in ("duet", "solo"))
    for name, figure in (
        ("explained-pipeline.png", pipeline_picture(model, duets, DUET, options.cache)),
        ("explained-oca.png", oca_picture(model, solos, SOLOS, options.cache)),
        ("explained-files.png", draw_files()),
    ):
        save(figure, options.out / name, dpi=100)
    sheet_of(model, [solos, duets], options.out / "composed_sheet.jpg")


def sheet_of(model: Localizer, tests: Sequence[HeldOutScenes], path: Path, scenes: int = 3) -> None:
    """Draws the first scenes of a run's sheet as a JPEG."""
    parts = [t.test._replace(scenes=t.test.scenes[:scenes], boxes=t.test.boxes[:scenes]) for t in tests]
    shown = [test._replace(test=part) for test, part in zip(tests, parts, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        png = Path(folder) / "sheet.png"
        draw_sheet(png, [(test, predict(model, test)) for test in shown], "")
        encoded = io.BytesIO()
        Image.open(png).convert("RGB").save(encoded, format="JPEG", quality=64, optimize=True)
    path.write_bytes(encoded.getvalue())


def _opened(run: Path) -> tuple[Localizer, ClipFolder]:
    data = recorded_data(run)
    if data is None or not data.is_dir():
        raise SystemExit(f"Expected {data} to be the data folder of {run}, but there is no such folder")
    return open_model(run, torch.device("cpu")), FOLDERS["music"](data)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--run", type=Path, help="run for the pictures of the method")
    parser.add_argument("--default-run", type=Path, help="run for the pictures that explain")
    parser.add_argument("--scene", type=int, default=70, help="number of the test scene of the method's pictures")
    parser.add_argument("--cache", type=Path, default=Path("data/cache"), help="folder with features of captions")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", help="folder for the pictures")
    options = parser.parse_args()
    if not (options.run or options.default_run):
        parser.error("Expected --run or --default-run, but got neither")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.run:
        draw_method(options)
    if options.default_run:
        draw_explanations(options)


if __name__ == "__main__":
    main()
