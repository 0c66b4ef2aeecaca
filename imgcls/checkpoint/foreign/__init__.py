"""Converts weights of other projects to checkpoints of imgcls."""

from imgcls.checkpoint.files import read_weights
from imgcls.checkpoint.foreign.conversion import (
    AUTO,
    SOURCES,
    Conversion,
    ForeignWeightsError,
    convert,
    plan_conversion,
)
from imgcls.checkpoint.foreign.sources import is_2020_project
from imgcls.checkpoint.foreign.stated import Stated

__all__ = [
    "AUTO",
    "SOURCES",
    "Conversion",
    "ForeignWeightsError",
    "Stated",
    "convert",
    "is_2020_project",
    "plan_conversion",
    "read_weights",
]
