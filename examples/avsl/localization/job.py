"""The work of ``localize.py``: computes the maps of a picture with its sound, or of a video, and draws them."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from ..commands.arguments import print_plain, selected_model
from ..files import atomic_buffer
from ..model.localizer import Localizer
from ..model.method import SourceMaps
from ..pictures import read_picture
from ..sounds import flaw
from .overlay import draw_sheet, paint, save_figure, scaled
from .user_files import as_frame, read_sound
from .video import draw_heatmaps, localize_video, save_video_maps

log = logging.getLogger(__name__)


def localize(options: argparse.Namespace, console: Console) -> None:
    """Localizes the sound in a picture or video, writes the results and prints where they are."""
    job = _localize_in_video if len(options.media) == 1 else _localize_in_picture
    job(options, console)


def _localize_in_video(options: argparse.Namespace, console: Console) -> None:
    (path,) = options.media
    maps = localize_video(selected_model(options), path, options.every)
    video = options.out / f"{path.stem}-heat.mp4"
    arrays = options.out / f"{path.stem}-maps.npz"
    save_video_maps(arrays, maps)
    print_plain(console, f"{arrays}: {len(maps.maps)} maps, the last one at {maps.times[-1]:.1f} s")
    draw_heatmaps(path, video, maps)
    print_plain(console, str(video))


def _localize_in_picture(options: argparse.Namespace, console: Console) -> None:
    model = selected_model(options)
    out, stem = options.out, options.media[0].stem
    picture, waveform = read_picture(options.media[0]), read_sound(options.media[1])
    if found := flaw(waveform.numpy()):
        log.warning("%s %s. Its maps mean nothing.", options.media[1], found)
    sound, sources = find_sources(model, as_frame(picture, model.config.image_size), waveform, options.sources)
    maps, valid, peaks = (values[0].cpu() for values in sources)
    with atomic_buffer(out / f"{stem}-maps.npz") as buffer:
        arrays = {"maps": maps, "valid": valid, "peaks": peaks, "sound": sound}
        np.savez_compressed(
            buffer,
            frame_size=np.array([picture.height, picture.width]),
            **{name: value.numpy() for name, value in arrays.items()},
        )
    _save_overlay(out / f"{stem}-sound.png", picture, sound)
    for number in valid.nonzero().flatten().tolist():
        _save_overlay(out / f"{stem}-source{number + 1}.png", picture, maps[number])
    title = f"Where {options.media[1].name} comes from in {options.media[0].name}"
    figure = draw_sheet(np.asarray(picture), [sound, *maps[valid]], peaks[valid].tolist(), options.sources, title)
    save_figure(out / f"{stem}-sheet.png", figure)
    count = int(valid.sum())
    similarities = ", ".join(f"{peak:.2f}" for peak in peaks[valid].tolist())
    similar = f", similarity {similarities}" if count else ""
    print_plain(console, f"{count} source{'' if count == 1 else 's'} found{similar}: {out}/{stem}-*")


@torch.no_grad()
def find_sources(
    model: Localizer, frame: Tensor, waveform: Tensor, num_sources: int | None, identification: str | None = None
) -> tuple[Tensor, SourceMaps]:
    """Computes the map of the whole sound, (h, w), and the sources of one frame.

    ``num_sources`` is the number of sources; with ``None`` the model finds it. ``identification`` is how they are told
    apart; with ``None`` as the model's configuration says.
    """
    encoded = model.encode(frame[None].to(model.device), waveform[None].to(model.device))
    return model.sound_map(encoded)[0].cpu(), model.source_maps(encoded, num_sources, identification)


def _save_overlay(path: Path, picture: Image.Image, heat: Tensor) -> None:
    painted = paint(np.asarray(picture), scaled(heat, float(heat.min()), float(heat.max())))
    with atomic_buffer(path) as buffer:
        Image.fromarray(painted).save(buffer, format="PNG")
