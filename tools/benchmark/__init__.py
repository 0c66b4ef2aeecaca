"""Benchmarks of the package: every figure is a ratio to a reference that takes turns with it in the same run."""
