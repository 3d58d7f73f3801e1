"""Evaluation on held-out scenes: predictions, scores, reports and timing."""
