"""The two losses, each with the map from logits to probabilities that belongs to it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SoftmaxLoss(nn.Module):
    """One class an image: cross-entropy on logits, probabilities by softmax."""

    multi_label = False

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(N, K)`` and class indices ``(N,)`` int64 to the mean loss, a scalar >= 0."""
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits ``(N, K)`` to probabilities ``(N, K)`` float32 in [0, 1] that add up to 1 in a row."""
        return logits.float().softmax(dim=1)


class SigmoidLoss(nn.Module):
    """Any number of classes an image: binary cross-entropy on logits, probabilities by sigmoid.

    Args:
        pos_weight: K weights of the positives above 0, or None for 1.
    """

    multi_label = True

    def __init__(self, pos_weight: Sequence[float] | None = None):
        super().__init__()
        weight = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.float32)
        # Not in the state dict: it describes the data, and the config text in the checkpoint has it.
        self.register_buffer("pos_weight", weight, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(N, K)`` and 0/1 labels ``(N, K)`` float to the mean loss over N x K, a scalar >= 0."""
        return functional.binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=self.pos_weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits ``(N, K)`` to probabilities ``(N, K)`` float32 in [0, 1], each on its own."""
        return logits.float().sigmoid()
