"""From an image to the square input of the network: the part that is decoded, cut and resized."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from imgcls.data.image import EncodedImage

# A JPEG decoded at a part of its size is a box-filtered image. Where the crop of that is still 3 times as large as
# the result, the result differs from that of the whole image by less than 0.5 of 255 levels in the mean (at 2 times
# by up to 0.9, at once by up to 3.9: photographs of scikit-image and scikit-learn, qualities 80 and 95).
MIN_OVERSAMPLING = 3


class TrainCrop:
    """A random part of the image, by area and aspect ratio, resized with antialiasing.

    Randomness is torch's global generator, drawn as torchvision's ``RandomResizedCrop`` does, whose own function takes
    four times as long: as much as a twentieth of a small image's time.

    Args:
        size: side of the output in pixels.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width / height of the crop.
    """

    def __init__(self, size: int, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)):
        self.size = size
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)

    def __call__(self, image: EncodedImage) -> Tensor:
        """uint8 ``(3, size, size)``, 0-255."""
        box = self._draw(*image.size)
        part = decode_scale(min(box[2:]), self.size)
        # Whole pixels of the smaller image, whether this file can be decoded so or not: one crop on every path.
        top, left, height, width = (side // part for side in box)
        pixels = image.pixels(part)
        if pixels.shape[:2] == image.size:
            top, left, height, width = top * part, left * part, height * part, width * part
        return resize(pixels[top : top + height, left : left + width], self.size, self.size)

    def _draw(self, full_height: int, full_width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width."""
        low, high = map(math.log, self.ratio)
        for _ in range(10):
            area = full_height * full_width * torch.empty(1).uniform_(*self.scale).item()
            ratio = math.exp(torch.empty(1).uniform_(low, high).item())
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= full_height and 0 < width <= full_width:
                top = torch.randint(full_height - height + 1, (1,)).item()
                return top, torch.randint(full_width - width + 1, (1,)).item(), height, width
        # The image is too long for any of them: its centre, as near to the ratios as it can be.
        ratio = min(max(full_width / full_height, self.ratio[0]), self.ratio[1])
        height, width = min(full_height, round(full_width / ratio)), min(full_width, round(full_height * ratio))
        return (full_height - height) // 2, (full_width - width) // 2, height, width


class EvalCrop:
    """The short side resized to ``size / crop_pct`` with antialiasing, and the centre of that.

    A JPEG is always decoded at its full size: the result is that of the exact image.

    Args:
        size: side of the output in pixels.
        crop_pct: share of the short side that is kept.
    """

    def __init__(self, size: int, crop_pct: float = 0.875):
        self.size = size
        self.short = round(size / crop_pct)

    def __call__(self, image: EncodedImage) -> Tensor:
        """uint8 ``(3, size, size)``, 0-255."""
        shorter = min(image.size)
        height, width = (int(self.short * side / shorter) for side in image.size)
        resized = resize(image.pixels(), height, width)
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return resized[:, top : top + self.size, left : left + self.size]


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> Tensor:
    """``(H, W, 3)`` to ``(3, height, width)``, bilinear with antialiasing, as Pillow does it.

    The result is a view of ``(height, width, 3)``: torch is fastest on uint8 pixels whose colours lie side by side, and
    so is a network in channels-last format.
    """
    image = torch.from_numpy(np.ascontiguousarray(pixels)).unsqueeze(0).permute(0, 3, 1, 2)
    return interpolate(image, (height, width), mode="bilinear", antialias=True)[0]


def decode_scale(side: int, result: int) -> int:
    """The part of its size (1, 1/2, 1/4, 1/8) at which a JPEG may be decoded, if ``side`` pixels become ``result``."""
    return next((part for part in (8, 4, 2) if side >= part * result * MIN_OVERSAMPLING), 1)
