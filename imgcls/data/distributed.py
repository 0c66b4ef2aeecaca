"""Reading a dataset in a run of several processes: every rank gets the same records, or the same error."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from detectron2.utils import comm
from torch import distributed

from imgcls.data.dataset import Dataset, SerializedRecords, label_counts
from imgcls.data.shards.plan import checksum
from imgcls.errors import UserError

_CHECKED_RECORDS = 64


def read_on_all_ranks(name: str, read: Callable[[], Dataset]) -> Dataset:
    """Calls ``read`` on rank 0 and hands the dataset to every rank; without a process group this is just ``read()``.

    `SerializedRecords` are broadcast. Other stored records (shards, JSON columns) stay in their files: once rank 0 has
    opened them, every other rank opens them too, and the ranks compare what they found.

    Raises:
        UserError: rank 0 or, for records that stay in files, any other rank cannot read the dataset, or the ranks see
            different content. Every rank raises the same message, which starts with ``name`` or the rank that failed.
        RuntimeError: reading failed with an exception that is not a user's mistake; again on every rank.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return read()
    rank = distributed.get_rank()
    result: Any = _attempt(name, read) if rank == 0 else None
    in_files = isinstance(result, Dataset) and not isinstance(result.records, SerializedRecords)
    sent: list[Any] = [None if in_files else result]
    distributed.broadcast_object_list(sent, src=0, group=comm._get_global_gloo_group())
    if rank != 0:
        result = sent[0]
    if sent[0] is None:
        if rank != 0:
            result = _attempt(name, read)
        found = _attempt(name, partial(_fingerprint, result)) if isinstance(result, Dataset) else result
        _compare(name, comm.all_gather(found))
    if not isinstance(result, Dataset):
        raise result
    return result


def _attempt(name: str, function: Callable[[], Any]) -> Any:
    """The result of ``function``, or the exception that it raised in a form that can be sent to other ranks."""
    try:
        return function()
    except Exception as error:
        rank = distributed.get_rank()
        failure: Exception = RuntimeError(f"{name}: rank {rank} cannot read it: {error!r}")
        if isinstance(error, UserError):
            failure = type(error)(f"rank {rank}: {error}" if rank else str(error))
        failure.__cause__ = error  # for the traceback on this rank; it is not sent
        return failure


def _fingerprint(dataset: Dataset) -> dict[str, Any]:
    """What must be equal on all ranks; not file names, because machines can have different dataset folders."""
    records = dataset.records
    rows = np.unique(np.linspace(0, len(records) - 1, _CHECKED_RECORDS).astype(int))
    return {
        "the number of images": len(records),
        "the classes": dataset.classes,
        "the kind of label": "labels" if dataset.multi_label else "label",
        "the number of images of each label": sorted(label_counts(records).items()),
        "image ids and labels": checksum([records[int(row)] for row in rows]),
    }


def _compare(name: str, found: list[Any]) -> None:
    for result in found:
        if isinstance(result, Exception):
            raise result
    for rank, result in enumerate(found):
        for what, expected in found[0].items():
            if result[what] != expected:
                raise UserError(
                    f"{name}: {what} must be the same for all processes, but it is {_show(expected)} for rank 0 and "
                    f"{_show(result[what])} for rank {rank}; give every machine the same files"
                )


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."
