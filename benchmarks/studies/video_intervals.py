"""Videos of VGG-SS, MUSIC-Solo and MUSIC-Duet, and what they do to the interval of one and the same maps.

The maps are a centered Gaussian, scored by the protocol ``paper``. Its interval is computed twice: as if all frames
were independent, and over whole videos.

    python benchmarks/studies/video_intervals.py --metadata DIR

Takes two minutes on one core. Writes benchmarks/results/video-intervals.md.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from chance import SETS, DataSet
from study import markdown, metadata_folder, study_parser, write_text

from sslosses.annotations import Annotations, video_of
from sslosses.metrics import LocalizationResult, SoundLocalization

_CHUNK = 256
_SIDE = 28


class Results(NamedTuple):
    """Of the same maps."""

    over_frames: LocalizationResult
    over_videos: LocalizationResult


def measure(data: DataSet, annotations: Annotations) -> Results:
    """Scores a centered Gaussian with and without ids of videos."""
    offset = (torch.arange(_SIDE) + 0.5) / _SIDE - 0.5
    gaussian = torch.exp(-8 * (offset[:, None] ** 2 + offset**2))
    form = "vggsound" if data.title == "VGG-SS" else "music"
    records = list(annotations)
    frames, videos = (SoundLocalization(task=data.task) for _ in range(2))
    for start in range(0, len(records), _CHUNK):
        part = records[start : start + _CHUNK]
        boxes = [record.boxes for record in part]
        maps = [gaussian.expand(len(box), -1, -1) for box in boxes]
        frames.update(maps, boxes)
        videos.update(maps, boxes, videos=[video_of(record.clip, form) for record in part])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few videos, which the table shows
        return Results(frames.result(resamples=1000), videos.result())


def tables(results: dict[str, Results]) -> str:
    """One row per data set, and one row per metric of each."""
    counts, metrics = [], []
    for title, (over_frames, over_videos) in results.items():
        frames, videos = over_frames.videos, over_videos.videos
        assert frames is not None
        assert videos is not None
        share = f"{100 * videos.largest_share:.1f} %"
        counts.append((title, f"{frames.count:,}", f"{videos.count:,}", share, f"{videos.effective_count:,.1f}"))
        for i, (name, value) in enumerate(over_videos.metrics.items()):
            metrics.append(
                (
                    title if i == 0 else "",
                    name,
                    f"{100 * value:.1f}",
                    *(_shown(spread.intervals[name]) for spread in (frames, videos)),
                    f"{100 * videos.means[name]:.1f}",
                    _shown(videos.mean_intervals[name]),
                )
            )
    head = ("set", "metric, %", "value", "interval over frames", "over videos", "mean over videos", "its interval")
    return "\n".join(
        (
            markdown(("set", "frames", "videos", "share of the largest video", "effective number of videos"), counts),
            markdown(head, metrics),
        )
    )


def _shown(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def main(arguments: list[str] | None = None) -> None:
    parser = study_parser(__doc__, metadata=True)
    options = parser.parse_args(arguments)
    metadata = metadata_folder(parser, options)
    text = tables({data.title: measure(data, data.read(metadata / data.file)) for data in SETS})
    write_text(options.output / "video-intervals.md", text)
    print(text)


if __name__ == "__main__":
    main()
