"""Which image goes into which shard: fixed before packing starts, so that an interrupted packing can be resumed."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from imgcls.disk import write_file
from imgcls.errors import UserError

_PLAN = "plan.json"


@dataclass(frozen=True)
class Settings:
    """The arguments of `pack_dataset` that determine the shards, the kind of label, and the records' `checksum`."""

    source: str
    short_side: int
    quality: int
    shard_size: int
    skip_bad_images: bool
    multi_label: bool
    content: str


def shuffled(size: int) -> NDArray[np.int64]:
    """The fixed order of packing; it mixes the classes, because training reads only a few shards at a time."""
    return np.random.RandomState(0).permutation(size)  # unlike default_rng, its stream never changes


def checksum(records: Sequence[dict]) -> str:
    """SHA-256 of the image ids and labels of all records, in order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps([record["image_id"], record.get("labels", record.get("label"))]).encode())
    return digest.hexdigest()


def shard_bounds(samples: int, mean_size: float, shard_size: int) -> NDArray[np.int64]:
    """Where each shard starts in the order of packing, and where the last one ends; lengths differ by at most 1.

    ``samples`` is at least 1. ``mean_size``, that of a stored sample, and the approximate ``shard_size`` are in bytes.
    """
    count = min(samples, max(1, round(samples * mean_size / shard_size)))
    return np.arange(count + 1) * samples // count


def read_plan(folder: str, settings: Settings) -> list[int] | None:
    """The shard bounds of an unfinished packing with the same settings; None if there is none.

    Raises:
        UserError: the unfinished packing has other settings.
    """
    path = os.path.join(folder, _PLAN)
    try:
        with open(path, encoding="utf-8") as file:
            plan = json.load(file)
    except FileNotFoundError:
        return None
    for key, value in asdict(settings).items():
        if plan.get(key) != value:
            raise UserError(
                f"{os.path.dirname(folder)}: was started with {_show(key, plan.get(key))}, but now it is "
                f"{_show(key, value)}; use the same to resume, or remove the folder to start again"
            )
    return plan["bounds"]


def write_plan(folder: str, settings: Settings, bounds: Sequence[int]) -> None:
    """Stores the settings and shard bounds."""
    plan = json.dumps({**asdict(settings), "bounds": list(bounds)})
    write_file(os.path.join(folder, _PLAN), plan.encode(), folder)


def _show(key: str, value: object) -> str:
    return "other images or labels in the source" if key == "content" else f"{key} {value!r}"
