"""Readers of the public annotation files, folders of masks, and rasterization of boxes."""

from sslosses.annotations.dsol import read_dsol_audioset, read_dsol_music
from sslosses.annotations.extended import read_extended
from sslosses.annotations.flickr import read_flickr
from sslosses.annotations.masks import ClipMasks, MaskFolder, read_masks
from sslosses.annotations.mixtures import read_vggsound_mixtures
from sslosses.annotations.music import SplitEntry, read_music_duet, read_music_solo, read_music_split
from sslosses.annotations.rasterize import rasterize, rasterize_annotators, rasterize_sum
from sslosses.annotations.records import (
    AnnotationError,
    Annotations,
    InvalidBox,
    MixtureRecord,
    NegativeRecord,
    Record,
    Report,
)
from sslosses.annotations.sslalign import read_sslalign
from sslosses.annotations.vggss import read_vggss
from sslosses.annotations.videos import video_of

__all__ = [
    "AnnotationError",
    "Annotations",
    "ClipMasks",
    "InvalidBox",
    "MaskFolder",
    "MixtureRecord",
    "NegativeRecord",
    "Record",
    "Report",
    "SplitEntry",
    "rasterize",
    "rasterize_annotators",
    "rasterize_sum",
    "read_dsol_audioset",
    "read_dsol_music",
    "read_extended",
    "read_flickr",
    "read_masks",
    "read_music_duet",
    "read_music_solo",
    "read_music_split",
    "read_sslalign",
    "read_vggsound_mixtures",
    "read_vggss",
    "video_of",
]
