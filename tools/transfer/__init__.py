"""The transfer experiment: a synthetic detection set, and what a backbone trained as a classifier is worth on it."""

from transfer.synthetic import register_synthetic_set

register_synthetic_set()
