"""Readers of the field's annotation files, and boxes as masks."""

from sslosses.annotations.music import SplitEntry, read_music_duet, read_music_solo, read_music_split
from sslosses.annotations.rasterize import rasterize
from sslosses.annotations.records import AnnotationError, Annotations, InvalidBox, Record, Report

__all__ = [
    "AnnotationError",
    "Annotations",
    "InvalidBox",
    "Record",
    "Report",
    "SplitEntry",
    "rasterize",
    "read_music_duet",
    "read_music_solo",
    "read_music_split",
]
