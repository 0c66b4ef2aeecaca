"""A loss that is not finite: the run stops before the weights see it, and says where to look."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from imgcls.checkpoint import read_tag
from imgcls.errors import UserError


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss is infinite or not a number."""


def check_finite(losses: Mapping[str, Tensor], batch: Any, iteration: int, lr: float, run_folder: str) -> None:
    """Looks at the losses of one batch before they are used.

    Raises:
        FloatingPointError: one of them is not finite; the iteration, each part, the learning rate, the pictures and
            the last good checkpoint.
    """
    if sum(losses.values()).isfinite():
        return
    values = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
    raise NonFiniteLossError(
        f"the loss is not finite at iteration {iteration} ({values}; learning rate {lr:g}; image ids "
        f"{_image_ids(batch)}); {_last_checkpoint(run_folder)}; lower SOLVER.BASE_LR, lengthen the warm-up, or look at "
        "those pictures and their labels"
    )


def _image_ids(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.get("image_id", ()))
    return [sample.get("image_id") for sample in batch]


def _last_checkpoint(run_folder: str) -> str:
    last = read_tag(run_folder)
    return f"the last good checkpoint is {last}" if last else "no checkpoint yet"
