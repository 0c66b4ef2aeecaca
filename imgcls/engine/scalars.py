"""Losses and other scalars of iterations, which stay on the device until they are logged, and the printed line."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.functional import one_hot

from imgcls.config.check import reported_topk
from imgcls.evaluation.metrics import topk_accuracy


class IterationScalars(NamedTuple):
    """The values of one iteration: means over the ranks, and durations of the slowest rank."""

    iteration: int
    losses: dict[str, float]
    scalars: dict[str, float]
    seconds: dict[str, float]

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        return sum(self.losses.values())


@dataclass(frozen=True)
class LabelledScores:
    """All probabilities of an evaluation, on the CPU.

    Attributes:
        probabilities: ``(N, K)`` in [0, 1].
        labels: ``(N, K)``, 0 or 1.
        classes: K names.
        iteration: that was evaluated.
    """

    probabilities: Tensor
    labels: Tensor
    classes: Sequence[str]
    iteration: int


class RunStorage(EventStorage):
    """The storage of a run, which also hands results and probabilities of an evaluation to the writers.

    Attributes:
        results: of the last evaluation, by the names of metrics.json.
    """

    def __init__(self, start_iter: int = 0):
        super().__init__(start_iter)
        self.results: dict[str, float] = {}
        self._scores: dict[str, LabelledScores] = {}

    def put_scores(self, name: str, probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
        """Keeps the probabilities on one test set until they are taken, or until those of the next evaluation.

        Args:
            name: of the test set and weights; empty where there is one only.
            probabilities: ``(N, K)``.
            labels: ``(N,)`` indices, or ``(N, K)``, 0 or 1.
            classes: K names.
        """
        if labels.ndim == 1:
            labels = one_hot(labels, len(classes))
        self._scores[name] = LabelledScores(probabilities, labels, classes, self.iter)

    def take_scores(self) -> dict[str, LabelledScores]:
        """What was put since the last call, by name."""
        scores, self._scores = self._scores, {}
        return scores


class Scalars:
    """Collects the scalars of iterations, so that they can be read together once every ``SOLVER.LOG_PERIOD``.

    Reading makes the host wait for the GPU, and ranks wait for each other. This wait is divided between the iterations
    that were read, and added to their ``"time"``.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, float]]] = []

    def add(
        self, iteration: int, losses: Mapping[str, Tensor], scalars: Mapping[str, Tensor], **seconds: float
    ) -> None:
        """Adds one iteration: losses, other scalars that are logged without smoothing, and durations by name."""
        self._rows.append((iteration, losses, scalars, seconds))

    def read(self, storage: EventStorage, begin: float | None = None) -> list[IterationScalars]:
        """Returns what was added since the last call and puts it into the storage; to be called on all ranks.

        ``begin`` is ``time.perf_counter()`` of when the host began to wait for the device; None for now.
        """
        begin = time.perf_counter() if begin is None else begin
        numbers = [(_numbers(losses), _numbers(scalars)) for _, losses, scalars, _ in self._rows]
        wait = (time.perf_counter() - begin) / max(len(numbers), 1)
        local = [
            (iteration, *values, {**seconds, "time": seconds["time"] + wait} if "time" in seconds else seconds)
            for (iteration, _, _, seconds), values in zip(self._rows, numbers, strict=True)
        ]
        self._rows = []
        rows = []
        for same in zip(*comm.all_gather(local), strict=True):
            iterations, losses, scalars, seconds = zip(*same, strict=True)
            rows.append(
                IterationScalars(
                    iterations[0], _reduce(np.mean, losses), _reduce(np.mean, scalars), _reduce(np.max, seconds)
                )
            )
        now = storage.iter
        for row in rows:
            storage.iter = row.iteration
            storage.put_scalars(total_loss=row.loss, **(row.losses if len(row.losses) > 1 else {}), **row.seconds)
            storage.put_scalars(**row.scalars, smoothing_hint=False)
        storage.iter = now
        return rows


class TrainingAccuracy:
    """Top-k accuracy of the training batches, captured by a forward hook on the loss; empty for a multi-label loss.

    Args:
        loss: called with logits ``(N, K)`` and labels ``(N,)``.
        topk: the k of each accuracy; as in evaluation, those from the class count on are left out unless none remains.
    """

    def __init__(self, loss: nn.Module, topk: Sequence[int]):
        self.topk = topk
        self._batches: list[tuple[Tensor, Tensor]] = []
        if not loss.multi_label:
            loss.register_forward_hook(lambda module, inputs, output: self._keep(*inputs))

    def read(self) -> dict[str, Tensor]:
        """``{"train/top1": 0-100, ...}`` over the batches since the last call; scalars on their device."""
        result = {}
        for k in reported_topk(self.topk, self._batches[0][0].shape[1]) if self._batches else ():
            parts = [topk_accuracy(x.topk(k).indices, y, k) for x, y in self._batches]
            result[f"train/top{k}"] = torch.stack(parts).mean()
        self._batches.clear()
        return result

    def _keep(self, logits: Tensor, labels: Tensor) -> None:
        self._batches.append((logits.detach(), labels))


class Progress:
    """Means over the epoch, or over as much of it as this process has seen.

    Args:
        num_images: size of the training set.
        batch_size: of all ranks together.
        last: the last iteration of the run.

    Attributes:
        count: iterations that the means are over.
    """

    def __init__(self, num_images: int, batch_size: int, last: int):
        self.num_images = num_images
        self.batch_size = batch_size
        self.last = last
        self.count = 0
        self._sums: dict[str, float] = {}

    def epoch(self, iteration: int) -> int:
        """The epoch that the first image of an iteration belongs to."""
        return iteration * self.batch_size // self.num_images

    def epochs_done(self, iteration: int) -> int:
        """How many epochs are complete after an iteration, if it is the last one of an epoch; otherwise 0."""
        done = self.epoch(iteration + 1)
        return done if done > self.epoch(iteration) else 0

    def add(self, rows: Sequence[IterationScalars]) -> None:
        """Adds iterations; their ``seconds`` have ``"time"``, which includes ``"data_time"``, the wait for data."""
        for row in rows:
            if row.iteration > 0 and self.epochs_done(row.iteration - 1):
                self._sums, self.count = {}, 0
            self.count += 1
            values = {"Time": row.seconds["time"], "Data": row.seconds["data_time"], "Loss": row.loss, **row.scalars}
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value

    @property
    def means(self) -> dict[str, float]:
        """The means by name (``"Time"``, ``"Data"``, ``"Loss"``, ...); empty before the first iteration."""
        return {name: value / self.count for name, value in self._sums.items()}

    def line(self, iteration: int) -> str:
        """``Epoch [3][120/351]  Time 0.101  Data 0.004  Loss 1.235  train/top1 56.3  1267 images/s  left 0:12:03``."""
        mean = self.means
        epoch = self.epoch(iteration)
        first, end = (-(-number * self.num_images // self.batch_size) for number in (epoch, epoch + 1))
        parts = [f"Epoch [{epoch}][{iteration - first + 1}/{end - first}]"]
        parts += [f"{name} {value:.3f}" for name, value in mean.items()]
        parts.append(f"{self.batch_size / mean['Time']:.0f} images/s")
        parts.append(f"left {timedelta(seconds=round((self.last - iteration) * mean['Time']))}")
        return "  ".join(parts)


def _numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Copies all values from the device at once."""
    if not values:
        return {}
    return dict(zip(values, torch.stack([value.double() for value in values.values()]).tolist(), strict=True))


def _reduce(function: Callable[..., Any], parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: function([part[name] for part in parts]).item() for name in parts[0]}
