"""Writes one shard and its table."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from webdataset import TarWriter

from imgcls.data.crop import resize
from imgcls.data.dataset import label_counts
from imgcls.data.image import BadImageError, EncodedImage, read_bytes
from imgcls.data.shards.layout import sample_key, table_columns, table_path
from imgcls.data.shards.plan import Settings
from imgcls.data.table_file import write_table
from imgcls.disk import new_file

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


class HashedFile:
    """A stream that counts (``size``) and hashes (``sha256``) what is written to it."""

    def __init__(self, file: BinaryIO):
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._file = file

    def write(self, data: bytes) -> int:
        """Writes ``data`` and returns its length."""
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)


def encode_image(record: Mapping[str, Any], short_side: int, quality: int) -> tuple[bytes, str]:
    """The bytes to store for a record's image, and their extension, ``"jpg"`` or ``"png"``.

    An image whose short side is longer than ``short_side`` is shrunk (antialiased) and stored as a JPEG. Other JPEG and
    PNG files are kept byte for byte, and other formats become a JPEG of the same size.

    Raises:
        BadImageError: the file cannot be read as an image.
    """
    data = read_bytes(record)
    pixels = EncodedImage(data, record["file_name"]).pixels()
    if min(pixels.shape[:2]) > short_side:
        pixels = _shrink(pixels, short_side)
    elif data.startswith(_JPEG):
        return data, "jpg"
    elif data.startswith(_PNG):
        return data, "png"
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    return encoded.tobytes(), "jpg"


def _shrink(pixels: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    """Resizes ``(H, W, 3)`` to the given short side, in pixels."""
    shorter = min(pixels.shape[:2])
    height, width = (round(short_side * side / shorter) for side in pixels.shape[:2])
    return np.ascontiguousarray(resize(pixels, height, width).permute(1, 2, 0).numpy())


# The block size of a tar file: a header takes one block, and content is padded to whole blocks.
_BLOCK = 512


def stored_size(image_bytes: int) -> int:
    """The bytes that a sample takes in a tar file: three headers, the image, and two members of one block each."""
    return 5 * _BLOCK + -(-image_bytes // _BLOCK) * _BLOCK


def write_shard(
    path: str, folder: str, records: Iterable[dict], settings: Settings, step: Callable[[], None]
) -> dict[str, Any]:
    """Writes a tar file and its table.

    Args:
        path: the tar file.
        folder: for temporary files, on the same file system.
        records: those of this shard.
        settings: those of the whole set.
        step: called after each record.

    Returns:
        The shard's entry in the index, and two keys of which the index has the total: ``"label_counts"``, and the error
        messages of ``"bad_images"``.

    Raises:
        BadImageError: an image cannot be read, and ``settings.skip_bad_images`` is False.
        OSError: the shard cannot be written.
    """
    name = os.path.basename(path)
    samples: list[dict[str, Any]] = []
    extensions: list[str] = []
    slices: list[tuple[int, int, int]] = []
    bad: list[str] = []
    with new_file(path, folder) as stream:
        file = HashedFile(stream)
        writer = TarWriter(file, encoder=False, mtime=0)
        for record in records:
            try:
                image, extension = encode_image(record, settings.short_side, settings.quality)
            except BadImageError as error:
                if not settings.skip_bad_images:
                    raise
                bad.append(str(error))
            else:
                slices.append(_write_sample(writer, sample_key(name, len(samples)), record, image, extension))
                samples.append(record)
                extensions.append(extension)
            step()
        writer.close()
        # The tar file gets its name after the table: if it exists, both are complete.
        with new_file(table_path(path), folder) as table:
            checksum = write_table(table, table_columns(name, samples, extensions, slices), {})
    return {
        "name": name,
        "samples": len(samples),
        "bytes": file.size,
        "sha256": file.sha256.hexdigest(),
        "table_crc32": checksum,
        "label_counts": dict(sorted(label_counts(samples).items())),
        "bad_images": bad,
    }


def _write_sample(
    writer: TarWriter, key: str, record: Mapping[str, Any], image: bytes, extension: str
) -> tuple[int, int, int]:
    """Returns offset, size and CRC-32 of the image. It is the first member, so its offset is known in advance."""
    offset = writer.tarstream.offset + _BLOCK
    writer.write({"__key__": key, extension: image})
    about = {name: record[name] for name in ("image_id", "labels") if name in record}
    label = {} if "labels" in record else {"cls": str(record["label"]).encode()}
    writer.write({"__key__": key, **label, "json": json.dumps(about).encode()})
    return offset, len(image), zlib.crc32(image)
