"""The schedule in epochs, and averaged weights."""

from .ema import build_ema
from .epochs import iterations
from .schedule import apply_schedule, read_options

__all__ = ["apply_schedule", "build_ema", "iterations", "read_options"]
