"""Readers of the public annotation files, folders of masks, and rasterization of boxes."""

from sslosses.annotations.flickr import read_flickr
from sslosses.annotations.masks import ClipMasks, MaskFolder, read_masks
from sslosses.annotations.mixtures import read_vggsound_mixtures
from sslosses.annotations.music import SplitEntry, read_music_duet, read_music_solo, read_music_split
from sslosses.annotations.rasterize import rasterize, rasterize_annotators, rasterize_sum
from sslosses.annotations.records import AnnotationError, Annotations, InvalidBox, MixtureRecord, Record, Report
from sslosses.annotations.vggss import read_vggss

__all__ = [
    "AnnotationError",
    "Annotations",
    "ClipMasks",
    "InvalidBox",
    "MaskFolder",
    "MixtureRecord",
    "Record",
    "Report",
    "SplitEntry",
    "rasterize",
    "rasterize_annotators",
    "rasterize_sum",
    "read_flickr",
    "read_masks",
    "read_music_duet",
    "read_music_solo",
    "read_music_split",
    "read_vggsound_mixtures",
    "read_vggss",
]
