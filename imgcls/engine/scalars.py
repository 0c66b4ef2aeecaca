"""The numbers of an iteration, which stay on the device until somebody looks."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from imgcls.evaluation.metrics import topk_accuracy

_Values = Mapping[str, Tensor]


class Row(NamedTuple):
    """What one iteration gave: means over the processes, and the seconds of the slowest one."""

    iteration: int
    losses: dict[str, float]
    shown: dict[str, float]
    seconds: dict[str, float]

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        return sum(self.losses.values())


class Scalars:
    """Collects the scalars of iterations and reads all of them at once.

    Reading one makes a GPU's host wait until the GPU is done, and processes wait for each other: once every
    ``SOLVER.LOG_PERIOD`` iterations is enough.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, _Values, _Values, Mapping[str, float]]] = []

    def add(self, iteration: int, losses: _Values, shown: _Values, **seconds: float) -> None:
        """Takes in one iteration.

        Args:
            iteration: its number.
            losses: scalars on any device.
            shown: other scalars that are shown as they are, without smoothing.
            **seconds: how long something took.
        """
        self._rows.append((iteration, losses, shown, seconds))

    def read(self, storage: EventStorage) -> list[Row]:
        """All that was added since the last time, which also goes into the storage; to be called on all processes."""
        mine = [
            (iteration, _numbers(losses), _numbers(shown), seconds) for iteration, losses, shown, seconds in self._rows
        ]
        self._rows = []
        rows = []
        for same in zip(*comm.all_gather(mine), strict=True):
            numbers, losses, shown, seconds = zip(*same, strict=True)
            rows.append(Row(numbers[0], _over(np.mean, losses), _over(np.mean, shown), _over(np.max, seconds)))
        now = storage.iter
        for row in rows:
            storage.iter = row.iteration
            storage.put_scalars(total_loss=row.loss, **(row.losses if len(row.losses) > 1 else {}), **row.seconds)
            storage.put_scalars(**row.shown, smoothing_hint=False)
        storage.iter = now
        return rows


def _numbers(values: _Values) -> dict[str, float]:
    """One copy from the device for all of them."""
    if not values:
        return {}
    return dict(zip(values, torch.stack([value.double() for value in values.values()]).tolist(), strict=True))


def _over(reduce: Callable, parts: tuple[Mapping[str, float], ...]) -> dict[str, float]:
    return {name: reduce([part[name] for part in parts]).item() for name in parts[0]}


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
        """The epoch that the first image of an iteration belongs to."""
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
