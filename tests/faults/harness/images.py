"""A small data set."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(root: Path) -> list[str]:
    """75 images of three classes to train on and 8 to test on; gives the settings that use them."""
    random = np.random.default_rng(0)
    for split, counts in (("train", (25, 25, 25)), ("val", (3, 3, 2))):
        for label, number in enumerate(counts):
            folder = root / split / "abc"[label]
            folder.mkdir(parents=True)
            for index in range(number):
                # Hard to tell apart, so that accuracies go up and down.
                pixels = random.integers(0, 200, (30, 40, 3), dtype=np.uint8)
                pixels[:, :, label] += 30
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return ["DATASETS.TRAIN", f"('folder:{root / 'train'}',)", "DATASETS.TEST", f"('folder:{root / 'val'}',)"]
