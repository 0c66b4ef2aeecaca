"""Weights of other projects as classification checkpoints of ours."""

from imgcls.checkpoint.files import read_weights
from imgcls.checkpoint.foreign.conversion import SOURCES, convert
from imgcls.checkpoint.foreign.sources import is_upstream

__all__ = ["SOURCES", "convert", "is_upstream", "read_weights"]
