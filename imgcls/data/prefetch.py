"""The next batch's way to the GPU, while the GPU works on this one."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def prefetch(batches: Iterable[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    """The same batches, with their tensors on a CUDA device; on any other device they pass as they are.

    Each copy is on a stream of its own, one batch ahead. It is asynchronous from pinned memory.

    Args:
        batches: tensors and anything else by name.
        device: of the model.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    waiting = None
    for batch in batches:
        coming = _start(batch, device, stream)
        if waiting is not None:
            yield _arrive(*waiting, device)
        waiting = coming
    if waiting is not None:
        yield _arrive(*waiting, device)


def _start(batch: dict[str, Any], device: torch.device, stream: Any) -> tuple[dict[str, Any], Any]:
    with torch.cuda.stream(stream):
        moved = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        return moved, stream.record_event()


def _arrive(batch: dict[str, Any], copied: Any, device: torch.device) -> dict[str, Any]:
    """Makes what is computed from now on wait for the copy, not the host."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for value in batch.values():
        if isinstance(value, Tensor):
            value.record_stream(current)  # its memory is not for the copying stream again before that is done
    return batch
