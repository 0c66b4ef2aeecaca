"""The stored bytes of a record's picture: a file of its own, or a part of a shard."""

import os
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from imgcls.errors import UserError

ADVICE = 'replace or remove it, or set DATALOADER.BAD_IMAGES to "skip"'
# A training reads 16 shards at a time (data/shard_sampler.py), and twice as many where one window ends.
_OPEN_SHARDS = 32


class BadImageError(UserError):
    """A file that cannot be read as a picture."""


class Place(NamedTuple):
    """Where a picture lies in a shard, as ``record["place"]``.

    Attributes:
        shard: path of the file.
        offset: of the first byte.
        size: in bytes.
        crc32: of the bytes. JPEG has no checksum: without one, damage would be trained on.
    """

    shard: str
    offset: int
    size: int
    crc32: int


def read_bytes(record: Mapping[str, Any]) -> bytes:
    """The encoded picture of a record, from ``record["place"]`` where that is a `Place`, else from its ``"file_name"``.

    Raises:
        BadImageError: missing, empty, or not what was once stored in the shard.
    """
    place = record.get("place")
    return _read_member(record["file_name"], place) if isinstance(place, Place) else _read_file(record["file_name"])


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadImageError(f"{path}: cannot be opened: {error.strerror}; {ADVICE}") from error
    if not data:
        raise BadImageError(f"{path}: the file is empty (0 bytes); {ADVICE}")
    return data


def _read_member(name: str, place: Place) -> bytes:
    try:
        data = os.pread(_shards.descriptor(place.shard), place.size, place.offset)
    except (OSError, ValueError, OverflowError) as error:
        raise BadImageError(f"{name}: the shard cannot be read: {error}; {_SHARD_ADVICE}") from error
    if len(data) != place.size:
        raise BadImageError(f"{name}: the shard ends after {len(data)} of its {place.size} bytes; {_SHARD_ADVICE}")
    if zlib.crc32(data) != place.crc32:
        raise BadImageError(f"{name}: its checksum in the shard is wrong; {_SHARD_ADVICE}")
    return data


_SHARD_ADVICE = (
    "find all damage with tools/pack_dataset.py --verify and bring the shard back, or set DATALOADER.BAD_IMAGES to "
    '"skip"'
)


class _OpenShards:
    """Descriptors of the shards last used. ``pread`` has no position, so processes may share one after a fork."""

    def __init__(self, limit: int):
        self.limit = limit
        self.descriptors: OrderedDict[str, int] = OrderedDict()

    def descriptor(self, path: str) -> int:
        if path in self.descriptors:
            self.descriptors.move_to_end(path)
            return self.descriptors[path]
        descriptor = self.descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if len(self.descriptors) > self.limit:
            os.close(self.descriptors.popitem(last=False)[1])
        return descriptor


_shards = _OpenShards(_OPEN_SHARDS)
