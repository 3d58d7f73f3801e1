"""Metrics: the pure functions, the classes, protocols, results, chance levels, intervals, controls."""

from __future__ import annotations

from inputs.metrics import controls, functions, localization, protocols, states, videos

CLASSES = [
    *functions.CLASSES,
    *localization.CLASSES,
    *states.CLASSES,
    *protocols.CLASSES,
    *videos.CLASSES,
    *controls.CLASSES,
]
