"""Small sources and what is packed from them."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photographs(tmp_path):
    """``photographs(7)``: the name of a set of JPEG files, 60x40, of two classes."""

    def write(count, size=(60, 40)):
        rng = np.random.default_rng(1)
        for number in range(count):
            folder = tmp_path / "source" / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            small = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=95)
        return f"folder:{tmp_path / 'source'}"

    return write
