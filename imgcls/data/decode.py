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

from .jpeg_header import read_jpeg_header
from .picture_bytes import ADVICE, BadImageError, read_bytes


class Picture:
    """An encoded picture whose size is known before it is decoded, where the file allows that.

    It is upright (EXIF orientation applied) and in 8-bit colour, whatever the file holds: grey and palette pictures
    become colour, 16-bit ones are scaled to 8 bits, CMYK is converted, and an alpha channel is dropped.

    Args:
        data: the file's bytes.
        name: begins every message.
        image_format: ``"BGR"`` or ``"RGB"``.

    Attributes:
        size: height and width in pixels.

    Raises:
        BadImageError: truncated, or not a picture.
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
        # The header is upright, so a second opinion on the orientation could only make a different picture.
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
    """Reads a file as ``Picture`` does: ``(H, W, 3)`` uint8, 0-255.

    Raises:
        BadImageError: missing, empty, truncated, or not a picture.
    """
    return Picture(read_bytes({"file_name": path}), path, image_format).pixels()


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
        raise BadImageError(f"{path}: not a picture that Pillow knows; {ADVICE}") from error
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
