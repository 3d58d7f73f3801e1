"""Losses of the systems that the paper compares itself with, one file each, by their papers or public code."""
