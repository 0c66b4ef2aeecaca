"""The names that are there without being registered by the user."""

from collections.abc import Callable
from functools import partial

from imgcls.data.datasets.digits import read_digits, read_digits_mosaic
from imgcls.data.datasets.fashion_mnist import read_fashion_mnist
from imgcls.data.datasets.imagenet import read_imagenet
from imgcls.data.datasets.records import Listing

BUILTIN: dict[str, Callable[[], Listing]] = {
    **{f"imagenet_{split}": partial(read_imagenet, split) for split in ("train", "val")},
    **{f"digits_{split}": partial(read_digits, split) for split in ("train", "test")},
    **{f"digits_mosaic_{split}": partial(read_digits_mosaic, split) for split in ("train", "test")},
    **{f"fashion_mnist_{split}": partial(read_fashion_mnist, split) for split in ("train", "test")},
}
