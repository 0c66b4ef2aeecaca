"""The two losses, each with its mapping from logits to probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SoftmaxLoss(nn.Module):
    """One class per image: cross-entropy on logits, probabilities by softmax."""

    multi_label = False

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Maps logits ``(N, K)`` and class indices ``(N,)`` int64 to the mean loss, a float32 scalar >= 0."""
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    def per_image(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each image without label smoothing, from the same arguments as ``forward``.

        Returns:
            ``(N,)`` float32 >= 0; NaN where a label is no class index, which an evaluator refuses.
        """
        if labels.ndim != 1:
            return logits.new_full((len(logits),), torch.nan, dtype=torch.float32)
        # An index that is out of range would stop the process on a GPU.
        known = labels.long().clamp(0, logits.shape[1] - 1)
        losses = functional.cross_entropy(logits.float(), known, reduction="none")
        return losses.masked_fill(known != labels, torch.nan)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Maps logits ``(N, K)`` to probabilities ``(N, K)`` float32 in [0, 1]; each row sums to 1."""
        return logits.float().softmax(dim=1)


class SigmoidLoss(nn.Module):
    """Any number of classes per image: binary cross-entropy on logits, probabilities by sigmoid.

    Args:
        pos_weight: K weights of the positives, each above 0; None for 1.
    """

    multi_label = True
    pos_weight: Tensor | None

    def __init__(self, pos_weight: Sequence[float] | None = None):
        super().__init__()
        weight = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.float32)
        # Not in the state dict: it describes the data, and the checkpoint already has it in its config text.
        self.register_buffer("pos_weight", weight, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Maps logits ``(N, K)`` and 0/1 labels ``(N, K)`` float to the mean over N x K, a float32 scalar >= 0."""
        return functional.binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=self.pos_weight)

    def per_image(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss over the classes of each image without ``pos_weight``, from the same arguments as ``forward``.

        Returns:
            ``(N,)`` float32 >= 0; NaN where the labels are not multi-hot, which an evaluator refuses.
        """
        if labels.shape != logits.shape:
            return logits.new_full((len(logits),), torch.nan, dtype=torch.float32)
        return functional.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none").mean(dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Maps logits ``(N, K)`` to independent probabilities ``(N, K)`` float32 in [0, 1]."""
        return logits.float().sigmoid()
