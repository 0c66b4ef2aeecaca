import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2

from imgcls.data.crop import EvalCrop, TrainCrop, resize
from imgcls.data.image import EncodedImage


def photo(height=60, width=90):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    return np.array(small.resize((width, height), Image.BICUBIC))


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def as_image(pixels, kind="PNG", **options):
    return EncodedImage(encoded(pixels, kind, **options), "test", "RGB")


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (20, 20), (1, 300)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_evaluation_crop_matches_pillow(height, width, crop_pct):
    pixels = photo(height, width)
    out = EvalCrop(32, crop_pct)(as_image(pixels))
    image = Image.fromarray(pixels)
    short = round(32 / crop_pct)
    scale = short / min(height, width)
    image = image.resize((int(width * scale + 1e-9), int(height * scale + 1e-9)), Image.BILINEAR)
    left, top = round((image.width - 32) / 2), round((image.height - 32) / 2)
    expected = np.array(image.crop((left, top, left + 32, top + 32)))
    assert out.dtype == torch.uint8 and out.shape == (3, 32, 32)
    np.testing.assert_allclose(out.permute(1, 2, 0).numpy().astype(int), expected.astype(int), atol=1)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 61), (33, 33), (20, 300), (300, 20), (1, 50)])
def test_both_crops_match_torchvision(height, width):
    """The same random numbers give the same crop; the channels-last kernel may round differently."""
    pixels = photo(height, width)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for seed in range(20):
        torch.manual_seed(seed)
        ours = TrainCrop(32, (0.2, 0.9), (0.5, 2.0))(as_image(pixels))
        after = torch.rand(1)
        torch.manual_seed(seed)
        expected = v2.RandomResizedCrop(32, (0.2, 0.9), (0.5, 2.0), antialias=True)(tensor)
        assert torch.equal(after, torch.rand(1))
        assert (ours.int() - expected.int()).abs().max() <= 1
    expected = v2.CenterCrop(32)(v2.Resize(37, antialias=True)(tensor))
    assert (EvalCrop(32)(as_image(pixels)).int() - expected.int()).abs().max() <= 1


def test_training_crop_is_antialiased():
    """Stripes of one pixel average to grey; without antialiasing they would become black or white."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    out = TrainCrop(32, scale=(1.0, 1.0), ratio=(1.0, 1.0))(as_image(stripes))
    assert out.dtype == torch.uint8 and out.shape == (3, 32, 32)
    assert (out.float() - 127.5).abs().max() < 20


def test_crops_cover_the_given_share_of_the_image():
    """The values of a pixel are its row and column, so that the result gives the extent of the crop."""
    grid = np.zeros((200, 200, 3), np.uint8)
    grid[:, :, 0], grid[:, :, 1] = np.arange(200)[:, None], np.arange(200)
    crop, source = TrainCrop(200, (0.25, 0.5), (0.8, 1.25)), as_image(grid)
    for _ in range(30):
        out = crop(source).float()
        height, width = (out[0].max() - out[0].min() + 1).item(), (out[1].max() - out[1].min() + 1).item()
        assert 0.24 <= height * width / 200**2 <= 0.52 and 0.77 <= width / height <= 1.3


def photograph():
    return load_sample_image("china.jpg")  # 427 x 640


class Spy(EncodedImage):
    """Records the scale at which it was decoded."""

    def pixels(self, decode_scale=1):
        self.decode_scale = decode_scale
        return super().pixels(decode_scale)


def full_size(data):
    """An image that is always decoded at its full size."""
    image = EncodedImage(data, "test", "RGB")
    pixels = image.pixels()
    image.pixels = lambda decode_scale: pixels
    return image


@pytest.mark.parametrize("quality", [80, 95])
@pytest.mark.parametrize(("size", "decode_scale"), [(73, 1), (68, 2), (36, 2), (34, 4), (17, 8)])
def test_reduced_decoding_stays_within_half_a_level_of_full_decoding(size, decode_scale, quality):
    data = encoded(photograph(), "JPEG", quality=quality)
    spy, full, crop = Spy(data, "test", "RGB"), full_size(data), TrainCrop(size, (0.97, 1.0), (1.4, 1.6))
    for seed in range(5):
        torch.manual_seed(seed)
        ours = crop(spy).int()
        torch.manual_seed(seed)
        assert spy.decode_scale == decode_scale and (ours - crop(full).int()).abs().float().mean() <= 0.5


def test_reduced_decoding_crops_the_same_region():
    """The brightness of rows and columns increases evenly, so that the mean of a crop gives its position."""
    height, width = 801, 1203
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[:, :, 0] = (np.arange(height) * 250 / height).astype(np.uint8)[:, None]
    ramp[:, :, 1] = (np.arange(width) * 250 / width).astype(np.uint8)
    data = encoded(ramp, "JPEG", quality=100, subsampling=0)
    spy, full = Spy(data, "test", "RGB"), full_size(data)
    crop, scales = TrainCrop(24, (0.05, 1.0)), set()
    for seed in range(40):
        torch.manual_seed(seed)
        ours = crop(spy).float().mean((1, 2))
        torch.manual_seed(seed)
        torch.testing.assert_close(ours, crop(full).float().mean((1, 2)), atol=0.7, rtol=0)
        torch.manual_seed(seed)
        exact = v2.RandomResizedCrop(24, (0.05, 1.0), antialias=True)(torch.from_numpy(ramp).permute(2, 0, 1))
        # The crop is aligned to pixels of the reduced image: each border is off by up to 7 of the 801 rows.
        torch.testing.assert_close(ours, exact.float().mean((1, 2)), atol=3.5, rtol=0)
        scales.add(spy.decode_scale)
    assert scales == {2, 4, 8}


def test_evaluation_decodes_at_full_size():
    spy = Spy(encoded(photograph(), "JPEG"), "test", "RGB")
    EvalCrop(16)(spy)
    assert spy.decode_scale == 1


@pytest.mark.parametrize(("height", "width"), [(20, 24), (45, 73), (90, 100), (1, 1)])
def test_resize_matches_pillow_and_is_channels_last(height, width):
    pixels = photo()[5:50, 7:80]
    out = resize(pixels, height, width)
    assert out.shape == (3, height, width) and out.permute(1, 2, 0).is_contiguous()
    expected = np.array(Image.fromarray(pixels).resize((width, height), Image.BILINEAR))
    assert np.abs(out.permute(1, 2, 0).numpy().astype(int) - expected.astype(int)).max() <= 1
