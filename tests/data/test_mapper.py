import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.data import ClsDatasetMapper
from imgcls.data.image import BadImageError
from imgcls.data.mapper import MappedDataset


def full(image):
    return torch.from_numpy(image.pixels()).permute(2, 0, 1)


def mapper(image_format="BGR", num_classes=4):
    return ClsDatasetMapper(crop=full, augment=lambda x: x, image_format=image_format, num_classes=num_classes)


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    return str(path), pixels


def test_other_keys_are_passed_through(image):
    path, pixels = image
    record = {"file_name": path, "image_id": "a", "label": 2, "note": "kept"}
    sample = mapper("RGB")(record)
    assert torch.equal(sample.pop("image"), torch.from_numpy(pixels).permute(2, 0, 1))
    assert sample == record and "image" not in record


def test_labels_become_a_multi_hot_target(image):
    assert mapper()({"file_name": image[0], "labels": [3, 0]})["label"].tolist() == [1, 0, 0, 1]
    empty = mapper()({"file_name": image[0], "labels": []})["label"]
    assert empty.tolist() == [0, 0, 0, 0] and empty.dtype == torch.float32


def test_labels_are_optional(image):
    assert "label" not in mapper()({"file_name": image[0]})


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
@pytest.mark.parametrize("is_train", [True, False])
def test_from_config_gives_raw_pixels_in_the_configured_size_and_format(tiny_cfg, tmp_path, image_format, is_train):
    tiny_cfg.INPUT.FORMAT = image_format
    Image.new("RGB", (300, 200), (10, 20, 30)).save(tmp_path / "flat.png")
    sample = ClsDatasetMapper(tiny_cfg, is_train)({"file_name": str(tmp_path / "flat.png"), "label": 0})
    assert sample["image"].shape == (3, 32, 32) and sample["image"].dtype == torch.uint8
    expected = [10, 20, 30] if image_format == "RGB" else [30, 20, 10]
    assert sample["image"].float().mean((1, 2)).tolist() == expected


def noisy(record):
    if record["bad"]:
        raise BadImageError(f"{record['name']}: bad")
    return {"image": torch.rand(2), "name": record["name"]}


def dataset(bad=(), **kwargs):
    return MappedDataset([{"name": n, "bad": n in bad} for n in range(5)], noisy, **kwargs)


def test_randomness_depends_on_seed_and_position_only():
    one, other = dataset(seed=1), dataset(seed=1)
    first = one[3, 0]["image"]
    other[9, 4]
    torch.manual_seed(99)
    assert torch.equal(other[3, 0]["image"], first)
    assert not torch.equal(one[4, 0]["image"], first)
    assert not torch.equal(dataset(seed=2)[3, 0]["image"], first)


def test_the_callers_random_state_is_not_changed():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset()[0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_a_plain_index_is_also_the_position():
    assert torch.equal(dataset()[2]["image"], dataset()[2, 2]["image"])


def test_error_raises():
    with pytest.raises(BadImageError, match="1: bad"):
        dataset(bad=[1])[0, 1]


def test_next_uses_the_next_readable_record_and_reports_skipped_ones():
    sample = dataset(bad=[3, 4], on_bad="next")[7, 3]
    assert sample["name"] == 0 and sample["bad_images"] == ["3: bad", "4: bad"]


def test_next_raises_if_no_record_is_readable():
    with pytest.raises(BadImageError):
        dataset(bad=range(5), on_bad="next")[0, 2]


def test_drop_returns_no_image():
    assert dataset(bad=[1], on_bad="drop")[1] == {"bad_images": ["1: bad"]}
