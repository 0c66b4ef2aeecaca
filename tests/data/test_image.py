"""Unusual files against Pillow's own reading of them, and slices of shards."""

import copy
import io
import os
import pickle
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgcls.data.image import BadImageError, EncodedImage, OpenShards, ShardSlice, read_bytes, read_image


def photo(size=(37, 23)):
    """A smooth image, so that lossy files stay close to it."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    return np.stack([x * 6, y * 10, 255 - (x + y) * 4], -1).clip(0, 255).astype(np.uint8)


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def assert_like_pillow(path, expected, tolerance):
    rgb, bgr = read_image(str(path), "RGB"), read_image(str(path), "BGR")
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous and bgr.flags.c_contiguous
    np.testing.assert_array_equal(rgb, bgr[:, :, ::-1])
    np.testing.assert_allclose(rgb.astype(int), expected.astype(int), atol=tolerance)


# OpenCV and Pillow ship their own libjpeg, whose inverse transforms and upsampling may differ by a few levels.
@pytest.mark.parametrize(
    ("name", "mode", "options", "tolerance"),
    [
        ("plain.jpg", "RGB", {"quality": 95}, 4),
        ("progressive.jpg", "RGB", {"quality": 90, "progressive": True}, 4),
        ("full_chroma.jpg", "RGB", {"quality": 90, "subsampling": 0}, 4),
        ("grey.jpg", "L", {"quality": 95}, 2),
        ("cmyk.jpg", "CMYK", {"quality": 95}, 0),
        ("plain.png", "RGB", {}, 0),
        ("grey.png", "L", {}, 0),
        ("grey_alpha.png", "LA", {}, 0),
        ("alpha.png", "RGBA", {}, 0),
        ("palette.png", "P", {}, 0),
        ("one_bit.png", "1", {}, 0),
        ("palette.gif", "P", {}, 0),
        ("plain.bmp", "RGB", {}, 0),
        ("plain.tiff", "RGB", {}, 0),
        ("plain.webp", "RGB", {"lossless": True}, 0),
        ("plain.ppm", "RGB", {}, 0),
    ],
)
def test_every_mode(tmp_path, name, mode, options, tolerance):
    image = Image.fromarray(photo()).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(photo()[:, :, 0]))
    path = saved(tmp_path, image, name, **options)
    assert_like_pillow(path, np.array(Image.open(path).convert("RGB")), tolerance)


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff"])
def test_16_bit_is_scaled_and_not_clipped(tmp_path, name):
    deep = (photo()[:, :, 0].astype(np.uint16)) * 257
    path = saved(tmp_path, Image.fromarray(deep), name)
    assert_like_pillow(path, np.repeat(photo()[:, :, :1], 3, axis=2), 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_exif_orientation_is_applied(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(photo()), f"rotated.{kind}", exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    assert expected.shape == ((23, 37, 3) if orientation <= 4 else (37, 23, 3))
    assert_like_pillow(path, expected, 4 if kind == "jpg" else 0)


def test_bytes_after_the_end_of_a_jpeg_are_ignored(tmp_path):
    path = saved(tmp_path, Image.fromarray(photo()), "padded.jpg")
    expected = np.array(Image.open(path))
    path.write_bytes(path.read_bytes() + b"\0" * 7)
    assert_like_pillow(path, expected, 4)


def test_unicode_and_spaces_in_the_path(tmp_path):
    folder = tmp_path / "mit Größe 图片"
    folder.mkdir()
    path = saved(folder, Image.fromarray(photo()), "ein Bild.png")
    np.testing.assert_array_equal(read_image(str(path), "RGB"), photo())


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(photo((200, 150))).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_named(tmp_path, kind, share):
    data = encoded(kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadImageError, match=r"cut\.\w+: .*DATALOADER\.BAD_IMAGES"):
        read_image(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, I am text", "not an image"),
        (b"\xff\xd8\xff\xd9", "not an image|damaged"),
        (b"<svg/>", "not an image"),
    ],
)
def test_files_that_are_not_images(tmp_path, content, message):
    path = tmp_path / "fake.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"fake\.jpg: .*({message})") as raised:
        read_image(str(path))
    assert "\n" not in str(raised.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(BadImageError, match=r"gone\.png: cannot be opened: No such file"):
        read_image(str(tmp_path / "gone.png"))
    with pytest.raises(BadImageError, match="Is a directory"):
        read_image(str(tmp_path))


@pytest.mark.parametrize("decode_scale", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
def test_size_is_known_before_decoding_at_a_reduced_size(tmp_path, decode_scale, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(photo()), "rotated.jpg", exif=exif)
    image = EncodedImage(path.read_bytes(), "rotated.jpg", "RGB")
    upright = ImageOps.exif_transpose(Image.open(path))
    assert image.size == (upright.height, upright.width)
    # A rotated image is always decoded at its full size.
    scale = decode_scale if orientation == 1 else 1
    pixels = image.pixels(decode_scale)
    assert pixels.shape == (-(-upright.height // scale), -(-upright.width // scale), 3)
    # Means over complete squares; the last row and column of the reduced image may cover less.
    rows, columns = upright.height // scale, upright.width // scale
    squares = np.array(upright)[: rows * scale, : columns * scale].reshape(rows, scale, columns, scale, 3)
    np.testing.assert_allclose(pixels[:rows, :columns], squares.mean((1, 3)), atol=6)


def test_a_damaged_orientation_tag_is_ignored(tmp_path):
    path = saved(tmp_path, Image.fromarray(photo()), "plain.jpg")
    data = path.read_bytes()
    segment = b"Exif\0\0II*\0\xff\xff\xff\xff"
    data = data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
    image = EncodedImage(data, "plain.jpg", "RGB")
    assert image.size == (23, 37)
    np.testing.assert_array_equal(image.pixels(), read_image(str(path), "RGB"))


CONTENT = bytes(range(256)) * 4


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "000000.tar"
    path.write_bytes(CONTENT)
    return str(path)


def slice_record(shard, offset, size, crc32=None):
    crc32 = zlib.crc32(CONTENT[offset : offset + size]) if crc32 is None else crc32
    return {"file_name": f"{shard}/key.jpg", "shard_slice": ShardSlice(shard, offset, size, crc32)}


def test_a_single_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert read_bytes({"file_name": str(tmp_path / "a.jpg")}) == b"abc"


def test_missing_and_empty_files_are_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(BadImageError, match=r"a\.jpg: the file is empty \(0 bytes\); .*BAD_IMAGES"):
        read_bytes({"file_name": str(tmp_path / "a.jpg")})
    with pytest.raises(BadImageError, match=r"b\.jpg: cannot be opened: No such file"):
        read_bytes({"file_name": str(tmp_path / "b.jpg")})


@pytest.mark.parametrize(("offset", "size"), [(0, 10), (300, 700), (1000, 24)])
def test_a_slice_of_a_shard(shard, offset, size):
    assert read_bytes(slice_record(shard, offset, size)) == CONTENT[offset : offset + size]


def test_a_truncated_shard(shard):
    with pytest.raises(BadImageError, match=r"tar/key\.jpg: the shard ends after 24 of its 25 bytes; .*--verify"):
        read_bytes(slice_record(shard, 1000, 25))


def test_changed_bytes(shard):
    with pytest.raises(BadImageError, match=r"000000\.tar/key\.jpg: its checksum in the shard is wrong; .*BAD_IMAGES"):
        read_bytes(slice_record(shard, 10, 25, crc32=1))


def test_a_missing_shard(shard):
    with pytest.raises(BadImageError, match=r"gone\.tar/key\.jpg: the shard cannot be read: .*No such file"):
        read_bytes(slice_record(shard.replace("000000", "gone"), 10, 25))


def test_a_user_defined_key_of_that_name_is_ignored(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert read_bytes({"file_name": str(tmp_path / "a.jpg"), "shard_slice": ["/etc/hostname", 0, 3, 0]}) == b"abc"


def test_the_number_of_open_shards_is_limited(tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.tar").write_bytes(CONTENT)
    before = len(os.listdir("/proc/self/fd"))
    shards = OpenShards(limit=5)
    for _ in range(2):
        for i in range(20):
            read_bytes(slice_record(str(tmp_path / f"{i}.tar"), 0, 10), shards)
    assert len(os.listdir("/proc/self/fd")) - before == 5
    for other in (pickle.loads(pickle.dumps(shards)), copy.deepcopy(shards)):
        assert other.read(ShardSlice(str(tmp_path / "3.tar"), 5, 10, 0)) == CONTENT[5:15]
    del shards, other
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_open_shards_no_file_stays_open(shard):
    before = len(os.listdir("/proc/self/fd"))
    read_bytes(slice_record(shard, 0, 10))
    assert len(os.listdir("/proc/self/fd")) == before


def test_processes_may_share_an_open_shard(shard):
    """``read`` would move the position of the other process; ``pread`` uses none."""
    shards = OpenShards()
    read_bytes(slice_record(shard, 0, 10), shards)
    child = os.fork()
    wrong = any(read_bytes(slice_record(shard, i, 20), shards) != CONTENT[i : i + 20] for i in range(1000))
    if child == 0:
        os._exit(wrong)
    assert not wrong and os.waitpid(child, 0)[1] == 0
