"""One picture file to pixels, for every reader in the package.

OpenCV decodes what it decodes right (8-bit JPEG and PNG, whole files); Pillow does the rest and judges files
that look damaged, because OpenCV returns half a picture without an error.
"""

import io
import struct

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from imgcls.errors import UserError

# Markers of a JPEG frame header (SOF0 to SOF2, Huffman coding) and of segments that have no length.
_FRAMES = (0xC0, 0xC1, 0xC2)
_BARE = (0x01, *range(0xD0, 0xD8))


class BadImageError(UserError):
    """A file that cannot be read as a picture."""


def read_image(path: str, image_format: str = "BGR") -> NDArray[np.uint8]:
    """Reads a picture upright (EXIF orientation applied), in 8-bit colour, whatever the file holds.

    Grey and palette pictures become colour, 16-bit ones are scaled to 8 bits, CMYK is converted, and an
    alpha channel is dropped.

    Args:
        path: the file.
        image_format: ``"BGR"`` or ``"RGB"``.

    Returns:
        ``(H, W, 3)`` uint8, 0-255.

    Raises:
        BadImageError: missing, empty, truncated, or not a picture.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadImageError(f"{path}: cannot be opened: {error.strerror}; {_ADVICE}") from error
    if not data:
        raise BadImageError(f"{path}: the file is empty (0 bytes); {_ADVICE}")
    if _is_plain_jpeg(data) or _is_plain_png(data):
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # a header that promises too many pixels
            image = None
        if image is not None:
            return image if image_format == "BGR" else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    rgb = _decode_with_pillow(path, data)
    return rgb if image_format == "RGB" else np.ascontiguousarray(rgb[:, :, ::-1])


_ADVICE = 'replace or remove it, or set DATALOADER.BAD_IMAGES to "skip"'


def _decode_with_pillow(path: str, data: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I") or upright.mode == "F":
                return _to_8_bit(upright)
            return np.array(upright.convert("RGB"))
    except UnidentifiedImageError as error:
        raise BadImageError(f"{path}: not a picture that Pillow knows; {_ADVICE}") from error
    # Pillow's decoders raise all of these for damaged files.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise BadImageError(f"{path}: damaged or truncated ({' '.join(str(error).split())}); {_ADVICE}") from error


def _to_8_bit(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of more than 8 bits: Pillow's own conversion clips at 255 instead of scaling."""
    grey = np.array(image)
    # Integers: the whole 16-bit range on the whole 8-bit range. Floats have no range of their own: 0-255 is taken.
    scale = 1 if grey.dtype.kind == "f" else 257
    grey = np.clip(grey / scale, 0, 255)
    return np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2)


def _is_plain_jpeg(data: bytes) -> bool:
    """A JPEG with 1 or 3 components of 8 bits that ends with its end marker."""
    if not data.startswith(b"\xff\xd8") or not data.endswith(b"\xff\xd9"):
        return False
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            bits, components = data[at + 4], data[at + 9]
            return bits == 8 and components in (1, 3)
        at += 2 if marker in _BARE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _is_plain_png(data: bytes) -> bool:
    """A PNG of 8-bit grey or colour, with or without alpha, that is whole and has no orientation of its own."""
    whole = data.startswith(b"\x89PNG\r\n\x1a\n") and data[-8:-4] == b"IEND"
    return whole and data[24] == 8 and data[25] in (0, 2, 4, 6) and b"eXIf" not in data
