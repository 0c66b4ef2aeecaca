"""The stored bytes of a record's image: a file of its own, or a part of a shard."""

import io
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from imgcls.errors import UserError

ADVICE = 'replace or remove it, or set DATALOADER.BAD_IMAGES to "skip"'
# A training reads 16 shards at a time (data/shard_sampler.py), and twice as many where one window ends.
_OPEN_SHARDS = 32


class BadImageError(UserError):
    """A file that cannot be read as an image."""


class ShardSlice(NamedTuple):
    """Where an image lies in a shard, as ``record["shard_slice"]``.

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
    """The encoded image of a record, from its ``"shard_slice"`` or else from its ``"file_name"``.

    Raises:
        BadImageError: missing, empty, or not what was once stored in the shard.
    """
    place = record.get("shard_slice")
    return (
        _read_member(record["file_name"], place) if isinstance(place, ShardSlice) else _read_file(record["file_name"])
    )


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadImageError(f"{path}: cannot be opened: {error.strerror}; {ADVICE}") from error
    if not data:
        raise BadImageError(f"{path}: the file is empty (0 bytes); {ADVICE}")
    return data


def _read_member(name: str, place: ShardSlice) -> bytes:
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


_ORIENTATION = 0x0112  # EXIF tag
# Markers of a frame header (SOF0 to SOF2, Huffman coding), of EXIF, and of segments that have no length.
_FRAMES = (0xC0, 0xC1, 0xC2)
_APP1 = 0xE1
_BARE = (0x01, *range(0xD0, 0xD8))


@dataclass(frozen=True)
class JpegHeader:
    """A JPEG that OpenCV decodes right.

    Attributes:
        height: of the stored image, in pixels.
        width: likewise.
        upright: no EXIF orientation turns it.
    """

    height: int
    width: int
    upright: bool


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Of a JPEG with 1 or 3 components of 8 bits that ends with its end marker; None for anything else."""
    if not data.startswith(b"\xff\xd8") or not data.endswith(b"\xff\xd9"):
        return None
    at, upright = 2, True
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            bits, components = data[at + 4], data[at + 9]
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            plain = bits == 8 and components in (1, 3) and height > 0 and width > 0
            return JpegHeader(height, width, upright) if plain else None
        if marker == _APP1:
            upright = upright and _is_upright(data[at + 4 : at + 2 + length])
        at += 2 if marker in _BARE else 2 + length
    return None


def _is_upright(segment: bytes) -> bool:
    if not segment.startswith(b"Exif"):
        return True
    exif = Image.Exif()
    try:
        exif.load(segment)
        return exif.get(_ORIENTATION, 1) == 1
    except Exception:  # whatever a damaged tag does to Pillow: the image is decoded to learn its size
        return False


class EncodedImage:
    """An encoded image whose size is known before it is decoded, where the file allows that.

    It is upright (EXIF orientation applied) and in 8-bit colour, whatever the file holds: grey and palette images
    become colour, 16-bit ones are scaled to 8 bits, CMYK is converted, and an alpha channel is dropped.

    Args:
        data: the file's bytes.
        name: begins every message.
        image_format: ``"BGR"`` or ``"RGB"``.

    Attributes:
        size: height and width in pixels.

    Raises:
        BadImageError: truncated, or not an image.
    """

    def __init__(self, data: bytes, name: str, image_format: str = "BGR"):
        self.data = data
        self.name = name
        self.image_format = image_format
        header = read_jpeg_header(data)
        self._plain = header is not None or _is_plain_png(data)
        self._decoded = None
        if header is not None and header.upright:
            self.size = (header.height, header.width)
        else:
            self._decoded = self._decode(cv2.IMREAD_COLOR)
            self.size = self._decoded.shape[:2]

    def pixels(self, shrink: int = 1) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8, 0-255.

        Args:
            shrink: 1, 2, 4 or 8. A JPEG is decoded at this part of its size, rounded up, in less time; anything else
                comes at its full size.

        Raises:
            BadImageError: damaged.
        """
        if self._decoded is not None:
            return self._decoded
        # The header is upright, so a second opinion on the orientation could only make a different image.
        return self._decode(_REDUCED[shrink] | cv2.IMREAD_IGNORE_ORIENTATION)

    def _decode(self, flags: int) -> NDArray[np.uint8]:
        if self._plain:
            try:
                image = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
            except cv2.error:  # a header that promises too many pixels
                image = None
            if image is not None:
                return image if self.image_format == "BGR" else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        rgb = _decode_with_pillow(self.name, self.data)
        return rgb if self.image_format == "RGB" else np.ascontiguousarray(rgb[:, :, ::-1])


def read_image(path: str, image_format: str = "BGR") -> NDArray[np.uint8]:
    """Reads a file as ``EncodedImage`` does: ``(H, W, 3)`` uint8, 0-255.

    Raises:
        BadImageError: missing, empty, truncated, or not an image.
    """
    return EncodedImage(read_bytes({"file_name": path}), path, image_format).pixels()


_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def _decode_with_pillow(path: str, data: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I") or upright.mode == "F":
                return _to_8_bit(upright)
            return np.array(upright.convert("RGB"))
    except UnidentifiedImageError as error:
        raise BadImageError(f"{path}: not an image that Pillow knows; {ADVICE}") from error
    # Pillow's decoders raise all of these for damaged files.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise BadImageError(f"{path}: damaged or truncated ({' '.join(str(error).split())}); {ADVICE}") from error


def _to_8_bit(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of more than 8 bits: Pillow's own conversion clips at 255 instead of scaling."""
    grey = np.array(image)
    # Integers: the whole 16-bit range on the whole 8-bit range. Floats have no range of their own: 0-255 is taken.
    scale = 1 if grey.dtype.kind == "f" else 257
    grey = np.clip(grey / scale, 0, 255)
    return np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2)


def _is_plain_png(data: bytes) -> bool:
    """A PNG of 8-bit grey or colour, with or without alpha, that is whole and has no orientation of its own."""
    whole = data.startswith(b"\x89PNG\r\n\x1a\n") and data[-8:-4] == b"IEND"
    return whole and data[24] == 8 and data[25] in (0, 2, 4, 6) and b"eXIf" not in data
