"""A loss that is not finite: the run stops before anything is saved, and says where to look."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from imgcls.checkpoint import read_tag
from imgcls.errors import UserError


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss is infinite or not a number."""


class FiniteCheck:
    """Looks at the losses of every batch.

    On a CPU it does so before the weights see them. A GPU is not waited for: there ``settle`` looks at all that came
    since the last time.

    Args:
        device_type: of the losses.
        run_folder: its last checkpoint is named.
    """

    def __init__(self, device_type: str, run_folder: str):
        self.at_once = device_type == "cpu"
        self.run_folder = run_folder
        self._unseen: list[tuple[Mapping[str, Tensor], list[Any], int, float]] = []

    def see(self, losses: Mapping[str, Tensor], batch: Any, iteration: int, lr: float) -> None:
        """Takes in the losses of one batch.

        Raises:
            FloatingPointError: as ``settle``.
        """
        losses = {name: loss.detach() for name, loss in losses.items()}
        self._unseen.append((losses, _image_ids(batch), iteration, lr))
        if self.at_once:
            self.settle()

    def settle(self) -> None:
        """Looks at every loss that was not looked at yet.

        Raises:
            FloatingPointError: one of them is not finite; names the iteration, each part, the learning rate, the
                pictures and the last good checkpoint.
        """
        if not self._unseen:
            return
        finite = torch.stack([sum(losses.values()).isfinite() for losses, *_ in self._unseen]).tolist()
        seen, self._unseen = self._unseen, []
        if all(finite):
            return
        losses, image_ids, iteration, lr = seen[finite.index(False)]
        values = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
        raise NonFiniteLossError(
            f"the loss is not finite at iteration {iteration} ({values}; learning rate {lr:g}; image ids "
            f"{image_ids}); {_last_checkpoint(self.run_folder)}; lower SOLVER.BASE_LR, lengthen the warm-up, or look "
            "at those pictures and their labels"
        )


def _image_ids(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.get("image_id", ()))
    return [sample.get("image_id") for sample in batch]


def _last_checkpoint(run_folder: str) -> str:
    last = read_tag(run_folder)
    return f"the last good checkpoint is {last}" if last else "no checkpoint yet"
