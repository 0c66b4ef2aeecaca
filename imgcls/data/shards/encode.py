"""One picture as it is stored in a shard."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imgcls.data.crop import resize
from imgcls.data.decode import Picture
from imgcls.data.picture_bytes import read_bytes

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def encode_picture(record: Mapping[str, Any], short_side: int, quality: int) -> tuple[bytes, str]:
    """The bytes to store for a record's picture, and their extension.

    A picture whose short side is longer is shrunk (antialiased) and becomes a JPEG. Nothing is enlarged: any other JPEG
    or PNG file is kept byte for byte, and any other format becomes a JPEG of the same size.

    Args:
        record: with ``"file_name"`` and what `read_bytes` looks at.
        short_side: in pixels.
        quality: of a JPEG, 1-100.

    Returns:
        The bytes, and ``"jpg"`` or ``"png"``.

    Raises:
        BadImageError: the file cannot be read as a picture.
    """
    data = read_bytes(record)
    pixels = Picture(data, record["file_name"]).pixels()
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
