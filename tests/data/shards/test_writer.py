import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgcls.data.image import BadImageError
from imgcls.data.shards.writer import encode_image


@pytest.fixture
def image():
    """A grey image: JPEG stores colour at half the resolution, which would add to the differences of the resizing."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8), dtype=np.uint8)
    return Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC).convert("RGB")


def save(image, path, **options):
    image.save(path, **options)
    return {"file_name": str(path)}


def stored(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("short_side", [15, 31, 59])
def test_a_large_image_is_shrunk_as_pillow_does_it(image, tmp_path, short_side):
    record = save(image, tmp_path / "a.png")
    data, extension = encode_image(record, short_side, 100)
    wide = round(80 * short_side / 60)
    assert extension == "jpg" and stored(data).format == "JPEG" and stored(data).size == (wide, short_side)
    wanted = image.resize((wide, short_side), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(wanted, float) - np.asarray(stored(data), float)).mean() < 0.5


@pytest.mark.parametrize("short_side", [60, 61, 500])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_an_image_that_fits_is_kept_byte_for_byte(image, tmp_path, short_side, name):
    record = save(image, tmp_path / name)
    assert encode_image(record, short_side, 10) == ((tmp_path / name).read_bytes(), name[2:])


def test_the_format_is_found_from_the_content(image, tmp_path):
    record = save(image, tmp_path / "a.jpg", format="PNG")
    assert encode_image(record, 60, 90)[1] == "png"


def test_other_formats_become_jpeg_of_their_size(image, tmp_path):
    data, extension = encode_image(save(image, tmp_path / "a.bmp"), 500, 95)
    assert extension == "jpg" and stored(data).size == (80, 60)
    assert np.abs(np.asarray(image, float) - np.asarray(stored(data), float)).mean() < 2


def test_lower_quality_gives_fewer_bytes(image, tmp_path):
    record = save(image, tmp_path / "a.png")
    assert len(encode_image(record, 40, 30)[0]) < len(encode_image(record, 40, 95)[0])


def test_a_shrunk_image_is_stored_upright(image, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data, _ = encode_image(save(image, tmp_path / "a.jpg", exif=exif, quality=95), 30, 95)
    assert stored(data).size == (30, 40) and not stored(data).getexif()
    with Image.open(tmp_path / "a.jpg") as original:
        wanted = ImageOps.exif_transpose(original).resize((30, 40), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(wanted, float) - np.asarray(stored(data), float)).mean() < 1


def test_a_file_that_is_not_an_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(BadImageError, match=r"a\.jpg: not an image"):
        encode_image({"file_name": str(tmp_path / "a.jpg")}, 60, 90)
