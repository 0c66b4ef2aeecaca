"""The peers deliver what their users train on, from the same files."""

import numpy as np
import pytest
import torch
from benchmark import peers
from benchmark.peers import MEAN, STD, detectron2_mapper, timm_loader, torchvision_reference, torchvision_v2
from PIL import Image

from imgcls.data.catalog import get_dataset
from imgcls.errors import UserError


@pytest.fixture
def plain(tmp_path):
    """Images of one colour, so that every crop has known pixels."""
    for name, colour in {"a": (200, 100, 50), "b": (10, 20, 30)}.items():
        (tmp_path / name).mkdir()
        Image.new("RGB", (320, 240), colour).save(tmp_path / name / "0.jpg", quality=95)
    return tmp_path


def decoded(folder):
    return torch.stack([torch.from_numpy(np.array(Image.open(folder / c / "0.jpg"))[0, 0]) for c in "ab"]).float()


@pytest.mark.parametrize("make", [torchvision_reference, torchvision_v2])
def test_torchvision_gives_normalised_floats_and_labels(make, plain):
    pipeline = make(plain)
    images, labels = pipeline.collate([pipeline.dataset[0], pipeline.dataset[1]])
    assert images.shape == (2, 3, 224, 224) and images.dtype is torch.float32
    assert labels.tolist() == [0, 1]
    expected = (decoded(plain) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert torch.allclose(images.mean((2, 3)), expected, atol=1e-2)
    assert images.std((2, 3)).max() < 1e-2


def test_torchvision_crops_and_flips_at_random(images):
    for make in (torchvision_reference, torchvision_v2):
        dataset = make(images).dataset
        assert not torch.equal(dataset[0][0], dataset[0][0])


def test_both_torchvision_pipelines_give_the_same_pixels(images):
    """One crop of one image: Pillow's and torch's antialiased resizing agree to rounding."""
    results = []
    for make in (torchvision_reference, torchvision_v2):
        torch.manual_seed(3)
        results.append(make(images).dataset[5][0])
    levels = (results[0] - results[1]).abs() * torch.tensor(STD).view(3, 1, 1) * 255
    assert levels.mean() < 1


def test_detectron2_gives_the_whole_image_as_uint8_bgr(plain):
    pipeline = detectron2_mapper(plain)
    batch = pipeline.collate([pipeline.dataset[0], pipeline.dataset[1]])
    assert [sample["image"].shape for sample in batch] == [(3, 224, 224)] * 2
    assert all(sample["image"].dtype is torch.uint8 for sample in batch)
    means = torch.stack([sample["image"].float().mean((1, 2)) for sample in batch])
    assert torch.equal(means, decoded(plain).flip(1))


def test_timm_gives_stacked_uint8(plain):
    pipeline = timm_loader(plain)
    images, labels = pipeline.collate([pipeline.dataset[0], pipeline.dataset[1]])
    assert images.shape == (2, 3, 224, 224) and images.dtype is torch.uint8
    assert labels.tolist() == [0, 1]
    assert torch.equal(images.float().mean((2, 3)), decoded(plain))


def test_all_read_the_same_file_at_an_index(images):
    ours = [record["file_name"] for record in get_dataset(f"folder:{images}").records]
    assert [path for path, _ in torchvision_reference(images).dataset.samples] == ours
    timm = timm_loader(images).dataset
    assert [timm.filename(i, absolute=True) for i in range(len(timm))] == ours
    detectron2 = detectron2_mapper(images).dataset
    assert [detectron2[i]["file_name"] for i in range(3)] == ours[:3]


def test_without_timm_the_message_has_the_command(monkeypatch, images):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[timm\]"'):
        timm_loader(images)
