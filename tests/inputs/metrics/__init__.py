"""Metrics: the pure functions, the classes, protocols, results, chance levels, controls."""

from __future__ import annotations

from inputs.metrics import controls, functions, localization, protocols, states

CLASSES = [
    *functions.CLASSES,
    *localization.CLASSES,
    *states.CLASSES,
    *protocols.CLASSES,
    *controls.CLASSES,
]
