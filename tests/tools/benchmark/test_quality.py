"""The pixel comparison finds the crop of any mapper, and tells a correct mapper from one that aliases."""

import numpy as np
import pytest
import torch
from benchmark.quality import compare_pixels, find_crop
from PIL import Image


class PillowMapper:
    """Crops by torch's random numbers and resizes with Pillow."""

    image_format = "RGB"

    def __init__(self, filtered=Image.Resampling.BILINEAR):
        self.filtered = filtered
        self.taken = []

    def __call__(self, record):
        image = Image.open(record["file_name"]).convert("RGB")
        left, width, top, height, flip = torch.rand(5).tolist()
        width, height = 40 + int(width * (image.width - 40)), 40 + int(height * (image.height - 40))
        left, top = int(left * (image.width - width + 1)), int(top * (image.height - height + 1))
        box = (left, top, left + width, top + height)
        self.taken.append((box, flip < 0.5))
        small = image.crop(box).resize((224, 224), self.filtered)
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip < 0.5 else small
        return {"image": torch.from_numpy(np.array(small)).permute(2, 0, 1)}


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1000, 800)])
def test_the_crop_of_a_mapper_is_found(size):
    mapper = PillowMapper()
    found = [find_crop(mapper, size, seed) for seed in range(10)]
    taken = mapper.taken[::2]
    assert taken == mapper.taken[1::2]  # two images with the same random numbers
    for (box, flipped), (real, really) in zip(found, taken, strict=True):
        assert flipped == really
        # Above 765 pixels positions are not exact to a pixel; the benchmark's own images are smaller.
        assert max(abs(a - b) for a, b in zip(box, real, strict=True)) <= (max(size) > 765)
    assert {flipped for _, flipped in found} == {True, False}


def test_a_correct_mapper_has_no_difference_and_one_that_aliases_has(images, monkeypatch):
    for filtered, low, high in ((Image.Resampling.BILINEAR, 0, 0), (Image.Resampling.NEAREST, 1, 50)):
        monkeypatch.setattr(
            "benchmark.quality.ClsDatasetMapper", lambda *_, chosen=filtered, **__: PillowMapper(chosen)
        )
        facts = list(compare_pixels(images, 6).values())
        assert low <= facts[0] <= high and facts[0] <= facts[1]


def test_our_crops_are_within_half_a_level_of_pillows(images):
    facts = compare_pixels(images, 16)
    assert list(facts) == ["mean difference to Pillow (levels of 255)", "the same, worst image"]
    assert facts["mean difference to Pillow (levels of 255)"] <= 0.5
