import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.data import ClsDatasetMapper


def whole(image):
    return torch.from_numpy(image.pixels()).permute(2, 0, 1)


def mapper(image_format="BGR", num_classes=4):
    return ClsDatasetMapper(crop=whole, augment=lambda x: x, image_format=image_format, num_classes=num_classes)


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    return str(path), pixels


def test_plain_arguments_image_label_and_passing_through(image):
    path, pixels = image
    record = {"file_name": path, "image_id": "a", "label": 2, "mine": "kept"}
    sample = mapper("RGB")(record)
    assert torch.equal(sample.pop("image"), torch.from_numpy(pixels).permute(2, 0, 1))
    assert sample == record and "image" not in record


def test_labels_become_a_multi_hot_target(image):
    assert mapper()({"file_name": image[0], "labels": [3, 0]})["label"].tolist() == [1, 0, 0, 1]
    empty = mapper()({"file_name": image[0], "labels": []})["label"]
    assert empty.tolist() == [0, 0, 0, 0] and empty.dtype == torch.float32


def test_no_label_is_needed(image):
    assert "label" not in mapper()({"file_name": image[0]})


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
@pytest.mark.parametrize("is_train", [True, False])
def test_from_config_gives_raw_pixels_at_the_input_size_in_the_configs_order(
    tiny_cfg, tmp_path, image_format, is_train
):
    tiny_cfg.INPUT.FORMAT = image_format
    Image.new("RGB", (300, 200), (10, 20, 30)).save(tmp_path / "flat.png")
    sample = ClsDatasetMapper(tiny_cfg, is_train)({"file_name": str(tmp_path / "flat.png"), "label": 0})
    assert sample["image"].shape == (3, 32, 32) and sample["image"].dtype == torch.uint8
    expected = [10, 20, 30] if image_format == "RGB" else [30, 20, 10]
    assert sample["image"].float().mean((1, 2)).tolist() == expected
