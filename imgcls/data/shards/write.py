"""One shard with its table: the same records always make the same bytes."""

import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from webdataset import TarWriter

from imgcls.data.picture_bytes import BadImageError

from .encode import encode_picture
from .files import NewFile
from .layout import sample_key, table_path, table_type
from .plan import Settings

_BLOCK = 512  # of a tar file: a header takes one, and contents are filled up to whole ones


def stored_size(picture_bytes: int) -> int:
    """How many bytes of a tar file a sample takes: the picture, and two members of one block each."""
    return 5 * _BLOCK + -(-picture_bytes // _BLOCK) * _BLOCK


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
        BadImageError: a picture cannot be read, and ``settings.skip_bad_images`` is off.
        OSError: the shard cannot be written.
    """
    name = os.path.basename(path)
    rows: list[tuple] = []
    bad: list[str] = []
    with NewFile(path, folder) as file:
        writer = TarWriter(file, encoder=False, mtime=0)
        for record in records:
            try:
                picture, extension = encode_picture(record, settings.short_side, settings.quality)
            except BadImageError as error:
                if not settings.skip_bad_images:
                    raise
                bad.append(str(error))
            else:
                rows.append(_write_sample(writer, sample_key(name, len(rows)), record, picture, extension))
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


def _write_sample(writer: TarWriter, key: str, record: dict, picture: bytes, extension: str) -> tuple:
    """A row of the table. The picture is the first member, so that its place is known before."""
    offset = writer.tarstream.offset + _BLOCK
    writer.write({"__key__": key, extension: picture})
    about: dict[str, Any] = {"image_id": record["image_id"]}
    if "labels" in record:
        about["labels"] = labels = record["labels"]
        rest = {}
    else:
        labels = record["label"]
        rest = {"cls": str(labels).encode()}
    writer.write({"__key__": key, **rest, "json": json.dumps(about).encode()})
    image_id = json.dumps(record["image_id"]).encode()
    return offset, len(picture), zlib.crc32(picture), labels, image_id, extension.encode()


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
