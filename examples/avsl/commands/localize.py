"""The command that localizes what sounds in a user's own picture or video."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from sslosses import IdentifiedObjects

from ..files import atomic_write
from ..localization.overlay import paint, scaled
from ..localization.user_files import as_frame, as_waveform, read_picture, read_sound
from ..localization.video import draw, save_watched, watch
from ..model.localizer import Localizer
from .arguments import add_model, at_least_one, chosen_model, say
from .exit_status import exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of ``localize.py``; its exit status."""
    options = parse_arguments(arguments)
    return exit_status(lambda: localize(options, Console()), resumes=False)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The media and what to make of them."""
    parser = argparse.ArgumentParser(
        description="See where a sound comes from: in a picture with its sound, or in a video.",
        usage="%(prog)s [options] RUN_OR_CKPT (IMAGE SOUND | VIDEO)",
    )
    add_model(parser)
    add = parser.add_argument
    add("media", nargs="+", type=Path, metavar="IMAGE SOUND | VIDEO", help="a picture and its sound, or a video")
    add("--sources", type=at_least_one, help="picture: how many sources sound (default: as many as are found)")
    add("--every", type=at_least_one, default=5, help="video: frames from map to map (5)")
    add("--out", type=Path, default=Path("localized"), help="folder of the results (localized)")
    parsed = parser.parse_args(arguments)
    if len(parsed.media) > 2:
        parser.error(f"expected IMAGE SOUND or VIDEO, but got {len(parsed.media)} files")
    if len(parsed.media) == 1 and parsed.sources:
        parser.error("--sources goes with IMAGE SOUND; a video shows where its whole sound comes from")
    return parsed


def localize(options: argparse.Namespace, console: Console) -> None:
    """Write pictures and maps, or the annotated video, below ``options.out``."""
    model = chosen_model(options)
    out, stem = options.out, options.media[0].stem
    if len(options.media) == 1:
        watched = watch(model, options.media[0], options.every)
        draw(options.media[0], out / f"{stem}-heat.mp4", watched)
        save_watched(out / f"{stem}-maps.npz", watched)
        say(console, f"{out / f'{stem}-heat.mp4'}: {len(watched.maps)} maps over {watched.times[-1]:.1f} s")
        return
    picture, waveform = read_picture(options.media[0]), as_waveform(read_sound(options.media[1]))
    sound, found = find_sources(model, as_frame(picture, model.config.image_size), waveform, options.sources)
    maps, valid, peaks = found.maps[0].cpu(), found.valid[0].cpu(), found.peaks[0].cpu()
    _save_overlay(out / f"{stem}-sound.png", picture, sound)
    for number in valid.nonzero().flatten().tolist():
        _save_overlay(out / f"{stem}-source{number + 1}.png", picture, maps[number])
    with atomic_write(out / f"{stem}-maps.npz") as temporary:
        arrays = {"maps": maps, "valid": valid, "peaks": peaks, "sound": sound}
        np.savez_compressed(
            temporary,
            frame_size=np.array([picture.height, picture.width]),
            **{name: value.numpy() for name, value in arrays.items()},
        )
    shown = ", ".join(f"{peak:.2f}" for peak in peaks[valid].tolist())
    count = int(valid.sum())
    similar = f", similarity {shown}" if count else ""
    say(console, f"{count} source{'' if count == 1 else 's'} found{similar}: {out}/{stem}-*")


@torch.no_grad()
def find_sources(
    model: Localizer, frame: Tensor, waveform: Tensor, num_sources: int | None
) -> tuple[Tensor, IdentifiedObjects]:
    """The map of the whole sound, (h, w), and the sources of one frame; their number given, or found."""
    visual, audio = model.encode(frame[None].to(model.device), waveform[None].to(model.device))
    return model.sound_map(visual, audio)[0].cpu(), model.source_maps(visual, audio, num_sources)


def _save_overlay(path: Path, picture: Image.Image, heat: Tensor) -> None:
    painted = paint(np.asarray(picture), scaled(heat, float(heat.min()), float(heat.max())))
    with atomic_write(path) as temporary:
        Image.fromarray(painted).save(temporary)
