"""What a JPEG says about itself before it is decoded."""

from dataclasses import dataclass

from PIL import Image

_ORIENTATION = 0x0112  # EXIF tag
# Markers of a frame header (SOF0 to SOF2, Huffman coding), of EXIF, and of segments that have no length.
_FRAMES = (0xC0, 0xC1, 0xC2)
_APP1 = 0xE1
_BARE = (0x01, *range(0xD0, 0xD8))


@dataclass(frozen=True)
class JpegHeader:
    """A JPEG that OpenCV decodes right.

    Attributes:
        height: of the stored picture, in pixels.
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
    except Exception:  # whatever a damaged tag does to Pillow: the picture is decoded to learn its size
        return False
