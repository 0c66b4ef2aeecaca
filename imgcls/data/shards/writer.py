"""Files that are on the disk, whole, before they have their names."""

import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from webdataset import TarWriter

from imgcls.data.crop import resize
from imgcls.data.image import BadImageError, EncodedImage, read_bytes
from imgcls.data.shards.layout import sample_key, table_path, table_type
from imgcls.data.shards.plan import Settings
from imgcls.disk import NewFile

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def encode_image(record: Mapping[str, Any], short_side: int, quality: int) -> tuple[bytes, str]:
    """The bytes to store for a record's image, and their extension.

    An image whose short side is longer is shrunk (antialiased) and becomes a JPEG. Nothing is enlarged: any other JPEG
    or PNG file is kept byte for byte, and any other format becomes a JPEG of the same size.

    Args:
        record: with ``"file_name"`` and what `read_bytes` looks at.
        short_side: in pixels.
        quality: of a JPEG, 1-100.

    Returns:
        The bytes, and ``"jpg"`` or ``"png"``.

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
    """``(H, W, 3)`` to the same with the short side given."""
    shorter = min(pixels.shape[:2])
    height, width = (round(short_side * side / shorter) for side in pixels.shape[:2])
    return np.ascontiguousarray(resize(pixels, height, width).permute(1, 2, 0).numpy())


_BLOCK = 512  # of a tar file: a header takes one, and contents are filled up to whole ones


def stored_size(image_bytes: int) -> int:
    """How many bytes of a tar file a sample takes: the image, and two members of one block each."""
    return 5 * _BLOCK + -(-image_bytes // _BLOCK) * _BLOCK


def write_shard(
    path: str, folder: str, records: Iterable[dict], settings: Settings, step: Callable[[], None]
) -> dict[str, Any]:
    """Writes ``path`` and its table.

    Args:
        path: the tar file.
        folder: for temporary files.
        records: all of the shard.
        settings: of the whole set.
        step: called after each record.

    Returns:
        The shard's entry in the index, and what the index adds up: ``"label_counts"`` and the messages in
        ``"bad_images"``.

    Raises:
        BadImageError: an image cannot be read, and ``settings.skip_bad_images`` is off.
        OSError: the shard cannot be written.
    """
    name = os.path.basename(path)
    rows: list[tuple] = []
    bad: list[str] = []
    with NewFile(path, folder) as file:
        writer = TarWriter(file, encoder=False, mtime=0)
        for record in records:
            try:
                image, extension = encode_image(record, settings.short_side, settings.quality)
            except BadImageError as error:
                if not settings.skip_bad_images:
                    raise
                bad.append(str(error))
            else:
                rows.append(_write_sample(writer, sample_key(name, len(rows)), record, image, extension))
            step()
        writer.close()
        # The tar file is named after its table: where it is, both are.
        with NewFile(table_path(path), folder) as table:
            table.write(_table(rows, settings.multi_label))
    labels = Counter(label for row in rows for label in (row[3] if settings.multi_label else (row[3],)))
    return {
        "name": name,
        "samples": len(rows),
        "bytes": file.size,
        "sha256": file.sha256,
        "table_sha256": table.sha256,
        "label_counts": dict(sorted(labels.items())),
        "bad_images": bad,
    }


def _write_sample(writer: TarWriter, key: str, record: dict, image: bytes, extension: str) -> tuple:
    """A row of the table. The image is the first member, so that its place is known before."""
    offset = writer.tarstream.offset + _BLOCK
    writer.write({"__key__": key, extension: image})
    about: dict[str, Any] = {"image_id": record["image_id"]}
    if "labels" in record:
        about["labels"] = labels = record["labels"]
        rest = {}
    else:
        labels = record["label"]
        rest = {"cls": str(labels).encode()}
    writer.write({"__key__": key, **rest, "json": json.dumps(about).encode()})
    image_id = json.dumps(record["image_id"]).encode()
    return offset, len(image), zlib.crc32(image), labels, image_id, extension.encode()


def _table(rows: list[tuple], multi_label: bool) -> bytes:
    most = max((len(row[3]) for row in rows), default=0) if multi_label else 1
    table = np.zeros(len(rows), table_type(multi_label, most, max((len(row[4]) for row in rows), default=0)))
    for i, (offset, size, crc32, labels, image_id, extension) in enumerate(rows):
        if multi_label:
            labels = [*labels, *[-1] * (table.dtype["labels"].shape[0] - len(labels))]
        table[i] = offset, size, crc32, labels, image_id, extension
    file = io.BytesIO()
    np.save(file, table, allow_pickle=False)
    return file.getvalue()
