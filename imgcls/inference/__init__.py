"""Faster inference with a trained model."""

from imgcls.inference.fold import fold_batch_norm

__all__ = ["fold_batch_norm"]
