"""Measure how fast clips are indexed and decoded and how much memory this takes: can the loader keep a GPU busy?

python examples/measure_loading.py                      a temporary folder of 144,000 clips, made for this
python examples/measure_loading.py --data-root DIR      your VGGSound folder

The temporary folder holds 64 different frames (340 × 256 pixels) and sounds (3 s), each under many names.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path

import avsl  # noqa: F401 - before torch, as it sets how the threads of torch wait
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

DISTINCT_FILES = 64


def make_folder(root: Path, clips: int) -> None:
    """Makes a VGGSound folder of ``clips`` clips, which share few distinct files."""
    rng = np.random.default_rng(0)
    for folder in ("frames", "audio", "metadata"):
        (root / folder).mkdir()
    for i in range(min(clips, DISTINCT_FILES)):
        pixels = np.asarray(Image.fromarray(rng.integers(256, size=(24, 32, 3), dtype=np.uint8)).resize((340, 256)))
        noisy = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "frames" / f"{clip_name(i)}.jpg", quality=95)
        soundfile.write(root / "audio" / f"{clip_name(i)}.wav", rng.uniform(-0.5, 0.5, 48_000), 16_000, "PCM_16")
    for i in range(DISTINCT_FILES, clips):
        for folder, suffix in (("frames", "jpg"), ("audio", "wav")):
            os.link(
                root / folder / f"{clip_name(i % DISTINCT_FILES)}.{suffix}", root / folder / f"{clip_name(i)}.{suffix}"
            )
    with (root / "metadata" / "vggsound_train.csv").open("w") as out:
        out.writelines(f"{clip_name(i)},class_{i % 221}\n" for i in range(clips))
    with (root / "metadata" / "captions.jsonl").open("w") as out:
        for i in range(clips):
            foreground, background = f"an image of thing {i % 5003}", f"an image of place {i % 4001}"
            captions = {"foreground": [foreground], "background": background}
            out.write(json.dumps({"id": clip_name(i), **captions}) + "\n")


def clip_name(index: int) -> str:
    return f"clip{index:07d}_000030"


def index_folder(root: Path, config: Config) -> tuple[TrainingScenes, float]:
    """Returns the training scenes, and the seconds that finding all clips and captions took."""
    folder = VggsoundFolder(root)
    start = time.perf_counter()
    pools = [folder.training_pool(subset) for subset in config.subsets]
    rows = {text: i for i, text in enumerate(dict.fromkeys(t for pool in pools for t in all_captions(pool.clips)))}
    captions = CaptionTable(torch.zeros(len(rows), 768), rows)  # the size of BERT's features; the values do not matter
    scenes = TrainingScenes(root, pools, captions, config)
    return scenes, time.perf_counter() - start


def scenes_per_second(scenes: TrainingScenes, workers: int, batches: int) -> float:
    """Measures the speed of the training loader over ``batches`` batches."""
    scenes.config = Config.from_dict(scenes.config.as_dict() | {"workers": workers})
    loader = iter(scenes.train_dataloader())
    next(loader)  # the first batch includes the start of the workers
    start = time.perf_counter()
    count = sum(len(batch.frames) for batch in itertools.islice(loader, batches))
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data-root", type=Path, help="VGGSound folder (default: a temporary folder)")
    add("--clips", type=int, default=144_000, help="clips of the temporary folder (default: %(default)s)")
    add("--workers", type=int, nargs="+", default=[0, os.cpu_count() or 1], help="numbers of processes to measure")
    add("--batches", type=int, default=8, help="batches to measure (default: %(default)s)")
    add("--subset", choices=("single", "duet", "trio"), default="duet", help="kind of scenes (default: %(default)s)")
    add("--out", type=Path, help="JSON file to write the result to")
    options = parser.parse_args()
    config = Config.load(["vggsound"], {"subsets": [options.subset]})
    with tempfile.TemporaryDirectory() as temporary:
        root = options.data_root or Path(temporary)
        if not options.data_root:
            make_folder(root, options.clips)
        before = resident_peak() or 0
        scenes, seconds = index_folder(root, config)
        result = {
            "clips": len(scenes.scenes),
            "seconds_to_index": round(seconds, 2),
            "megabytes_to_index": round(((resident_peak() or 0) - before) / 2**20),
            "scenes_per_second": {w: round(scenes_per_second(scenes, w, options.batches), 1) for w in options.workers},
            "subset": options.subset,
            "processors": os.cpu_count(),
        }
    print(json.dumps(result, indent=1))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
