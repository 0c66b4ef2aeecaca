"""The set that the benchmark makes, and what it refuses."""

import importlib.util
import io

import pytest
from PIL import Image

from imgcls.benchmark import pictures as module
from imgcls.benchmark.pictures import describe_pictures, find_pictures, make_pictures
from imgcls.errors import UserError, UserFileNotFoundError


def test_jpegs_of_500x375_at_quality_95_in_a_class_a_photograph(pictures):
    files = sorted(pictures.rglob("*.jpg"))
    assert len(files) == 16 and len({file.parent.name for file in files}) == 8
    assert {"astronaut", "china"} <= {file.parent.name for file in files}  # of both packages
    assert "brick" not in {file.parent.name for file in files}  # grey, and no user's set is
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", quality=95)
    for file in files:
        image = Image.open(file)
        assert (image.size, image.mode, image.format) == ((500, 375), "RGB", "JPEG")
        assert image.quantization == Image.open(out).quantization


def test_the_same_bytes_every_time(pictures, tmp_path):
    make_pictures(tmp_path, 16)
    for file in pictures.rglob("*.jpg"):
        assert (tmp_path / file.relative_to(pictures)).read_bytes() == file.read_bytes()


def test_the_default_set_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COUNT", 8)
    folder = find_pictures(None)
    assert folder == tmp_path / "datasets" / "imgcls" / "benchmark"
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*.jpg")}
    assert len(times) == 8
    assert find_pictures(None) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.jpg")} == times


def test_it_has_500_pictures_or_more():
    assert module.COUNT >= 500


@pytest.mark.parametrize("package", ["skimage", "sklearn"])
def test_without_the_photographs_the_message_has_the_command(package, monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(UserError, match=rf"{package} has none here: pip install -e .*demo.*--data"):
        make_pictures(tmp_path, 1)


def test_a_users_folder_is_taken_as_it_is(pictures):
    assert find_pictures(str(pictures)) == pictures


def test_they_are_counted_and_weighed(pictures):
    told = describe_pictures(pictures)
    assert told["pictures"] == 16
    total = sum(len(file.read_bytes()) for file in pictures.rglob("*.jpg"))
    assert told["KiB a picture"] == pytest.approx(total / 16 / 1024, abs=0.06)


def test_a_users_folder_must_be_there_and_hold_jpegs(tmp_path, write_folder):
    with pytest.raises(UserFileNotFoundError, match="none: no such folder"):
        find_pictures(str(tmp_path / "none"))
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(UserError, match="no pictures"):
        find_pictures(str(tmp_path / "empty"))
    folder = write_folder(tmp_path / "png", {"a": 1})
    with pytest.raises(UserError, match=rf"--data {folder}: has .*0\.png; .*JPEG"):
        find_pictures(str(folder))
