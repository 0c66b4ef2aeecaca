"""The numbers of an iteration, which stay on the device until somebody looks."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor

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
