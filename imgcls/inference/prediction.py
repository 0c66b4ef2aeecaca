"""The prediction for one image, made from the probabilities of a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imgcls.errors import UserError
from imgcls.inference.classifier import ClassifierInfo


@dataclass(frozen=True)
class Prediction:
    """Classes and probabilities of one image.

    Attributes:
        source: the path of the image, or its position in what was predicted, counted from 0.
        classes: the most probable classes, best first.
        probabilities: theirs, in [0, 1].
        above_threshold: the classes with a probability above their own threshold, best first; None without thresholds,
            that is, for a softmax head.
        error: why the image cannot be read; then there are no classes.
        scores: float32 ``(K,)``, the probabilities of all classes in the order of the labels.
    """

    source: str | int
    classes: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    above_threshold: list[str] | None = None
    error: str = ""
    scores: Tensor = field(default_factory=lambda: torch.empty(0), repr=False, compare=False)


class Ranking:
    """Turns probabilities into predictions.

    Args:
        info: of the classifier.
        topk: number of classes to give; more than there are gives all.
        threshold: replaces the thresholds of the classifier; a softmax head has none of its own.

    Raises:
        UserError: a value is out of range.
    """

    def __init__(self, info: ClassifierInfo, topk: int = 5, threshold: float | None = None):
        if topk < 1:
            raise UserError(f"topk is {topk}; allowed: a whole number from 1")
        if threshold is not None and not 0 <= threshold <= 1:
            raise UserError(f"threshold is {threshold}; allowed: a probability, from 0 to 1")
        self.classes = info.classes
        self.topk = min(topk, len(info.classes))
        values = info.thresholds if threshold is None else [threshold] * len(info.classes)
        self.thresholds = None if values is None else torch.tensor(values, dtype=torch.float32)

    def __call__(self, sources: Sequence[str | int], probabilities: Tensor) -> Iterator[Prediction]:
        """The predictions for N images.

        Args:
            sources: N paths or positions.
            probabilities: ``(N, K)``, see ``Classifier.probabilities``.

        Raises:
            UserError: a probability is not a number.
        """
        broken = (~torch.isfinite(probabilities).all(dim=1)).nonzero()
        if len(broken):
            raise UserError(
                f"{sources[int(broken[0])]}: its probabilities are not finite numbers; the weights are damaged, use "
                "another checkpoint"
            )
        best, order = probabilities.topk(self.topk, dim=1)
        for source, row, values, indices in zip(sources, probabilities, best.tolist(), order.tolist(), strict=True):
            names = [self.classes[index] for index in indices]
            yield Prediction(source, names, values, self._above(row), scores=row)

    def _above(self, row: Tensor) -> list[str] | None:
        if self.thresholds is None:
            return None
        above = (row > self.thresholds).nonzero().flatten()
        order = above[row[above].argsort(descending=True, stable=True)]
        return [self.classes[index] for index in order.tolist()]
