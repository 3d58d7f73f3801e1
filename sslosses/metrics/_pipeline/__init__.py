"""The steps of scoring, in the order of the data: samples → targets → scorer → tables."""
