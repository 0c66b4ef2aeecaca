"""The images of a benchmark as ``tools/pack_dataset.py`` stores them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from imgcls.data.catalog import get_dataset
from imgcls.data.shards.pack import pack_dataset
from imgcls.errors import UserError

SHORT_SIDE, QUALITY = 256, 90
# A larger folder would take long and much of the disk, and no more of it is read in a measurement.
_MOST = 5000


@contextmanager
def packed_images(folder: Path) -> Iterator[str | None]:
    """The name of a packed copy, for ``DATASETS.TRAIN``, for the time of the block; None for more than 5000 images.

    Raises:
        UserError: webdataset is not installed, or an image cannot be read.
    """
    if len(get_dataset(f"folder:{folder}").records) > _MOST:
        yield None
        return
    if find_spec("webdataset") is None:
        raise UserError('packed images are one of the candidates and need webdataset: pip install -e ".[shards]"')
    with tempfile.TemporaryDirectory() as out:
        index = pack_dataset(f"folder:{folder}", out, SHORT_SIDE, QUALITY)
        first, last = (index["shards"][i]["name"].removesuffix(".tar") for i in (0, -1))
        yield f"shards:{os.path.join(out, f'{{{first}..{last}}}.tar')}"
