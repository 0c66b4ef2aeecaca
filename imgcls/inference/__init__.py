"""A trained classifier, made faster."""

from imgcls.inference.fold import fold_batch_norm

__all__ = ["fold_batch_norm"]
