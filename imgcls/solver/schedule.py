"""A schedule that goes on where a checkpoint left it."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


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
