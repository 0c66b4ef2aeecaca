"""Packing a dataset into a folder of shards."""

import fcntl
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.catalog import read_raw_dataset
from imgcls.data.dataset import to_dataset
from imgcls.data.image import BadImageError
from imgcls.data.shards.layout import FORMAT, INDEX, shard_name, table_path
from imgcls.data.shards.plan import Settings, checksum, read_plan, shard_bounds, shuffled, write_plan
from imgcls.data.shards.workers import run_jobs
from imgcls.data.shards.writer import encode_image, stored_size, write_shard
from imgcls.disk import write_file
from imgcls.errors import UserError

_logger = logging.getLogger(__name__)

_UNFINISHED = ".unfinished"
_MEASURED_IMAGES = 64


def pack_dataset(
    source: str,
    out: str,
    short_side: int = 256,
    quality: int = 90,
    shard_size: int = 256 * 2**20,
    skip_bad_images: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Writes ``out/000000.tar``, ... and the index; resumes an interrupted call with the same arguments.

    Args:
        source: name of a dataset.
        out: a new or empty folder, or that of an interrupted call.
        short_side: larger images are shrunk to this length of the short side, in pixels.
        quality: of the JPEG files, 1-100.
        shard_size: approximate size of a shard in bytes.
        skip_bad_images: skips images that cannot be read, instead of stopping at the first.
        processes: number of worker processes.

    Returns:
        The content of ``index.json``.

    Raises:
        UserError: a value is out of range, ``out`` is complete or has other content, the source or an image cannot be
            read, or the disk is full.
    """
    for name, value, least, most in (
        ("--short-side", short_side, 1, 65500), ("--quality", quality, 1, 100),
        ("--shard-size", shard_size, 1, 2**62), ("-j", processes, 1, 4096),
    ):  # fmt: skip
        if not least <= value <= most:
            raise UserError(f"{name} is {value}; allowed: {least} to {most}")
    raw = read_raw_dataset(source, training=False)
    records = to_dataset(source, raw).records
    settings = Settings(source, short_side, quality, shard_size, skip_bad_images, raw.multi_label, checksum(records))
    try:
        with _only_writer(out) as folder:
            bounds = read_plan(folder, settings)
            if bounds is None:
                bounds = _choose_bounds(records, settings).tolist()
                write_plan(folder, settings, bounds)
            shards = _write_all(out, folder, records, settings, bounds, processes)
            index = {
                "format": FORMAT,
                "source": source,
                "short_side": short_side,
                "quality": quality,
                "classes": raw.classes,
                "named": raw.named,
                "multi_label": raw.multi_label,
                **_totals(source, shards),
            }
            write_file(os.path.join(out, INDEX), json.dumps(index, indent=1).encode(), folder)
            shutil.rmtree(folder, ignore_errors=True)
    except BadImageError as error:
        raise UserError(f"{error} (when packing: --skip-bad-images)") from error
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); free space or name another") from error
    return index


@contextmanager
def _only_writer(out: str) -> Iterator[str]:
    """Locks ``out`` and gives the folder for unfinished files.

    Raises:
        UserError: ``out`` is complete, has other content, or is locked by another process.
    """
    folder = os.path.join(out, _UNFINISHED)
    if os.path.exists(os.path.join(out, INDEX)):
        raise UserError(f"{out}: is complete and is not overwritten; name another folder, or check it with --verify")
    os.makedirs(out, exist_ok=True)
    if not os.path.isdir(folder) and os.listdir(out):
        raise UserError(f"{out}: is not empty, and it has no unfinished packing; name a new folder")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # forked workers do not inherit this kind of lock
        except BlockingIOError:
            raise UserError(f"{out}: another process is packing into it; wait until it has finished") from None
        for name in os.listdir(folder):
            if name.endswith(".tmp"):
                os.unlink(os.path.join(folder, name))
        yield folder


def _choose_bounds(records: Sequence[dict], settings: Settings) -> NDArray[np.int64]:
    """The bounds of the shards, from an estimate of the mean stored size."""
    sizes = []
    sampled = np.unique(np.linspace(0, len(records) - 1, _MEASURED_IMAGES).astype(int))
    for i in sampled:
        try:
            sizes.append(stored_size(len(encode_image(records[i], settings.short_side, settings.quality)[0])))
        except BadImageError:
            if not settings.skip_bad_images:
                raise
    if not sizes:
        raise UserError(f"{settings.source}: none of the {len(sampled)} sampled images could be read")
    return shard_bounds(len(records), float(np.mean(sizes)), settings.shard_size)


def _write_all(
    out: str, folder: str, records: Sequence[dict], settings: Settings, bounds: Sequence[int], processes: int
) -> list[dict[str, Any]]:
    """Writes the missing shards, and returns the index entries of all shards in order."""
    order = shuffled(len(records))
    paths = [os.path.join(out, shard_name(number)) for number in range(len(bounds) - 1)]
    entries = {number: entry for number, path in enumerate(paths) if (entry := _read_entry(folder, path)) is not None}
    missing = [number for number in range(len(paths)) if number not in entries]
    done = len(records) - sum(bounds[number + 1] - bounds[number] for number in missing)
    jobs = (
        (number, paths[number], folder, [records[i] for i in order[bounds[number] : bounds[number + 1]]], settings)
        for number in missing
    )
    for number, entry in run_jobs(_write_one, jobs, processes, total=len(records), done=done):
        entries[number] = entry
    return [entries[number] for number in range(len(paths))]


def _write_one(
    number: int, path: str, folder: str, records: list[dict], settings: Settings, step: Callable[[], None]
) -> tuple[int, dict[str, Any]]:
    entry = write_shard(path, folder, records, settings, step)
    write_file(_entry_path(folder, path), json.dumps(entry).encode(), folder)
    return number, entry


def _read_entry(folder: str, path: str) -> dict[str, Any] | None:
    """The index entry of a shard that an earlier call has finished; None if the shard is missing or incomplete."""
    try:
        with open(_entry_path(folder, path), encoding="utf-8") as file:
            entry = json.load(file)
        complete = os.path.getsize(path) == entry["bytes"] and os.path.exists(table_path(path))
    except FileNotFoundError:
        return None
    return entry if complete else None


def _entry_path(folder: str, path: str) -> str:
    return os.path.join(folder, os.path.basename(path) + ".json")


def _totals(source: str, shards: list[dict[str, Any]]) -> dict[str, Any]:
    labels: Counter[int] = Counter()
    bad: list[str] = []
    for shard in shards:
        labels.update({int(label): count for label, count in shard.pop("label_counts").items()})
        bad += shard.pop("bad_images")
    samples = sum(shard["samples"] for shard in shards)
    if not samples:
        raise UserError(f"{source}: no image could be read; the first: {bad[0]}")
    for message in bad:
        _logger.warning("skipped: %s", message)
    return {"samples": samples, "left_out": len(bad), "label_counts": dict(sorted(labels.items())), "shards": shards}
