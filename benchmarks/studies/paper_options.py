"""What the options do that stand for what the paper leaves open or says twice, measured on small problems.

The first part needs nothing. The second takes the model that the default run of the example leaves:

    OMP_NUM_THREADS=1 python examples/train_music.py
    python benchmarks/studies/paper_options.py --run runs/composed-seed0

Seconds without --run, a minute with it. Writes benchmarks/results/paper-options.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from result_files import ROOT, markdown
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

Line = tuple[str, str, str]


def literal_oca(visual: Tensor, audio: Tensor, foreground: Tensor, background: Tensor, tau: float = 0.7) -> Tensor:
    """Eqs. 1-6 as printed, with torch's own cosine and its floor of 1e-8."""
    sound = F.cosine_similarity(visual, audio[:, :, None, None], dim=1)
    sounding = (visual * foreground_mask(sound).to(visual.dtype)[:, None]).mean((2, 3))
    silent = (visual * background_mask(sound).to(visual.dtype)[:, None]).mean((2, 3))
    reference = foreground.mean(1)
    pairs = F.cosine_similarity(reference[:, None], sounding[None], dim=-1)
    own = torch.eye(len(visual), dtype=torch.bool)
    soft = pairs.exp().masked_fill(own | (pairs.detach() > tau), 0).sum(1)
    hard = F.cosine_similarity(silent, reference).exp()
    frg = -(pairs.diagonal().exp() / (pairs.diagonal().exp() + hard + soft)).log()
    right, wrong = (F.cosine_similarity(x, background).exp() for x in (silent, sounding))
    return (frg - (right / (right + wrong)).log()).mean() / 2


def pooling() -> Iterator[Line]:
    """Gradient for the sound, of random unit features as before training: how far from the one in float64."""
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
            off = (gradient(literal, dtype) - exact).norm() / exact.norm()
            said = "is NaN" if off.isnan() else f"is off by {100 * off:.3g} % of its length"
            yield "Eq. 3", f"{name}, {str(dtype)[6:]}", f"gradient for the sound {said}"


def costs() -> Iterator[Line]:
    """What the two parts of the point-cloud cost see: both, values alone, positions alone; at ε = 0."""
    torch.manual_seed(0)
    one = torch.full((8, 8), 0.3, dtype=torch.float64)
    one[:, :4] = 0.7
    shuffled = (1 - one).flatten()[torch.randperm(64)].view(8, 8)
    for name, other in (("complementary", 1 - one), ("shuffled complement", shuffled), ("equal", one)):
        maps = torch.stack([one, other])
        # With orthonormal references a pixel's feature holds its similarities; the rest makes its length 1.
        visual = torch.cat([maps, (1 - maps.square().sum(0))[None].sqrt()])[None]
        references = torch.eye(3, dtype=torch.float64)[None]
        losses = [
            object_region_isolation_loss(
                visual, references[:, :1], references[:, 1], epsilon=0, value_weight=value, position_weight=position
            ).loss
            for value, position in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
        ]
        found = "both parts {:.3f}, values alone {:.3f}, positions alone {:.3f}".format(*losses)
        yield "Eq. 7, cost", f"maps of 0.3 and 0.7: {name}", found


def trained(run: Path) -> Iterator[Line]:
    """On the duets and solos that the run was tested on."""
    sys.path.insert(0, str(ROOT / "examples"))
    sys.path.insert(0, str(ROOT / "docs"))
    from avsl.evaluation.predict import load_held_out, predict
    from avsl.model.checkpoints import open_model, recorded_data
    from avsl.training.run import FOLDERS
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
    own = cosine(pooled, scenes.foreground.mean(1)).mean()
    each = cosine(pooled[:, None], scenes.foreground).mean()
    yield "Eq. 4", "cosine of $l_v^p$ with the mean of both captions, with each one", f"{own:.2f}, {each:.2f}"
    by_sound = predict(model, solos)
    examples = [solos.scenes[scene] for scene in solos.test.scenes]
    with torch.no_grad():
        visual, audio = model.encode(
            torch.stack([e.frame for e in examples]), torch.stack([e.waveform for e in examples])
        )
    found = model.source_maps(visual, audio, num_sources=1)
    for name, shown, valid in (
        ("by $S_a$", by_sound.maps, by_sound.valid),
        ("by the identified object", found.maps, found.valid),
    ):
        metric = SoundLocalization("paper", task="single")
        metric.update(shown, solos.test.boxes, valid)
        result = metric.compute()
        yield "Section 3.1, solos", name, f"AP {100 * result['AP']:.1f}, IoU@0.5 {100 * result['IoU@0.5']:.1f}"


def identification(visual: Tensor, audio: Tensor, boxes: Any) -> Iterator[Line]:
    """Duets by the thresholds of the identification, K given and found."""
    for background, merge in product((0.7, 1.0), (0.6, 0.7, 0.8, 0.9)):
        found = []
        for name, sources in (("given", 2), ("found", None)):
            objects = identify_objects(
                visual, audio, num_sources=sources, background_threshold=background, merge_threshold=merge
            )
            metric = SoundLocalization("paper", task="mixtures")
            metric.update(objects.maps, boxes, objects.valid)
            result = metric.compute()
            found.append(f"K {name}: CAP {100 * result['CAP']:.1f}, CIoU@0.3 {100 * result['CIoU@0.3']:.1f}")
        right = 100 * (objects.valid.sum(1) == 2).double().mean()
        what = f"duets, background {background:g}, merge {merge:g}"
        yield "Section 3.1, thresholds", what, f"{'; '.join(found)}, right in {right:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of the default run")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder")
    options = parser.parse_args()
    lines = [*pooling(), *costs(), *(trained(options.run) if options.run else ())]
    text = markdown(("place", "what", "found"), lines)
    if options.run:
        (options.output / "paper-options.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
