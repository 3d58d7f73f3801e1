"""The command ``python -m sslosses.evaluate``: scores saved heatmaps by one or more protocols."""

from sslosses.evaluate.command import main

__all__ = ["main"]
