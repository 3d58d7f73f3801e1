"""Evaluation on held-out scenes: predictions, scores, reports, timing."""
