"""Data of training and evaluation: folders of clips, scenes decoded from them, batches in a reproducible order."""
