"""Prepared data: folders of clips with their lists, scenes decoded from them, and batches in a reproducible order."""
