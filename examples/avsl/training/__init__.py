"""Training: one run from data to report."""
