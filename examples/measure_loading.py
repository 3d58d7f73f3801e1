"""How fast clips are indexed and decoded, and in how much memory: whether the loader keeps a GPU busy.

python examples/measure_loading.py                      a folder of 144,000 clips, made for this in a temporary place
python examples/measure_loading.py --data-root DIR      your VGGSound folder

A folder made for this holds 64 different frames (340 × 256 pixels) and sounds (3 s), each under many names.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from avsl.config import Config
from avsl.data.folders import all_captions
from avsl.data.loading import TrainingScenes
from avsl.data.vggsound import VggsoundFolder
from avsl.evaluation.timing import resident_peak
from avsl.files import write_json
from avsl.model.caption_features import CaptionTable
from PIL import Image

DIFFERENT = 64


def make_folder(root: Path, clips: int) -> None:
    """A VGGSound folder of ``clips`` names for few files."""
    rng = np.random.default_rng(0)
    for folder in ("frames", "audio", "metadata"):
        (root / folder).mkdir()
    for i in range(min(clips, DIFFERENT)):
        pixels = np.asarray(Image.fromarray(rng.integers(256, size=(24, 32, 3), dtype=np.uint8)).resize((340, 256)))
        noisy = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "frames" / f"{name_of(i)}.jpg", quality=95)
        soundfile.write(root / "audio" / f"{name_of(i)}.wav", rng.uniform(-0.5, 0.5, 48_000), 16_000, "PCM_16")
    for i in range(DIFFERENT, clips):
        for folder, suffix in (("frames", "jpg"), ("audio", "wav")):
            os.link(root / folder / f"{name_of(i % DIFFERENT)}.{suffix}", root / folder / f"{name_of(i)}.{suffix}")
    with (root / "metadata" / "vggsound_train.csv").open("w") as out:
        out.writelines(f"{name_of(i)},class_{i % 221}\n" for i in range(clips))
    with (root / "metadata" / "captions.jsonl").open("w") as out:
        for i in range(clips):
            line = {"foreground": [f"an image of thing {i % 5003}"], "background": f"an image of place {i % 4001}"}
            out.write(json.dumps({"id": name_of(i), **line}) + "\n")


def name_of(index: int) -> str:
    return f"clip{index:07d}_000030"


def index_folder(root: Path, config: Config) -> tuple[TrainingScenes, float]:
    """The training scenes, and the seconds that finding all clips and captions took."""
    folder = VggsoundFolder(root)
    start = time.perf_counter()
    pools = [folder.training_pool(subset) for subset in config.subsets]
    rows = {text: i for i, text in enumerate(dict.fromkeys(t for pool in pools for t in all_captions(pool.clips)))}
    # Features of the size of BERT's; what they hold does not matter here.
    captions = CaptionTable(_features(len(rows)), rows)
    scenes = TrainingScenes(root, pools, captions, config)
    return scenes, time.perf_counter() - start


def _features(count: int) -> torch.Tensor:
    return torch.zeros(count, 768)


def scenes_a_second(scenes: TrainingScenes, workers: int, batches: int) -> float:
    scenes.config = Config.from_dict(scenes.config.as_dict() | {"workers": workers})
    given = iter(scenes.train_dataloader())
    next(given)  # with it the start of the workers
    start = time.perf_counter()
    count = sum(len(batch.frames) for batch in itertools.islice(given, batches))
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--clips", type=int, default=144_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, os.cpu_count() or 1])
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--subset", choices=("single", "duet", "trio"), default="duet")
    parser.add_argument("--out", type=Path, help="JSON file for the metrics")
    options = parser.parse_args()
    config = Config.load(["vggsound"], {"subsets": [options.subset]})
    with tempfile.TemporaryDirectory() as place:
        root = options.data_root or Path(place)
        if not options.data_root:
            make_folder(root, options.clips)
        before = resident_peak() or 0
        scenes, seconds = index_folder(root, config)
        result = {
            "clips": len(scenes.scenes),
            "seconds_to_index": round(seconds, 2),
            "megabytes_to_index": round(((resident_peak() or 0) - before) / 2**20),
            "scenes_a_second": {w: round(scenes_a_second(scenes, w, options.batches), 1) for w in options.workers},
            "subset": options.subset,
            "processors": os.cpu_count(),
        }
    print(json.dumps(result, indent=1))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
