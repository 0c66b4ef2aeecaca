"""The length of training in iterations, the optimizer's options after a resume, and averaged weights."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def iterations(epochs: int, num_images: int, batch_size: int) -> int:
    """Converts epochs to iterations of ``batch_size`` images over all processes: rounded, at least 1 for an epoch.

    The training stream does not stop at the end of an epoch: a batch can contain images of two epochs, and no image is
    dropped.
    """
    return max(round(epochs * num_images / batch_size), min(epochs, 1))


class EmaModel(AveragedModel):
    """An exponential moving average of a model's parameters and buffers, updated without waiting for the GPU.

    ``AveragedModel`` moves its counter between host and device in every update, which synchronises both.

    Args:
        model: the model to average, not wrapped for distributed training. The first update copies it.
        decay: weight of the previous average, between 0 and 1.
    """

    n_averaged: torch.Tensor

    def __init__(self, model: nn.Module, decay: float):
        self.average = get_ema_multi_avg_fn(decay)
        super().__init__(model, multi_avg_fn=self.average, use_buffers=True)
        self.n_averaged = torch.tensor(0)  # on the CPU

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Updates the average with the current state of ``model``, which must be on the same device."""
        if self.n_averaged == 0:
            super().update_parameters(model)
            return
        pairs = [
            *zip(self.module.parameters(), model.parameters(), strict=True),
            *zip(self.module.buffers(), model.buffers(), strict=True),
        ]
        for floating in (True, False):
            chosen = [pair for pair in pairs if pair[0].is_floating_point() == floating]
            if chosen:
                self.average([own for own, _ in chosen], [current for _, current in chosen], None)
        self.n_averaged += 1


def build_ema(cfg: CfgNode, model: nn.Module) -> EmaModel | None:
    """Builds the ``EmaModel`` of ``SOLVER.EMA_DECAY``, or returns None if that is 0.

    The average starts from the weights that ``model`` has at the first update.
    """
    return EmaModel(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None


def read_options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Returns learning rate, weight decay, momentum, ... of each parameter group."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def apply_schedule(
    optimizer: Optimizer, scheduler: LRScheduler, options: Sequence[dict[str, Any]], base_lrs: Sequence[float]
) -> None:
    """Puts the config's options back after a checkpoint has replaced them with the options of its own config.

    With the checkpoint's own config this changes nothing; a changed config applies from this iteration on.

    Args:
        optimizer: the optimizer, with its state loaded from the checkpoint.
        scheduler: the scheduler, at the iteration of the checkpoint.
        options: result of ``read_options`` before the checkpoint was loaded.
        base_lrs: the scheduler's ``base_lrs`` before the checkpoint was loaded.
    """
    scheduler.base_lrs = list(base_lrs)
    for group, own, lr in zip(optimizer.param_groups, options, scheduler.get_lr(), strict=True):
        group.update(own)
        group["lr"] = lr
