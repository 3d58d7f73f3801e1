"""The main job: data, pretraining, training, evaluation, report. Stopped at any point, the same command goes on."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console

from .composed.embedded import Description, ensure_embedded
from .composed.pretraining import crop_captions, pretrain, render_crops
from .config import Config, add_options, given_options
from .data import TrainingScenes
from .dataset import MusicFolder, MusicScenes
from .evaluation import Figures, HeldOutScenes, chance, load_held_out, predict, score
from .files import write_json, write_text, written_aside
from .localizer import Localizer
from .report import draw_sheet, rich_table, write_report
from .text import CaptionTable, encode_captions

log = logging.getLogger(__name__)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of ``train_music.py``."""
    parser = argparse.ArgumentParser(
        description="Train and evaluate on MUSIC, or, without --data-root, on composed scenes made on the spot.",
        epilog="Every key of the configuration (examples/avsl/config.py) is an option too, e.g. --epochs 8 --seed 1.",
    )
    parser.add_argument("--data-root", type=Path, help="folder of MUSIC: frames/, audio/, metadata/")
    parser.add_argument("--media", type=Path, help="compose scenes from this folder of photographs and recordings")
    parser.add_argument(
        "--config",
        help="YAML file, or a name in examples/configs (default: embedded, music with --data-root, media with --media)",
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
    parsed.config = parsed.config or (_default_config(parsed))
    return parsed


def _default_config(options: argparse.Namespace) -> str:
    if options.quick:
        return "quick"
    return "music" if options.data_root else "media" if options.media else "embedded"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; 0 on success, 130 if it was interrupted."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        run(options, Console())
    except KeyboardInterrupt:
        log.info("Stopped. The same command goes on from here.")
        return 130
    except (OSError, ModuleNotFoundError, ValueError) as error:
        log.error("%s: %s", type(error).__name__, error)
        return 2
    return 0


def run(options: argparse.Namespace, console: Console) -> dict[str, Figures]:
    """All steps; returns the rows of the printed table."""
    clock = _Clock()
    config = Config.load(options.config, given_options(options))
    folder = _open_data(options, config)
    clock.lap("data")
    directory = options.runs / (options.name or _default_name(options, config))
    _claim(directory, config, folder.root)
    if (directory / "metrics.json").is_file():
        rows: dict[str, Figures] = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))["percent"]
        console.print(rich_table(rows, f"{directory} (complete; delete it or choose another --name to run again)"))
        return rows
    model, scenes, captions = _prepare(options, config, folder)
    clock.lap("pretraining")
    tests = [load_held_out(folder, subset, config.image_size) for subset in config.subsets]
    untrained = _untrained_figures(directory / "untrained.json", model, tests)
    _fit(model, TrainingScenes(scenes, captions, config), directory, config)
    clock.lap("training")
    predictions = [predict(model, test) for test in tests]
    resolution = tuple(predictions[0].sound.shape[1:])
    levels = [chance(test, resolution) for test in tests]
    rows = {"trained": _merge([score(t, p) for t, p in zip(tests, predictions, strict=True)]), "untrained": untrained}
    rows |= {row: _merge([level[row] for level in levels]) for row in levels[0]}
    clock.lap("evaluation")
    draw_sheet(directory / "sheet.png", list(zip(tests, predictions, strict=True)))
    write_report(directory, rows, clock.laps)
    console.print(rich_table(rows, str(directory)))
    console.print(
        f"Table, pictures, configuration and checkpoint are in {directory}/ ({sum(clock.laps.values()):.0f} s)"
    )
    return rows


def _default_name(options: argparse.Namespace, config: Config) -> str:
    data = options.data_root.resolve().name if options.data_root else "media" if options.media else "embedded"
    return "-".join(dict.fromkeys((data, Path(options.config).stem, f"seed{config.seed}")))


class _KeepLast(Checkpoint):
    """Writes the checkpoint after every epoch, in one move. (``ModelCheckpoint`` keeps its temporary file in another
    folder, and from Lightning 2.6 on writes no ``last.ckpt`` before the end of training if ``save_top_k`` is 0.)"""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        with written_aside(self.path) as aside:
            trainer.save_checkpoint(aside, weights_only=False)  # with the optimiser


class _Progress(TQDMProgressBar):
    def get_metrics(
        self, trainer: L.Trainer, module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        return {name: value for name, value in super().get_metrics(trainer, module).items() if name != "v_num"}


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._last = round(now - self._last, 1), now


def _open_data(options: argparse.Namespace, config: Config) -> MusicFolder:
    if options.data_root:
        return MusicFolder(options.data_root)
    media = str(options.media) if options.media else None
    return MusicFolder(
        ensure_embedded(
            options.data, Description(config.data_seed, config.train_scenes, config.test_scenes, media=media)
        )
    )


def _claim(directory: Path, config: Config, data: Path) -> None:
    """Write the run's configuration, or refuse a folder that holds a run with another one."""
    wanted = config.as_dict() | {"data": str(data.resolve())}
    path = directory / "config.yaml"
    if not path.is_file():
        write_text(path, yaml.safe_dump(wanted, sort_keys=False))
        return
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if differing:
        raise ValueError(
            f"{directory} holds a run with another {', '.join(differing)}. Choose another --name, or delete the folder."
        )


def _prepare(
    options: argparse.Namespace, config: Config, folder: MusicFolder
) -> tuple[Localizer, MusicScenes, CaptionTable]:
    cache = options.data / "cache"
    clips = [clip for subset in config.subsets for clip in folder.training_clips(subset)]
    scenes = MusicScenes(folder, clips, config.image_size, in_memory=config.in_memory)
    texts = [text for clip in clips for text in (*clip.foreground, clip.background)]
    captions = CaptionTable.build(texts, config.text_encoder, cache)
    L.seed_everything(config.seed, verbose=False)
    model = Localizer(config.as_dict(), captions.features.shape[1])
    model.text.fit(captions.features, config.text_shrinkage)
    if config.crops and not options.data_root and config.visual_weights is None:
        _load_pretrained(model, config, str(options.media) if options.media else None, cache)
    return model, scenes, captions


def _load_pretrained(model: Localizer, config: Config, media: str | None, cache: Path) -> None:
    """Load the visual encoder that this configuration's pretraining gives; train it if no earlier run has."""
    targets = model.text(encode_captions(crop_captions(media), config.text_encoder, cache))
    keys = ("seed", "crops", "pretraining_steps", "pretraining_rate", "image_size", "visual_widths", "visual_depths")
    described = json.dumps([media, *(config.as_dict()[k] for k in keys)]).encode() + targets.numpy().tobytes()
    path = cache / f"pretrained-{hashlib.sha256(described).hexdigest()[:16]}.pt"
    if path.is_file():
        model.visual.load_state_dict(torch.load(path, weights_only=True))
        return
    images, labels = render_crops(config.crops, config.image_size, config.seed, media)
    pretrain(
        model.visual, images, labels, targets, steps=config.pretraining_steps, batch=64, rate=config.pretraining_rate
    )
    with written_aside(path) as aside:
        torch.save(model.visual.state_dict(), aside)


def _fit(model: Localizer, data: TrainingScenes, directory: Path, config: Config) -> None:
    """Train, from the last checkpoint if there is one."""
    last = directory / "checkpoints" / "last.ckpt"
    model.train()
    trainer = L.Trainer(
        max_epochs=config.epochs,
        accelerator="auto",
        devices=1,
        precision=config.precision,
        logger=[
            CSVLogger(directory, name="", version="csv"),
            TensorBoardLogger(directory, name="", version="tensorboard"),
        ],
        callbacks=[_KeepLast(last), _Progress(refresh_rate=5)],
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


def _merge(parts: Sequence[Figures]) -> Figures:
    return {name: value for part in parts for name, value in part.items()}


def _untrained_figures(path: Path, model: Localizer, tests: Sequence[HeldOutScenes]) -> Figures:
    """Figures before training, kept so that a resumed run need not compute them again."""
    if not path.is_file():
        write_json(path, _merge([score(test, predict(model, test)) for test in tests]))
    figures: Figures = json.loads(path.read_text(encoding="utf-8"))
    return figures
