"""Predictions drawn on images: a caption below an image, and labelled boxes."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from imgcls.inference.prediction import Prediction

_LONG_SIDE = 640  # of a drawing in pixels; larger images are shrunk
_INK, _PAPER = (32, 32, 32), (255, 255, 255)
_COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207))


def draw_caption(pixels: NDArray[np.uint8], lines: Sequence[str]) -> Image.Image:
    """An image with lines of text below it.

    Args:
        pixels: RGB ``(H, W, 3)`` uint8.
        lines: each is cut off at the width of the image, which is at least 240 pixels.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((_LONG_SIDE, _LONG_SIDE))
    font = _font(14)
    step = font.size * 1.4
    paper = Image.new("RGB", (max(image.width, 240), image.height + round(step * len(lines)) + 6), _PAPER)
    paper.paste(image, ((paper.width - image.width) // 2, 0))
    pen = ImageDraw.Draw(paper)
    for number, line in enumerate(lines):
        pen.text((4, image.height + 2 + number * step), line, _INK, font)
    return paper


def draw_boxes(
    pixels: NDArray[np.uint8], boxes: Sequence[Sequence[float]], labels: Sequence[str], kinds: Sequence[int]
) -> Image.Image:
    """An image with labelled boxes, at its full size.

    Args:
        pixels: RGB ``(H, W, 3)`` uint8.
        boxes: N of left, top, width, height.
        labels: N texts.
        kinds: N numbers; boxes of one number have one colour.
    """
    image = Image.fromarray(pixels)
    size = max(12, round(max(image.size) / 50))
    font, pen = _font(size), ImageDraw.Draw(image)
    for (left, top, width, height), label, kind in zip(boxes, labels, kinds, strict=True):
        colour = _COLOURS[kind % len(_COLOURS)]
        pen.rectangle((left, top, left + width, top + height), outline=colour, width=max(2, size // 8))
        text = pen.textbbox((left, max(0, top - size * 1.4)), label, font)
        pen.rectangle((text[0] - 2, text[1] - 2, text[2] + 2, text[3] + 2), fill=colour)
        pen.text((left, max(0, top - size * 1.4)), label, _PAPER, font)
    return image


def describe(prediction: Prediction) -> list[str]:
    """One line for each class, ``"cat  0.98"``; classes above their thresholds are marked with ``*``."""
    above = set(prediction.above_threshold or ())
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    return [f"{name}{' *' if name in above else ''}  {value:.3f}" for name, value in pairs]


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
