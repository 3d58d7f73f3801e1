"""From what a user passes to a metric: samples, targets, scores, tables, in this order."""
