"""The length of training, options of the optimizer on resume, and averaged weights."""

from imgcls.solver.schedule import EmaModel, apply_schedule, build_ema, iterations, read_options

__all__ = ["EmaModel", "apply_schedule", "build_ema", "iterations", "read_options"]
