"""The length of training, the optimizer's options after a resume, and averaged weights."""

from imgcls.solver.schedule import EmaModel, apply_schedule, build_ema, iterations, read_options

__all__ = ["EmaModel", "apply_schedule", "build_ema", "iterations", "read_options"]
