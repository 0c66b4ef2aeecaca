"""Converts weights of other projects to classification checkpoints."""

from imgcls.checkpoint.files import read_weights
from imgcls.checkpoint.foreign.conversion import SOURCES, convert
from imgcls.checkpoint.foreign.sources import is_2020_project

__all__ = ["SOURCES", "convert", "is_2020_project", "read_weights"]
