"""The main job: data, pretraining, training, evaluation, report. Stopped at any point, the same command goes on."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning as L
import torch
import yaml
from filelock import FileLock, Timeout
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from ..commands.exit_status import exit_status
from ..config import FREE, Config, add_options, given_options
from ..data.composed.dataset import Description, ensure_composed
from ..data.folders import ClipFolder, Pool, all_captions
from ..data.loading import TrainingScenes
from ..data.music import MusicFolder
from ..data.quality import with_quality
from ..data.vggsound import VggsoundFolder
from ..evaluation.held_out import HeldOutScenes, load_held_out
from ..evaluation.predict import frame_resolution, predict
from ..evaluation.report import draw_sheet, rich_table, write_report
from ..evaluation.score import Metrics, chance_metrics, mean_reference_deviation, run_metrics
from ..files import atomic_write, read_json, write_json, write_text
from ..model.caption_features import CaptionTable, encode_captions
from ..model.localizer import Localizer
from ..yaml_files import read_yaml
from .callbacks import KeepLast, Progress
from .pretraining import crop_captions, pretrain, render_crops

log = logging.getLogger(__name__)

FOLDERS: dict[str, type[ClipFolder]] = {"music": MusicFolder, "vggsound": VggsoundFolder}


def parse_arguments(arguments: Sequence[str] | None = None, dataset: str = "music") -> argparse.Namespace:
    """The command line of ``train_music.py`` and ``train_vggsound.py``."""
    parser = argparse.ArgumentParser(
        description=f"Train and evaluate on {'MUSIC' if dataset == 'music' else 'VGGSound'}, or, without --data-root, "
        "on composed scenes made on the spot.",
    )
    parser.add_argument("--data-root", type=Path, help="folder with frames/, audio/, metadata/")
    parser.add_argument("--media", type=Path, help="compose scenes from this folder of photographs and recordings")
    parser.add_argument(
        "--config",
        nargs="+",
        help="YAML files, or names in examples/configs, each over those before (default: composed, media with --media, "
        f"{dataset} with --data-root)",
    )
    parser.add_argument("--quick", action="store_true", help="the quick configuration: a minute, to see that all works")
    parser.add_argument("--name", help="folder of this run below --runs (default: from data, configuration and seed)")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="where composed data and features are kept")
    add_options(parser)
    parsed = parser.parse_args(arguments)
    if parsed.data_root and parsed.media:
        parser.error("--data-root and --media exclude each other")
    if parsed.quick and parsed.config:
        parser.error("--quick and --config exclude each other")
    if parsed.media:
        parsed.media = parsed.media.resolve()
    parsed.config = parsed.config or _default_config(parsed, dataset)
    return parsed


def _default_config(options: argparse.Namespace, dataset: str) -> list[str]:
    if options.data_root and not options.quick:
        return [dataset]
    base = "quick" if options.quick else "media" if options.media else "composed"
    return [base] if dataset == "music" else [base, dataset]


def main(arguments: Sequence[str] | None = None, dataset: str = "music") -> int:
    """Run the job; 0 on success, 2 if it can't be done, 130 if it was interrupted."""
    options = parse_arguments(arguments, dataset)

    def job() -> None:
        run(options, Console())

    return exit_status(job)


def run(options: argparse.Namespace, console: Console) -> dict[str, Metrics]:
    """All steps; returns the rows of the printed table, or nothing in processes that only help training."""
    clock = _Clock()
    config = Config.load(options.config, given_options(options))
    folder = open_data(options, config)
    clock.lap("data")
    directory = options.runs / (options.name or _default_name(options, config))
    with _claimed(directory, config, folder.root):
        if (directory / "metrics.json").is_file():
            rows: dict[str, Metrics] = read_json(directory / "metrics.json", "percent")
            note = "complete; delete it or choose another --name to run again"
            console.print(rich_table(rows, f"{directory} ({note})"))
            return rows
        model, training = prepare(options, config, folder)
        clock.lap("pretraining")
        tests = [load_held_out(folder, subset, config.image_size) for subset in config.subsets]
        if rank_zero_only.rank == 0:
            model.to("cuda" if torch.cuda.is_available() and config.accelerator != "cpu" else "cpu")
            untrained = _untrained_metrics(directory / "untrained.json", model, tests, config)
        _fit(model, training, directory, config)
        clock.lap("training")
        if rank_zero_only.rank != 0:
            return {}
        predictions = [predict(model, test, workers=config.workers) for test in tests]
        trained = _merge(
            [run_metrics(t, p) for t, p in zip(tests, predictions, strict=True)]
        ) | mean_reference_deviation(model, training)
        size = frame_resolution(tests[0], predictions[0])
        levels = [chance_metrics(test, size) for test in tests]
        rows = {"trained": trained, "untrained": untrained}
        rows |= {row: _merge([level[row] for level in levels]) for row in levels[0]}
        clock.lap("evaluation")
        draw_sheet(directory / "sheet.png", list(zip(tests, predictions, strict=True)))
        write_report(directory, rows, clock.laps)
    console.print(rich_table(rows, str(directory)))
    console.print(
        f"Table, pictures, configuration and checkpoint are in {directory}/ ({sum(clock.laps.values()):.0f} s)",
        markup=False,
    )
    return rows


def _default_name(options: argparse.Namespace, config: Config) -> str:
    data = options.data_root.resolve().name if options.data_root else "media" if options.media else "composed"
    names = (Path(name).stem for name in options.config)
    return "-".join(dict.fromkeys((data, *names, f"seed{config.seed}")))


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._last = round(now - self._last, 1), now


def open_data(options: argparse.Namespace, config: Config) -> ClipFolder:
    """The user's folder, or composed scenes, made now if they are not there."""
    kind = FOLDERS[config.dataset]
    if options.data_root:
        return kind(options.data_root)
    media = str(options.media) if options.media else None
    description = Description(config.data_seed, config.train_scenes, config.test_scenes, media=media)
    return kind(ensure_composed(options.data, description))


@contextlib.contextmanager
def _claimed(directory: Path, config: Config, data: Path) -> Iterator[None]:
    """Hold the run's folder and write its configuration, or refuse a folder that holds a run with another one."""
    if rank_zero_only.rank != 0:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(directory / ".lock").acquire(timeout=0)
    except Timeout:
        raise ValueError(f"Another process is at work in {directory}. Choose another --name, or wait for it.") from None
    with lock:
        for half_written in directory.glob("**/.*.partial.*"):  # left by a killed process
            half_written.unlink()
        _claim(directory / "config.yaml", config.as_dict() | {"data": str(data.resolve())})
        yield


def _claim(path: Path, wanted: dict[str, object]) -> None:
    # A start that failed, by a misspelled solver say, has left its configuration and nothing that would be lost.
    if not path.is_file() or not any(other.name not in (path.name, ".lock") for other in path.parent.iterdir()):
        write_text(path, yaml.safe_dump(wanted, sort_keys=False))
        return
    found = Config().as_dict() | read_yaml(path)  # the file may be older than some key
    differing = sorted(k for k in (wanted.keys() | found.keys()) - set(FREE) if wanted.get(k) != found.get(k))
    if differing:
        others = ", ".join(differing)
        raise ValueError(f"{path.parent} holds a run with another {others}. Choose another --name, or delete it.")


def prepare(options: argparse.Namespace, config: Config, folder: ClipFolder) -> tuple[Localizer, TrainingScenes]:
    """The model before training, with its caption features and pretraining, and the training scenes."""
    cache = options.data / "cache"
    pools = [
        Pool(with_quality(pool.clips, config.caption_quality, config.seed), pool.size)
        for pool in (folder.training_pool(subset) for subset in config.subsets)
    ]
    texts = [text for pool in pools for text in all_captions(pool.clips)]
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"):  # of several processes one computes what all need
        captions = CaptionTable.build(texts, config.text_encoder, cache)
        L.seed_everything(config.seed, verbose=False)
        model = Localizer(config.as_dict(), captions.features.shape[1])
        model.text.fit(captions.features, config.text_shrinkage)
        if config.crops and not options.data_root and config.visual_weights is None:
            _load_pretrained(model, config, str(options.media) if options.media else None, cache)
    return model, TrainingScenes(folder.root, pools, captions, config)


def _load_pretrained(model: Localizer, config: Config, media: str | None, cache: Path) -> None:
    """Load the visual encoder that this configuration's pretraining gives; train it if no earlier run has."""
    targets = model.text(encode_captions(crop_captions(media), config.text_encoder, cache))
    keys = ("seed", "crops", "pretraining_steps", "pretraining_rate", "image_size", "visual_widths", "visual_depths")
    described = json.dumps([media, *(config.as_dict()[k] for k in keys)]).encode() + targets.numpy().tobytes()
    path = cache / f"pretrained-{hashlib.sha256(described).hexdigest()[:16]}.pt"
    if path.is_file():
        try:
            model.visual.load_state_dict(torch.load(path, weights_only=True))
        except Exception as error:  # of bytes that are no weights, the reader raises anything
            raise ValueError(
                f"Expected {path} to hold pretrained weights, but it can't be read. Delete it to have them made again."
            ) from error
        return
    images, labels = render_crops(config.crops, config.image_size, config.seed, media)
    pretrain(
        model.visual, images, labels, targets, steps=config.pretraining_steps, batch=64, rate=config.pretraining_rate
    )
    with atomic_write(path) as temporary:
        torch.save(model.visual.state_dict(), temporary)


def _fit(model: Localizer, data: TrainingScenes, directory: Path, config: Config) -> None:
    """Train, from the last checkpoint if there is one, and leave the model on the device that it was trained on."""
    last = directory / "checkpoints" / "last.ckpt"
    if last.is_file() and not zipfile.is_zipfile(last):  # which tells a file that lost its end, without reading it
        raise ValueError(f"Expected {last} to be a checkpoint, but it is damaged. Delete it to train from the start.")
    model.train()
    several = config.devices * config.nodes != 1
    trainer = L.Trainer(
        max_epochs=config.epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy="ddp" if several else "auto",
        # gloo can't average batch statistics; on GPUs every process has them of the whole batch
        sync_batchnorm=several and torch.cuda.is_available() and config.accelerator != "cpu",
        precision=config.precision,
        accumulate_grad_batches=config.accumulate,
        # a part of its own for each start, since the logger begins its file anew
        logger=[CSVLogger(directory, name="csv"), TensorBoardLogger(directory, name="", version="tensorboard")],
        callbacks=[KeepLast(last, config.checkpoint_steps), Progress(refresh_rate=5)],
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    with warnings.catch_warnings():
        # In-memory scenes need no workers, frozen batch statistics are meant to be, a short epoch logs once.
        for expected in (
            "does not have many workers",
            "module\\(s\\) in eval mode",
            "smaller than the logging interval",
            "LeafSpec",
        ):
            warnings.filterwarnings("ignore", f".*{expected}.*")
        try:
            trainer.fit(model, data, ckpt_path=last if last.is_file() else None, weights_only=True)
        except SystemExit as stop:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stop
    if trainer.interrupted:
        raise KeyboardInterrupt
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # one process evaluates alone
    model.to(trainer.strategy.root_device)


def _merge(parts: Sequence[Metrics]) -> Metrics:
    return {name: value for part in parts for name, value in part.items()}


def _untrained_metrics(path: Path, model: Localizer, tests: Sequence[HeldOutScenes], config: Config) -> Metrics:
    """Metrics before training, kept so that a resumed run need not compute them again."""
    if not path.is_file():
        write_json(path, _merge([run_metrics(test, predict(model, test, workers=config.workers)) for test in tests]))
    metrics: Metrics = read_json(path)
    return metrics
