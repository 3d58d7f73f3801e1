"""Solvers, one file each, loaded by name; none knows another."""
