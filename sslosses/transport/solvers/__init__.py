"""The solvers, loaded by name. No solver imports another."""
