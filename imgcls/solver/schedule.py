"""Epochs to iterations: the one place that says how long an epoch is."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def iterations(epochs: int, num_images: int, batch_size: int) -> int:
    """The iterations that see every image ``epochs`` times, to the nearest; at least 1 for at least one epoch.

    The training stream does not stop at the end of an epoch: a batch can hold images of two, and none is dropped.

    Args:
        epochs: how many, from 0.
        num_images: of the training set.
        batch_size: of all processes together.
    """
    return max(round(epochs * num_images / batch_size), min(epochs, 1))


def build_ema(cfg: CfgNode, model: nn.Module) -> AveragedModel | None:
    """The average that ``SOLVER.EMA_DECAY`` asks for, with BN's statistics averaged alike; None for 0.

    Its first update copies the weights, so that loaded ones are what it starts from.

    Args:
        model: not wrapped for distributed training.
    """
    decay = cfg.SOLVER.EMA_DECAY
    if decay == 0:
        return None
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    ema.n_averaged = ema.n_averaged.cpu()  # it is looked at in every step, and a GPU should not be waited for
    return ema


def read_options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Learning rate, weight decay, momentum, ... of each parameter group."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def apply_schedule(
    optimizer: Optimizer, scheduler: LRScheduler, options: Sequence[dict[str, Any]], base_lrs: Sequence[float]
) -> None:
    """Puts the config's options back after a checkpoint has replaced them by its own.

    With the config of the checkpoint this changes nothing; with another one its values hold from here on.

    Args:
        optimizer: whose momentum buffers were loaded.
        scheduler: stands at the iteration of the checkpoint.
        options: of ``read_options``, before the checkpoint was loaded.
        base_lrs: the scheduler's, before the checkpoint was loaded.
    """
    scheduler.base_lrs = list(base_lrs)
    for group, own, lr in zip(optimizer.param_groups, options, scheduler.get_lr(), strict=True):
        group.update(own)
        group["lr"] = lr
