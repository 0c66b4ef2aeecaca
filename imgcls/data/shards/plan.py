"""What is packed into which shard: fixed before the first image is stored, so that a killed packing can go on."""

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
    """What was asked for.

    Attributes:
        source: the dataset's name.
        short_side: that larger images are shrunk to, in pixels.
        quality: of the JPEG files, 1-100.
        shard_size: in bytes, about.
        skip_bad_images: whether an image that cannot be read is left out; otherwise it ends the packing.
        multi_label: whether the records have ``"labels"``.
        content: a checksum of all ids and labels in their order.
    """

    source: str
    short_side: int
    quality: int
    shard_size: int
    skip_bad_images: bool
    multi_label: bool
    content: str


def shuffled(size: int) -> NDArray[np.int64]:
    """The order of packing, always the same: a shard has images of all classes, as training reads few at a time."""
    return np.random.RandomState(0).permutation(size)  # its stream is frozen, default_rng's is not


def checksum(records: Sequence[dict]) -> str:
    """Of the ids and labels of all records, in their order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps([record["image_id"], record.get("labels", record.get("label"))]).encode())
    return digest.hexdigest()


def shard_bounds(samples: int, mean_size: float, shard_size: int) -> NDArray[np.int64]:
    """Where the shards begin in the order of packing, and where the last one ends; all are equally long, but for one.

    Args:
        samples: at least 1.
        mean_size: of a stored sample, in bytes.
        shard_size: in bytes.
    """
    count = min(samples, max(1, round(samples * mean_size / shard_size)))
    return np.arange(count + 1) * samples // count


def read_plan(folder: str, settings: Settings) -> list[int] | None:
    """The bounds that an earlier packing with the same settings fixed, or None where there was none.

    Raises:
        UserError: it had other settings.
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
                f"{os.path.dirname(folder)}: was begun with {_show(key, plan.get(key))}, which is now "
                f"{_show(key, value)}; use the same to go on, or remove the folder to begin anew"
            )
    return plan["bounds"]


def write_plan(folder: str, settings: Settings, bounds: Sequence[int]) -> None:
    """Fixes the bounds."""
    plan = json.dumps({**asdict(settings), "bounds": list(bounds)})
    write_file(os.path.join(folder, _PLAN), plan.encode(), folder)


def _show(key: str, value: object) -> str:
    return "other images or labels in the source" if key == "content" else f"{key} {value!r}"
