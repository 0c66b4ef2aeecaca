"""Reading an image: the bytes of a file or of a slice of a shard, decoded to pixels."""

import io
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from imgcls.errors import UserError

ADVICE = 'replace or remove it, or set DATALOADER.BAD_IMAGES to "skip"'
_SHARD_ADVICE = (
    'find all damage with tools/pack_dataset.py --verify and restore the shard, or set DATALOADER.BAD_IMAGES to "skip"'
)


class BadImageError(UserError):
    """A file that cannot be read as an image."""


class ShardSlice(NamedTuple):
    """Where the bytes of an image are in a shard, and their CRC-32; the value of ``record["shard_slice"]``."""

    shard: str
    offset: int
    size: int
    crc32: int  # JPEG has no checksum of its own: without this one, corrupted images would be used silently


class OpenShards:
    """Reads slices of shards and keeps the most recently used files open.

    Forked processes may share the open files, because ``pread`` uses no file position. A spawned process gets none.

    Args:
        limit: how many files to keep open. Training reads the 16 shards of one window (`ShardSampler`), or of two
            where a window ends.
    """

    def __init__(self, limit: int = 32):
        self.limit = limit
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def read(self, shard_slice: ShardSlice) -> bytes:
        """The bytes of a slice; fewer if the file is too short.

        Raises:
            OSError: the shard cannot be opened or read.
        """
        return os.pread(self._descriptor(shard_slice.shard), shard_slice.size, shard_slice.offset)

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit, "_descriptors": OrderedDict()}

    def __del__(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _descriptor(self, path: str) -> int:
        if path in self._descriptors:
            self._descriptors.move_to_end(path)
            return self._descriptors[path]
        descriptor = self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if len(self._descriptors) > self.limit:
            os.close(self._descriptors.popitem(last=False)[1])
        return descriptor


def read_bytes(record: Mapping[str, Any], shards: OpenShards | None = None) -> bytes:
    """The encoded image of a record, from its ``"shard_slice"`` if it has one, else from its ``"file_name"``.

    Without ``shards``, the shard is opened for this call only.

    Raises:
        BadImageError: the file is missing or empty, or the slice differs from what was packed.
    """
    name, shard_slice = record["file_name"], record.get("shard_slice")
    if isinstance(shard_slice, ShardSlice):
        return _read_slice(name, shard_slice, OpenShards() if shards is None else shards)
    try:
        with open(name, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadImageError(f"{name}: cannot be opened: {error.strerror}; {ADVICE}") from error
    if not data:
        raise BadImageError(f"{name}: the file is empty (0 bytes); {ADVICE}")
    return data


def _read_slice(name: str, shard_slice: ShardSlice, shards: OpenShards) -> bytes:
    try:
        data = shards.read(shard_slice)
    except (OSError, ValueError, OverflowError) as error:
        raise BadImageError(f"{name}: the shard cannot be read: {error}; {_SHARD_ADVICE}") from error
    if len(data) != shard_slice.size:
        raise BadImageError(
            f"{name}: the shard ends after {len(data)} of its {shard_slice.size} bytes; {_SHARD_ADVICE}"
        )
    if zlib.crc32(data) != shard_slice.crc32:
        raise BadImageError(f"{name}: its checksum in the shard is wrong; {_SHARD_ADVICE}")
    return data


# Pillow's decoders raise all of these for damaged files.
_DAMAGES = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_ORIENTATION = 0x0112  # EXIF tag
# JPEG markers: frame headers (SOF0 to SOF2, Huffman coding), EXIF, and segments without a length.
_FRAMES = (0xC0, 0xC1, 0xC2)
_APP1 = 0xE1
_BARE = (0x01, *range(0xD0, 0xD8))
_DECODE_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class JpegHeader(NamedTuple):
    """The header of a JPEG that OpenCV decodes correctly: its stored size, and whether EXIF leaves it as it is."""

    height: int
    width: int
    upright: bool


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of a complete JPEG with 1 or 3 components of 8 bits; None for any other data."""
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
    except Exception:  # a damaged tag can raise anything in Pillow; the image must then be decoded to find its size
        return False


class EncodedImage:
    """An encoded image. The ``size`` (height, width) of a typical JPEG is known before it is decoded.

    Decoded images are 8-bit colour with the EXIF orientation applied: grey and palette images become colour, 16-bit
    images are scaled to 8 bits, CMYK is converted, and an alpha channel is dropped.

    Args:
        data: the content of the file.
        name: starts every error message.
        image_format: ``"BGR"`` or ``"RGB"``.

    Raises:
        BadImageError: the data is truncated, or not an image.
    """

    def __init__(self, data: bytes, name: str, image_format: str = "BGR"):
        self.data = data
        self.name = name
        self.image_format = image_format
        header = read_jpeg_header(data)
        self._plain = header is not None or _is_plain_png(data)
        self._decoded: NDArray[np.uint8] | None = None
        self.size: tuple[int, int]
        if header is not None and header.upright:
            self.size = (header.height, header.width)
        else:
            self._decoded = self._decode(cv2.IMREAD_COLOR)
            self.size = (self._decoded.shape[0], self._decoded.shape[1])

    def pixels(self, decode_scale: int = 1) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8, 0-255, decoded at 1 / ``decode_scale`` of its size, rounded up, if that is possible.

        A ``decode_scale`` of 2, 4 or 8 takes less time. It applies to upright JPEGs that OpenCV decodes; any other
        image has its full size.

        Raises:
            BadImageError: the data is damaged.
        """
        if self._decoded is not None:
            return self._decoded
        # `size` assumes an upright image, so OpenCV must not apply an orientation that it reads differently.
        return self._decode(_DECODE_FLAGS[decode_scale] | cv2.IMREAD_IGNORE_ORIENTATION)

    def _decode(self, flags: int) -> NDArray[np.uint8]:
        if self._plain:
            try:
                image = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
            except cv2.error:  # for example, the header announces too many pixels
                image = None
            if image is not None:
                if self.image_format == "RGB":
                    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                return np.asarray(image, np.uint8)
        rgb = _decode_with_pillow(self.name, self.data)
        return rgb if self.image_format == "RGB" else np.ascontiguousarray(rgb[:, :, ::-1])


def read_image(path: str, image_format: str = "BGR") -> NDArray[np.uint8]:
    """Reads and decodes a file, as `EncodedImage` does: ``(H, W, 3)`` uint8, 0-255.

    Raises:
        BadImageError: the file is missing, empty or truncated, or not an image.
    """
    return EncodedImage(read_bytes({"file_name": path}), path, image_format).pixels()


def _decode_with_pillow(path: str, data: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return pillow_to_rgb(path, image)
    except UnidentifiedImageError as error:
        raise BadImageError(f"{path}: not an image that Pillow can read; {ADVICE}") from error
    except _DAMAGES as error:
        raise _damaged(path, error) from error


def pillow_to_rgb(name: str, image: Image.Image) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 RGB of a Pillow image, converted as `EncodedImage` does; BadImageError if it is damaged."""
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I") or upright.mode == "F":
            return _to_8_bit(upright)
        return np.array(upright.convert("RGB"))
    except _DAMAGES as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> BadImageError:
    return BadImageError(f"{name}: damaged or truncated ({' '.join(str(error).split())}); {ADVICE}")


def _to_8_bit(image: Image.Image) -> NDArray[np.uint8]:
    """Scales grey images of more than 8 bits; Pillow's own conversion clips at 255 instead."""
    grey = np.array(image)
    # Integers are scaled from the 16-bit to the 8-bit range. Floats have no fixed range: 0-255 is assumed.
    scale = 1 if grey.dtype.kind == "f" else 257
    scaled = np.rint(np.clip(grey / scale, 0, 255)).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


def _is_plain_png(data: bytes) -> bool:
    """Whether this is a complete PNG of 8-bit grey or colour, with or without alpha, and without an orientation."""
    complete = data.startswith(b"\x89PNG\r\n\x1a\n") and data[-8:-4] == b"IEND"
    return complete and data[24] == 8 and data[25] in (0, 2, 4, 6) and b"eXIf" not in data
