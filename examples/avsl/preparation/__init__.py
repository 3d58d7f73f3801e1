"""Preparation of a data folder for training, from downloaded videos and public lists."""
