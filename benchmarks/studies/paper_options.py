"""Measures on small problems the options that the paper leaves open or describes in two ways.

The first part needs no data. The second part takes a model that the example trained. The table has:

    OMP_NUM_THREADS=1 python examples/train_music.py --config crops
    python benchmarks/studies/paper_options.py --run runs/composed-crops-seed0

Takes seconds without --run, a minute with it. Writes benchmarks/results/paper-options.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from study import ROOT, markdown, study_parser, write_text
from torch import Tensor

from sslosses import (
    OCALoss,
    background_mask,
    cosine,
    foreground_mask,
    identify_objects,
    masked_pool,
    object_aware_contrastive_loss,
    object_region_isolation_loss,
    similarity_map,
)
from sslosses.metrics import SoundLocalization

TableRow = tuple[str, str, str]


def literal_oca(visual: Tensor, audio: Tensor, foreground: Tensor, background: Tensor, tau: float = 0.7) -> Tensor:
    """Eqs. 1-6 as printed, with torch's cosine and its floor of 1e-8."""
    sound = F.cosine_similarity(visual, audio[:, :, None, None], dim=1)
    sounding = (visual * foreground_mask(sound).to(visual.dtype)[:, None]).mean((2, 3))
    silent = (visual * background_mask(sound).to(visual.dtype)[:, None]).mean((2, 3))
    reference = foreground.mean(1)
    pairs = F.cosine_similarity(reference[:, None], sounding[None], dim=-1)
    same_sample = torch.eye(len(visual), dtype=torch.bool)
    soft = pairs.exp().masked_fill(same_sample | (pairs.detach() > tau), 0).sum(1)
    hard = F.cosine_similarity(silent, reference).exp()
    frg = -(pairs.diagonal().exp() / (pairs.diagonal().exp() + hard + soft)).log()
    positive, negative = (F.cosine_similarity(x, background).exp() for x in (silent, sounding))
    return (frg - (positive / (positive + negative)).log()).mean() / 2


def pooling() -> Iterator[TableRow]:
    """Error of the gradient for the sound against float64, for random unit features as before training."""
    torch.manual_seed(0)
    shapes = (8, 512, 14, 14), (8, 512), (8, 2, 512), (8, 512)
    inputs = [F.normalize(torch.randn(shape, dtype=torch.float64), dim=1) for shape in shapes]

    def gradient(literal: bool, dtype: torch.dtype) -> Tensor:
        visual, audio, foreground, background = (x.to(dtype) for x in inputs)
        audio.requires_grad_()
        oca = literal_oca if literal else OCALoss()
        return torch.autograd.grad(oca(visual, audio, foreground, background), audio)[0].double()

    exact = gradient(False, torch.float64)
    for dtype in (torch.float32, torch.float16):
        for name, literal in (("as printed, torch's cosine", True), ("`OCALoss()`", False)):
            error = (gradient(literal, dtype) - exact).norm() / exact.norm()
            outcome = "is NaN" if error.isnan() else f"has an error of {100 * error:.3g} % of its length"
            yield "Eq. 3", f"{name}, {str(dtype)[6:]}", f"gradient for the sound {outcome}"


def costs() -> Iterator[TableRow]:
    """ORI at ε = 0 with both parts of the point-cloud cost, with values alone and with positions alone."""
    torch.manual_seed(0)
    one = torch.full((8, 8), 0.3, dtype=torch.float64)
    one[:, :4] = 0.7
    shuffled = (1 - one).flatten()[torch.randperm(64)].view(8, 8)
    for name, other in (("complementary", 1 - one), ("shuffled complement", shuffled), ("equal", one)):
        maps = torch.stack([one, other])
        # With orthonormal references the feature of a pixel holds its similarities; the third entry makes its length 1.
        visual = torch.cat([maps, (1 - maps.square().sum(0))[None].sqrt()])[None]
        references = torch.eye(3, dtype=torch.float64)[None]
        losses = [
            object_region_isolation_loss(
                visual, references[:, :1], references[:, 1], epsilon=0, value_weight=value, position_weight=position
            ).loss
            for value, position in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
        ]
        text = "both parts {:.3f}, values alone {:.3f}, positions alone {:.3f}".format(*losses)
        yield "Eq. 7, cost", f"maps of 0.3 and 0.7: {name}", text


def trained(run: Path) -> Iterator[TableRow]:
    """Measurements on the test duets and solos of the run."""
    sys.path.insert(0, str(ROOT / "examples"))
    sys.path.insert(0, str(ROOT / "docs"))
    from avsl.evaluation.held_out import load_held_out
    from avsl.evaluation.predict import predict
    from avsl.model.checkpoints import open_model
    from avsl.model.locations import recorded_data
    from avsl.training.data_location import FOLDERS
    from make_figures import features

    model = open_model(run, torch.device("cpu"))
    folder = FOLDERS["music"](recorded_data(run))
    duets, solos = (load_held_out(folder, subset, model.config.image_size) for subset in ("duet", "solo"))
    scenes = features(model, duets, list(range(len(duets.test.scenes))), Path("data/cache"))
    sound = similarity_map(scenes.visual, scenes.audio)
    largest = sound.flatten(1).max(1).values
    yield "Eq. 2", "largest $S_a$ of a duet", f"median {largest.median():.2f}, of all duets {largest.max():.2f}"
    yield "Eq. 2", "pixels with $S_a$ above $\\alpha_n$ = 0.4", f"{100 * (sound > 0.4).double().mean():.1f} %"
    maps = scenes.reference_maps
    yield "Eq. 2", "largest $S_r$ of a caption, median", f"{maps.flatten(2).max(2).values.median():.2f}"
    for name in ("visual-reference", "reference-reference"):
        terms = object_aware_contrastive_loss(
            *scenes[:4], temperature=model.config.temperature, tau=model.config.tau, false_negatives=name
        )
        kept = 100 * terms.kept_negatives
        yield (
            "Eq. 4",
            f'false negatives by `"{name}"`',
            f"keeps {kept:.0f} % of the negatives; loss {terms.foreground:.3f}",
        )
    yield from identification(scenes.visual, scenes.audio, duets.test.boxes)
    pooled = masked_pool(scenes.visual, sound, alpha=0.65)
    with_mean = cosine(pooled, scenes.foreground.mean(1)).mean()
    with_each = cosine(pooled[:, None], scenes.foreground).mean()
    yield (
        "Eq. 4",
        "cosine of $l_v^p$ with the mean of both captions, with each one",
        f"{with_mean:.2f}, {with_each:.2f}",
    )
    by_sound = predict(model, solos)
    examples = [solos.scenes[scene] for scene in solos.test.scenes]
    with torch.no_grad():
        encoded = model.encode(torch.stack([e.frame for e in examples]), torch.stack([e.waveform for e in examples]))
    identified = model.source_maps(encoded, num_sources=1)
    for name, maps_of_sources, valid in (
        ("by $S_a$", by_sound.maps, by_sound.valid),
        ("by the identified object", identified.maps, identified.valid),
    ):
        metric = SoundLocalization("paper", task="single")
        metric.update(maps_of_sources, solos.test.boxes, valid)
        result = metric.compute()
        yield "Section 3.1, solos", name, f"AP {100 * result['AP']:.1f}, IoU@0.5 {100 * result['IoU@0.5']:.1f}"


def identification(visual: Tensor, audio: Tensor, boxes: Any) -> Iterator[TableRow]:
    """Metrics of the duets for several thresholds of the identification, with K given and with K estimated."""
    for background, merge in product((0.7, 1.0), (0.6, 0.7, 0.8, 0.9)):
        texts = []
        for name, sources in (("given", 2), ("estimated", None)):
            objects = identify_objects(
                visual, audio, num_sources=sources, background_threshold=background, merge_threshold=merge
            )
            metric = SoundLocalization("paper", task="mixtures")
            metric.update(objects.maps, boxes, objects.valid)
            result = metric.compute()
            texts.append(f"K {name}: CAP {100 * result['CAP']:.1f}, CIoU@0.3 {100 * result['CIoU@0.3']:.1f}")
        right = 100 * (objects.valid.sum(1) == 2).double().mean()
        thresholds = f"duets, background {background:g}, merge {merge:g}"
        yield "Section 3.1, thresholds", thresholds, f"{'; '.join(texts)}, right in {right:.0f} %"


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--run", type=Path, help="folder of the default run")
    options = parser.parse_args()
    rows = [*pooling(), *costs(), *(trained(options.run) if options.run else ())]
    text = markdown(("place", "setting", "result"), rows)
    if options.run:
        write_text(options.output / "paper-options.md", text)
    print(text)


if __name__ == "__main__":
    main()
