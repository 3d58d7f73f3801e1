"""Metrics: the pure functions, the classes, protocols, results, chance levels, negative sounds."""

from __future__ import annotations

from inputs.metrics import functions, localization, negative_sounds, protocols, states

CLASSES = [
    *functions.CLASSES,
    *localization.CLASSES,
    *states.CLASSES,
    *protocols.CLASSES,
    *negative_sounds.CLASSES,
]
