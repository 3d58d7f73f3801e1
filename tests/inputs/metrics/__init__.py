"""Metrics: the pure functions, SoundLocalization and the other classes, protocols, results,
chance levels, intervals."""

from __future__ import annotations

from inputs.metrics import functions, localization, protocols, states, videos

CLASSES = [*functions.CLASSES, *localization.CLASSES, *states.CLASSES, *protocols.CLASSES, *videos.CLASSES]
