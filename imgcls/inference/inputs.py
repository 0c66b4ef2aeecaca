"""What the predictor takes as an image, and the pixels that the network gets from it."""

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from imgcls.data.crop import DecodedImage
from imgcls.data.image import EncodedImage, pillow_to_rgb, read_bytes
from imgcls.errors import UserError

CHANNEL_ORDERS = ("RGB", "BGR")
ImageInput = str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor
_ALLOWED = "a path, a PIL.Image, a uint8 array of shape (H, W, 3) or a uint8 tensor of shape (3, H, W)"


def as_image(image: ImageInput, name: str, image_format: str, channel_order: str | None) -> EncodedImage | DecodedImage:
    """An image for ``EvalCrop``, in the channel order of the network.

    A file is decoded as in training and evaluation. A Pillow image is turned upright by its EXIF orientation and
    converted like a file that OpenCV cannot read; the pixels of a JPEG may differ by a level or two
    from those of its path.

    Args:
        image: any of ``ImageInput``.
        name: starts every message.
        image_format: of the network, ``"BGR"`` or ``"RGB"``.
        channel_order: of an array or tensor, ``"RGB"`` or ``"BGR"``.

    Raises:
        BadImageError: a file is missing, damaged, or no image.
        UserError: the type, dtype, shape or order is not one of those above.
    """
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        return EncodedImage(read_bytes({"file_name": path}), path, image_format)
    if isinstance(image, Image.Image):
        return _decoded(pillow_to_rgb(name, image), "RGB", image_format)
    if isinstance(image, np.ndarray):
        _check_values(image, name, "an array", image.dtype == np.uint8, image.ndim == 3 and image.shape[2] == 3)
        pixels = image
    elif isinstance(image, Tensor):
        _check_values(image, name, "a tensor", image.dtype == torch.uint8, image.ndim == 3 and image.shape[0] == 3)
        pixels = image.cpu().permute(1, 2, 0).numpy()
    else:
        raise UserError(f"{name} is a {type(image).__name__}; allowed: {_ALLOWED}")
    if channel_order is None:
        raise UserError(
            f'{name}: an array or tensor does not say its channel order; give channel_order="RGB", or "BGR" for images '
            "of OpenCV and detectron2"
        )
    check_channel_order(channel_order)
    return _decoded(pixels, channel_order, image_format)


def check_channel_order(channel_order: str) -> None:
    """Refuses an order that is not one of ``CHANNEL_ORDERS``."""
    if channel_order not in CHANNEL_ORDERS:
        raise UserError(f"channel_order is {channel_order!r}; allowed: 'RGB' or 'BGR'")


def _decoded(pixels: NDArray[np.uint8], order: str, image_format: str) -> DecodedImage:
    return DecodedImage(pixels if order == image_format else pixels[:, :, ::-1])


def _check_values(image: Any, name: str, kind: str, is_uint8: bool, has_shape: bool) -> None:
    dtype = str(image.dtype).removeprefix("torch.")
    if not is_uint8:
        hint = "multiply by 255 if its values are 0 to 1, and convert" if "float" in dtype else "scale it to 0-255"
        raise UserError(f"{name} is {kind} of {dtype}; allowed: uint8, 0-255; {hint}")
    shape = tuple(image.shape)
    if not has_shape:
        wanted = "(H, W, 3)" if kind == "an array" else "(3, H, W)"
        raise UserError(f"{name} is {kind} of shape {shape}; allowed: {wanted}, one image in colour")
    if 0 in shape:
        raise UserError(f"{name} is {kind} of shape {shape}, which has no pixels")
