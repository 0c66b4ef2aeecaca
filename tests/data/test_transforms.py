import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from imgcls.config import get_cfg
from imgcls.data.transforms import build_transforms, eval_transforms, train_transforms


def photo(height=60, width=90):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    return np.array(small.resize((width, height), Image.BICUBIC))


def as_tensor(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (20, 20), (1, 300)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_evaluation_is_antialiased_resize_and_centre_crop_as_pillow_does_it(height, width, crop_pct):
    pixels = photo(height, width)
    out = eval_transforms(32, crop_pct)(as_tensor(pixels))
    image = Image.fromarray(pixels)
    short = round(32 / crop_pct)
    scale = short / min(height, width)
    image = image.resize((int(width * scale + 1e-9), int(height * scale + 1e-9)), Image.BILINEAR)
    left, top = round((image.width - 32) / 2), round((image.height - 32) / 2)
    expected = np.array(image.crop((left, top, left + 32, top + 32)))
    assert out.dtype == torch.uint8 and out.shape == (3, 32, 32)
    np.testing.assert_allclose(out.permute(1, 2, 0).numpy().astype(int), expected.astype(int), atol=1)


def test_training_crop_is_antialiased_and_of_the_asked_size():
    """The picture's Nyquist stripes average to grey; without antialiasing they would alias to black or white."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    out = train_transforms(32, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip="none")(as_tensor(stripes))
    assert out.dtype == torch.uint8 and out.shape == (3, 32, 32)
    assert (out.float() - 127.5).abs().max() < 20


@pytest.mark.parametrize(("flip", "dim"), [("horizontal", 2), ("vertical", 1)])
def test_flip(flip, dim):
    picture = as_tensor(photo(32, 32))
    transform = train_transforms(32, (1.0, 1.0), (1.0, 1.0), flip)
    seen = {tuple(transform(picture).flatten().tolist()) for _ in range(30)}
    assert seen == {tuple(picture.flatten().tolist()), tuple(picture.flip(dim).flatten().tolist())}


def test_no_flip():
    picture = as_tensor(photo(32, 32))
    transform = train_transforms(32, (1.0, 1.0), (1.0, 1.0), "none")
    assert all(torch.equal(transform(picture), picture) for _ in range(10))


def test_crops_cover_the_asked_share_of_the_picture():
    """Each pixel holds its own row and column: the crop's extent can be read off the result."""
    grid = np.zeros((200, 200, 3), np.uint8)
    grid[:, :, 0], grid[:, :, 1] = np.arange(200)[:, None], np.arange(200)
    transform = train_transforms(200, (0.25, 0.5), (0.8, 1.25), "none")
    for _ in range(30):
        out = transform(as_tensor(grid)).float()
        height, width = (out[0].max() - out[0].min() + 1).item(), (out[1].max() - out[1].min() + 1).item()
        assert 0.24 <= height * width / 200**2 <= 0.52 and 0.77 <= width / height <= 1.3


def test_erasing_and_augmentation_happen_when_asked():
    picture = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    erased = train_transforms(32, (1.0, 1.0), (1.0, 1.0), "none", erasing=1.0)(picture)
    assert (erased == 0).any() and (erased == 200).any()
    for name, kind in (("trivialaugment", v2.TrivialAugmentWide), ("randaugment", v2.RandAugment)):
        assert kind in [type(step) for step in train_transforms(32, augmentation=name).transforms]


def test_build_reads_the_config():
    cfg = get_cfg()
    cfg.MODEL.CLSNET.INPUT_SIZE = 40
    cfg.INPUT.CROP_SCALE, cfg.INPUT.CROP_RATIO, cfg.INPUT.RANDOM_FLIP = [0.5, 0.6], [0.9, 1.1], "vertical"
    cfg.INPUT.AUGMENTATION, cfg.INPUT.RANDOM_ERASING, cfg.INPUT.CROP_PCT = "randaugment", 0.3, 0.8
    crop, flip, augment, erase = build_transforms(cfg, is_train=True).transforms
    assert (crop.size, crop.scale, crop.ratio) == ((40, 40), (0.5, 0.6), (0.9, 1.1))
    assert isinstance(flip, v2.RandomVerticalFlip) and isinstance(augment, v2.RandAugment) and erase.p == 0.3
    resize, centre = build_transforms(cfg, is_train=False).transforms
    assert resize.size == [50] and centre.size == (40, 40)
