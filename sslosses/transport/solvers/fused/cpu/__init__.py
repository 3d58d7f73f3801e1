"""The fused solver on a CPU, compiled by numba."""
