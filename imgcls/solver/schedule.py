"""The length of training in iterations, options of the optimizer on resume, and averaged weights."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def iterations(epochs: int, num_images: int, batch_size: int) -> int:
    """Computes the iterations in which every image is seen ``epochs`` times, rounded; at least 1 for 1 epoch or more.

    The training stream does not stop at the end of an epoch: a batch can contain images of two, and none is dropped.

    Args:
        epochs: number of epochs, 0 or more.
        num_images: size of the training set.
        batch_size: images per iteration, over all processes.
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
    """Builds the average of ``SOLVER.EMA_DECAY``, or returns None where that is 0.

    Args:
        cfg: the config.
        model: see ``EmaModel``. Weights loaded before the first update are where the average starts.
    """
    return EmaModel(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None


def read_options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Reads learning rate, weight decay, momentum, ... of each parameter group."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def apply_schedule(
    optimizer: Optimizer, scheduler: LRScheduler, options: Sequence[dict[str, Any]], base_lrs: Sequence[float]
) -> None:
    """Restores the config's options after loading a checkpoint has replaced them with its own.

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
