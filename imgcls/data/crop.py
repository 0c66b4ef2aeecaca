"""Cropping and resizing an image to the square input of the network."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from imgcls.data.image import EncodedImage

# Decoding a JPEG at a reduced size applies a box filter. If the crop is then still at least 3 times the output's size,
# the output differs from that of full-size decoding by less than 0.5 of 255 levels on average (2 times: up to 0.9,
# 1 time: up to 3.9; measured on the photographs of scikit-image and scikit-learn at JPEG qualities 80 and 95).
MIN_OVERSAMPLING = 3


class TrainCrop:
    """A crop of random area and aspect ratio, resized with antialiasing.

    Draws the same numbers from torch's global generator as torchvision's ``RandomResizedCrop``, in a quarter of the
    time, which matters for small images.

    Args:
        size: side of the output in pixels.
        scale: smallest and largest area of the crop, as shares of the image's area.
        ratio: smallest and largest width / height of the crop.
    """

    def __init__(self, size: int, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)):
        self.size = size
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)

    def __call__(self, image: EncodedImage) -> Tensor:
        """uint8 ``(3, size, size)``, 0-255."""
        box = self._draw(*image.size)
        decode_scale = choose_decode_scale(min(box[2:]), self.size)
        # Whole pixels of the reduced image: the crop is then the same if this file cannot be decoded at a reduced size.
        top, left, height, width = (side // decode_scale for side in box)
        pixels = image.pixels(decode_scale)
        if pixels.shape[:2] == image.size:
            top, left, height, width = (side * decode_scale for side in (top, left, height, width))
        return resize(pixels[top : top + height, left : left + width], self.size, self.size)

    def _draw(self, full_height: int, full_width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width."""
        low, high = map(math.log, self.ratio)
        for _ in range(10):
            area = full_height * full_width * torch.empty(1).uniform_(*self.scale).item()
            ratio = math.exp(torch.empty(1).uniform_(low, high).item())
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= full_height and 0 < width <= full_width:
                top = int(torch.randint(full_height - height + 1, (1,)))
                return top, int(torch.randint(full_width - width + 1, (1,))), height, width
        # The image is too elongated for these ratios: take its centre, at the nearest ratio.
        ratio = min(max(full_width / full_height, self.ratio[0]), self.ratio[1])
        height, width = min(full_height, round(full_width / ratio)), min(full_width, round(full_height * ratio))
        return (full_height - height) // 2, (full_width - width) // 2, height, width


class DecodedImage:
    """Pixels in memory, with the interface of `EncodedImage`: ``(H, W, 3)`` uint8, 0-255.

    Attributes:
        size: height and width in pixels.
    """

    def __init__(self, pixels: NDArray[np.uint8]):
        self._pixels = pixels
        self.size: tuple[int, int] = (pixels.shape[0], pixels.shape[1])

    def pixels(self, decode_scale: int = 1) -> NDArray[np.uint8]:
        """The pixels at full size, whatever the scale."""
        return self._pixels


class EvalCrop:
    """Resizes the short side to ``size / crop_pct`` with antialiasing, and crops the central ``size x size`` pixels.

    A JPEG is always decoded at its full size, so that evaluation uses the exact pixels.
    """

    def __init__(self, size: int, crop_pct: float = 0.875):
        self.size = size
        self.short = round(size / crop_pct)

    def __call__(self, image: EncodedImage | DecodedImage) -> Tensor:
        """uint8 ``(3, size, size)``, 0-255."""
        shorter = min(image.size)
        height, width = (int(self.short * side / shorter) for side in image.size)
        resized = resize(image.pixels(), height, width)
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return resized[:, top : top + self.size, left : left + self.size]


def whole_image(image: EncodedImage | DecodedImage) -> Tensor:
    """uint8 ``(3, H, W)``, 0-255, for a network that resizes and crops images itself."""
    return torch.from_numpy(np.ascontiguousarray(image.pixels().transpose(2, 0, 1)))


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> Tensor:
    """Resizes ``(H, W, 3)`` to ``(3, height, width)``: bilinear with antialiasing, like Pillow.

    The result is channels-last in memory, the fastest format both for this operation and for a network that uses it.
    """
    image = torch.from_numpy(np.ascontiguousarray(pixels)).unsqueeze(0).permute(0, 3, 1, 2)
    return interpolate(image, (height, width), mode="bilinear", antialias=True)[0]


def choose_decode_scale(crop_side: int, size: int) -> int:
    """The largest `decode_scale` (8, 4, 2 or 1) that leaves a crop's shorter side `MIN_OVERSAMPLING` times ``size``."""
    return next((scale for scale in (8, 4, 2) if crop_side >= scale * size * MIN_OVERSAMPLING), 1)
