"""The schedule in epochs, and averaged weights."""

from imgcls.solver.schedule import apply_schedule, build_ema, iterations, read_options

__all__ = ["apply_schedule", "build_ema", "iterations", "read_options"]
