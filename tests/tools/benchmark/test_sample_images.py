"""The images that the benchmark makes, and the folders that it refuses."""

import importlib.util
import io

import pytest
from benchmark import sample_images as module
from benchmark.sample_images import describe_images, find_images, make_images
from PIL import Image

from imgcls.errors import UserError, UserFileNotFoundError


def test_jpegs_of_500x375_at_quality_95_with_one_class_per_photograph(images):
    files = sorted(images.rglob("*.jpg"))
    assert len(files) == 16 and len({file.parent.name for file in files}) == 8
    assert {"astronaut", "china"} <= {file.parent.name for file in files}  # of both packages
    assert "brick" not in {file.parent.name for file in files}  # grey, unlike users' images
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", quality=95)
    for file in files:
        image = Image.open(file)
        assert (image.size, image.mode, image.format) == ((500, 375), "RGB", "JPEG")
        assert image.quantization == Image.open(out).quantization


def test_the_bytes_are_the_same_every_time(images, tmp_path):
    make_images(tmp_path, 16)
    for file in images.rglob("*.jpg"):
        assert (tmp_path / file.relative_to(images)).read_bytes() == file.read_bytes()


def test_the_default_set_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COUNT", 8)
    folder = find_images(None)
    assert folder == tmp_path / "datasets" / "imgcls" / "benchmark"
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*.jpg")}
    assert len(times) == 8
    assert find_images(None) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.jpg")} == times


def test_the_default_is_500_images_or_more():
    assert module.COUNT >= 500


@pytest.mark.parametrize("package", ["skimage", "sklearn"])
def test_without_the_photographs_the_message_has_the_command(package, monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(UserError, match=rf"{package} has none: pip install -e .*demo.*--data"):
        make_images(tmp_path, 1)


def test_a_users_folder_is_used_as_it_is(images):
    assert find_images(str(images)) == images


def test_their_number_and_mean_size_are_reported(images):
    facts = describe_images(images)
    assert facts["images"] == 16
    total = sum(len(file.read_bytes()) for file in images.rglob("*.jpg"))
    assert facts["KiB an image"] == pytest.approx(total / 16 / 1024, abs=0.06)


def test_a_users_folder_must_exist_and_hold_jpegs(tmp_path, write_folder):
    with pytest.raises(UserFileNotFoundError, match="none: no such folder"):
        find_images(str(tmp_path / "none"))
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(UserError, match="no images"):
        find_images(str(tmp_path / "empty"))
    folder = write_folder(tmp_path / "png", {"a": 1})
    with pytest.raises(UserError, match=rf"--data {folder}: .*0\.png is no JPEG file"):
        find_images(str(folder))
