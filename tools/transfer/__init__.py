"""The transfer experiment: a synthetic detection set, and what a handed-over backbone is worth on it."""

from transfer.synthetic import register_canvas

register_canvas()
