"""What the predict command takes as sources, turned into records of images."""

import difflib
import glob
import os
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, cast

from detectron2.data import DatasetFromList
from torch.utils.data import ConcatDataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from imgcls.data.catalog import classification_names, read_raw_dataset
from imgcls.data.dataset import StoredRecords
from imgcls.data.readers.folder import images_below
from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.inference.detections import read_detections

_DATASETS = ("folder", "json", "csv", "coco", "shards")
_FORMS = "an image file, a folder, a glob in quotes, -, a dataset name such as shards:PATH, or a .json of detections"
Records = Sequence[dict[str, Any]]


def list_images(sources: Sequence[str], lines: Iterable[str] = (), min_score: float = 0.0) -> Records:
    """The records of all images of the sources, in the order of these; those of a folder or glob are sorted.

    Args:
        sources: files, folders (with all images at any depth), globs, ``"-"``, dataset names, detections (see
            ``read_detections``).
        lines: what ``"-"`` stands for, one path a line.
        min_score: detections below it are left out.

    Returns:
        Each ``{"file_name": str}``, with ``"shard_slice"`` for an image of a shard and ``"box"`` for a detection. They
        are stored in a form that loader workers share instead of copying it.

    Raises:
        UserError: a source matches nothing, or cannot be read.
    """
    parts: list[Any] = []
    plain: list[dict[str, Any]] = []

    def flush() -> None:
        if plain:
            parts.append(DatasetFromList(list(plain), copy=False))
            plain.clear()

    for source in sources:
        found = _read_source(source, lines, min_score)
        if not len(found):
            raise UserError(f"{source}: there is no image in it; a source is {_FORMS}")
        if isinstance(found, StoredRecords):
            flush()
            parts.append(found)
        else:
            plain.extend(found)
    flush()
    if not parts:
        raise UserError(f"there is no source; give {_FORMS}")
    return parts[0] if len(parts) == 1 else cast(Records, ConcatDataset(parts))


def _read_source(source: str, lines: Iterable[str], min_score: float) -> Records:
    prefix, colon, rest = source.partition(":")
    path = os.path.expanduser(source)
    if source == "-":
        return [{"file_name": line.rstrip("\r\n")} for line in lines if line.strip()]
    if os.path.isdir(path):
        return _as_records(_images_in(path))
    if os.path.isfile(path):
        return read_detections(path, min_score) if path.lower().endswith(".json") else _as_records([path])
    if colon and prefix == "detections":
        return read_detections(os.path.expanduser(rest), min_score)
    if (colon and prefix in _DATASETS) or source in classification_names():
        records = read_raw_dataset(source, training=False).records
        return records if isinstance(records, StoredRecords) else [_without_label(record) for record in records]
    if glob.has_magic(path):
        return _as_records(_matches(path))
    _refuse(source)


def _matches(pattern: str) -> list[str]:
    """Images and the images in folders that a glob matches; ``**`` matches folders at any depth."""
    found: dict[str, None] = {}  # `**/*` matches folders and what is in them
    for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(path):
            found.update(dict.fromkeys(_images_in(path)))
        elif path.lower().endswith(IMG_EXTENSIONS):
            found[path] = None
    return list(found)


def _images_in(folder: str) -> list[str]:
    """The images at any depth of a folder; hidden files and folders are left out, linked folders followed."""
    full = os.path.abspath(folder)
    parent, name = os.path.split(full)
    below = (os.path.relpath(os.path.join(parent, file), full) for file in images_below(parent, name))
    return [os.path.normpath(os.path.join(folder, file)) for file in below]


def _as_records(paths: Iterable[str]) -> list[dict[str, Any]]:
    return [{"file_name": path} for path in paths]


def _without_label(record: dict[str, Any]) -> dict[str, Any]:
    """What prediction needs of a record, so that large sets are stored small."""
    return {key: record[key] for key in ("file_name", "shard_slice") if key in record}


def _refuse(source: str) -> NoReturn:
    folder, name = os.path.split(source)
    siblings = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    near = [os.path.join(folder, other) for other in difflib.get_close_matches(name, siblings, n=1)]
    near = near or difflib.get_close_matches(source, classification_names(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserFileNotFoundError(f"{source}: no such file, folder or dataset; {hint}a source is {_FORMS}")
