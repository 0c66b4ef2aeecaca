"""A trained classifier, made faster."""

from .fold import fold_batch_norm

__all__ = ["fold_batch_norm"]
