import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgcls.data.picture_bytes import BadImageError
from imgcls.data.shards.encode import encode_picture


@pytest.fixture
def picture():
    """Without colour, which JPEG stores at half the size: what differs is then due to the resizing."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8), dtype=np.uint8)
    return Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC).convert("RGB")


def save(image, path, **options):
    image.save(path, **options)
    return {"file_name": str(path)}


def stored(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("short_side", [15, 31, 59])
def test_a_large_picture_is_shrunk_as_pillow_does_it(picture, tmp_path, short_side):
    record = save(picture, tmp_path / "a.png")
    data, extension = encode_picture(record, short_side, 100)
    wide = round(80 * short_side / 60)
    assert extension == "jpg" and stored(data).format == "JPEG" and stored(data).size == (wide, short_side)
    wanted = picture.resize((wide, short_side), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(wanted, float) - np.asarray(stored(data), float)).mean() < 0.5


@pytest.mark.parametrize("short_side", [60, 61, 500])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_picture_that_fits_is_kept_byte_for_byte(picture, tmp_path, short_side, name):
    record = save(picture, tmp_path / name)
    assert encode_picture(record, short_side, 10) == ((tmp_path / name).read_bytes(), name[2:])


def test_the_content_decides_not_the_name(picture, tmp_path):
    record = save(picture, tmp_path / "a.jpg", format="PNG")
    assert encode_picture(record, 60, 90)[1] == "png"


def test_other_formats_become_jpeg_of_their_size(picture, tmp_path):
    data, extension = encode_picture(save(picture, tmp_path / "a.bmp"), 500, 95)
    assert extension == "jpg" and stored(data).size == (80, 60)
    assert np.abs(np.asarray(picture, float) - np.asarray(stored(data), float)).mean() < 2


def test_quality_counts(picture, tmp_path):
    record = save(picture, tmp_path / "a.png")
    assert len(encode_picture(record, 40, 30)[0]) < len(encode_picture(record, 40, 95)[0])


def test_a_shrunk_picture_is_stored_upright(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data, _ = encode_picture(save(picture, tmp_path / "a.jpg", exif=exif, quality=95), 30, 95)
    assert stored(data).size == (30, 40) and not stored(data).getexif()
    with Image.open(tmp_path / "a.jpg") as original:
        wanted = ImageOps.exif_transpose(original).resize((30, 40), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(wanted, float) - np.asarray(stored(data), float)).mean() < 1


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(BadImageError, match=r"a\.jpg: not a picture"):
        encode_picture({"file_name": str(tmp_path / "a.jpg")}, 60, 90)
