"""The commands: one file per program in ``examples/``."""
