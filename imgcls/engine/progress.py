"""The line that the plain trainer prints: where it is, how fast, how well, and how long it still takes."""

from collections.abc import Sequence
from datetime import timedelta

from torch import Tensor, nn

from imgcls.evaluation.metrics import topk_accuracy

from .scalars import Row


class TrainingAccuracy:
    """Top-k accuracy of the training batches, by looking over the loss's shoulder; nothing for a multi-label loss.

    Args:
        loss: called with logits ``(N, K)`` and labels ``(N,)``.
        topk: the k of each accuracy; those above the class count are left out.
    """

    def __init__(self, loss: nn.Module, topk: Sequence[int]):
        self.topk = topk
        self._batches: list[tuple[Tensor, Tensor]] = []
        if not loss.multi_label:
            loss.register_forward_hook(lambda module, inputs, output: self._keep(*inputs))

    def read(self) -> dict[str, Tensor]:
        """``{"train/top1": 0-100, ...}`` over the batches since the last call; scalars on their device."""
        result = {}
        for k in self.topk:
            parts = [topk_accuracy(x.topk(k).indices, y, k) for x, y in self._batches if k <= x.shape[1]]
            if parts:
                result[f"train/top{k}"] = sum(parts) / len(parts)
        self._batches.clear()
        return result

    def _keep(self, logits: Tensor, labels: Tensor) -> None:
        self._batches.append((logits.detach(), labels))


class Progress:
    """Means over the epoch, or over as much of it as this process has seen.

    Args:
        num_images: of the training set.
        batch_size: of all processes together.
        last: the last iteration of the run.
    """

    def __init__(self, num_images: int, batch_size: int, last: int):
        self.num_images = num_images
        self.batch_size = batch_size
        self.last = last
        self._sums: dict[str, float] = {}
        self._count = 0

    def epoch(self, iteration: int) -> int:
        """The epoch that the first picture of an iteration belongs to."""
        return iteration * self.batch_size // self.num_images

    def epoch_ends(self, iteration: int) -> bool:
        """Whether the next iteration begins in another epoch."""
        return self.epoch(iteration + 1) > self.epoch(iteration)

    def add(self, rows: Sequence[Row]) -> None:
        """Takes in iterations, with their seconds in all (``"time"``) and those waiting for data (``"data_time"``)."""
        for row in rows:
            if row.iteration > 0 and self.epoch_ends(row.iteration - 1):
                self._sums, self._count = {}, 0
            self._count += 1
            values = {"Time": row.seconds["time"], "Data": row.seconds["data_time"], "Loss": row.loss, **row.shown}
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value

    def line(self, iteration: int) -> str:
        """``Epoch [3][120/351]  Time 0.101  Data 0.004  Loss 1.235  train/top1 56.3  1267 images/s  left 0:12:03``."""
        mean = {name: value / self._count for name, value in self._sums.items()}
        epoch, size = self.epoch(iteration), self.num_images / self.batch_size
        parts = [f"Epoch [{epoch}][{iteration - round(epoch * size) + 1}/{round(size)}]"]
        parts += [f"{name} {value:.3f}" for name, value in mean.items()]
        parts.append(f"{self.batch_size / mean['Time']:.0f} images/s")
        parts.append(f"left {timedelta(seconds=round((self.last - iteration) * mean['Time']))}")
        return "  ".join(parts)
