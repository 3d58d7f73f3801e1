"""Losses, optimal-transport solvers, masks and metrics for audio-visual sound source localization."""

__version__ = "0.1.0"
