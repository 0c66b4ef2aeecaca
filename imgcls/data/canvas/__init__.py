"""A detection set made of what is at hand: real items pasted on photographs, every box exact."""

from .make import make_canvas
from .sources import find_items

__all__ = ["find_items", "make_canvas"]
