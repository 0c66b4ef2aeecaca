"""The transfer experiment: a synthetic detection set, and detectors trained on it from a classifier's backbone."""

from transfer.synthetic import register_synthetic_set

register_synthetic_set()
