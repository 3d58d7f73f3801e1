"""The command lines of the programs in ``examples/``; launchers there call ``main``."""
