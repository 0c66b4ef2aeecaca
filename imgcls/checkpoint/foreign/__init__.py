"""Weights of other projects as classification checkpoints of ours."""

from .convert import SOURCES, convert
from .files import read_weights
from .upstream import is_upstream

__all__ = ["SOURCES", "convert", "is_upstream", "read_weights"]
