"""One synthetic image: a crop of a photograph with grey items blended in, and the box of each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Grey values up to CLEAR are transparent (Fashion-MNIST has noise there), those from OPAQUE on are opaque.
CLEAR, OPAQUE = 16, 48
# Sides of the items, and the smallest side of a background crop, as shares of the image and of the photograph.
SIDES = (0.15, 0.45)
SMALLEST_CROP = 0.35
BRIGHTNESS = (0.5, 1.0)
MOST_ITEMS = 4
TRIES = 20
# At most this share of the smaller of two boxes may lie in the other one; their IoU is then below it, too.
COVERED = 0.1

Box = tuple[int, int, int, int]


class Item(NamedTuple):
    """A grey image ``(H, W)``, uint8, 0-255, on black, with its label and id."""

    image: NDArray[np.uint8]
    label: int
    image_id: int


def cut_out(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scales an item to about ``side`` pixels on its longer side and crops away its transparent border.

    Args:
        image: ``(H, W)`` uint8, 0-255, the item on black.
        side: in pixels.

    Returns:
        ``(h, w)`` uint8; each of its four border lines has a pixel above `CLEAR`. ``(0, 0)`` if no pixel is above it.
    """
    left, top, width, height = _extent(image > CLEAR)
    if width == 0:
        return image[:0, :0]
    framed = Image.fromarray(np.pad(image, 1))  # a black frame, so that edges that touch the border fade out too
    scale = side / max(width, height)
    size = [max(1, round(length * scale)) for length in framed.size]
    resized = np.asarray(framed.resize(size, Image.Resampling.BILINEAR))
    left, top, width, height = _extent(resized > CLEAR)
    return resized[top : top + height, left : left + width]


def paste(image: NDArray[np.uint8], item: NDArray[np.uint8], top: int, left: int, brightness: float) -> Box:
    """Blends an item into an image, in place; the background shows through its dark parts.

    Args:
        image: ``(H, W, 3)`` uint8, 0-255.
        item: ``(h, w)`` uint8, 0-255; fits into the image at ``top``, ``left``.
        top: row of the item's first row.
        left: column of the item's first column.
        brightness: multiplies the item's values, 0-1.

    Returns:
        The smallest box around the pixels that were changed, as ``(x, y, width, height)``.
    """
    grey = item.astype(np.float64)
    alpha = np.clip((grey - CLEAR) / (OPAQUE - CLEAR), 0, 1)[:, :, None]
    region = image[top : top + item.shape[0], left : left + item.shape[1]]
    region[:] = np.rint(region * (1 - alpha) + grey[:, :, None] * brightness * alpha).astype(np.uint8)
    x, y, width, height = _extent(alpha[:, :, 0] > 0)
    return left + x, top + y, width, height


def crop_background(random: np.random.RandomState, photograph: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Returns a random square of a photograph ``(H, W, 3)`` uint8, scaled to ``(size, size, 3)`` uint8."""
    height, width = photograph.shape[:2]
    short = min(height, width)
    side = int(random.randint(round(SMALLEST_CROP * short), short + 1))
    top, left = int(random.randint(height - side + 1)), int(random.randint(width - side + 1))
    square = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.array(square.resize((size, size), Image.Resampling.BILINEAR))


def compose(random: np.random.RandomState, image: NDArray[np.uint8], items: Sequence[Item]) -> list[tuple[Item, Box]]:
    """Pastes up to `MOST_ITEMS` items into a square image, in place, with random position, size and brightness.

    An item for which `TRIES` positions were all taken is left out.

    Args:
        random: source of all random numbers.
        image: ``(S, S, 3)`` uint8, 0-255.
        items: to choose from; one may be pasted twice.

    Returns:
        The pasted items, each with its box as ``(x, y, width, height)``.
    """
    size = len(image)
    pasted: list[tuple[Item, Box]] = []
    for _ in range(int(random.randint(1, MOST_ITEMS + 1))):
        item = items[int(random.randint(len(items)))]
        side = int(random.randint(round(SIDES[0] * size), round(SIDES[1] * size) + 1))
        brightness = random.uniform(*BRIGHTNESS)
        pixels = cut_out(item.image, side)
        height, width = pixels.shape
        for _ in range(TRIES if pixels.size else 0):
            top, left = int(random.randint(size - height + 1)), int(random.randint(size - width + 1))
            if all(_covered((left, top, width, height), box) <= COVERED for _, box in pasted):
                pasted.append((item, paste(image, pixels, top, left, brightness)))
                break
    return pasted


def _covered(box: Box, other: Box) -> float:
    """The intersection as a share of the smaller box."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    return max(width, 0) * max(height, 0) / min(box[2] * box[3], other[2] * other[3])


def _extent(mask: NDArray[np.bool_]) -> Box:
    """Returns the smallest box around the true pixels of ``(H, W)``; all zero if there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    top, left = int(rows[0]), int(columns[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
