import os

import pytest

from imgcls.data.catalog import get_dataset
from imgcls.data.readers.folder import read_folder
from imgcls.errors import UserError, UserFileNotFoundError


def make(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return str(root)


def ids(raw):
    return [record["image_id"] for record in raw.records]


def test_classes_are_sorted_and_images_found_at_any_depth(tmp_path):
    root = make(
        tmp_path / "my images é",
        "dog/b.JPEG",
        "dog/a.png",
        "dog/2020/may/c.webp",
        "Cat/ä ö.tif",
        "dog/notes.txt",
        "dog/.hidden.png",
        "dog/.thumbs/d.png",
        ".git/e.png",
        "stray.png",
    )
    raw = read_folder(root, training=True)
    assert raw.classes == ["Cat", "dog"]
    assert ids(raw) == ["Cat/ä ö.tif", "dog/a.png", "dog/b.JPEG", "dog/2020/may/c.webp"]
    assert [record["label"] for record in raw.records] == [0, 1, 1, 1]
    assert raw.records[3]["file_name"] == os.path.join(root, "dog", "2020", "may", "c.webp")
    assert all(os.path.isfile(record["file_name"]) for record in raw.records)
    assert (raw.named, raw.multi_label, raw.source) == (True, False, root)


def test_two_readings_are_equal(tmp_path):
    root = make(tmp_path, *(f"{c}/{d}/{i}.png" for c in "ba" for d in "zyx" for i in range(5)))
    assert read_folder(root, True) == read_folder(root, True)


def test_links_are_followed_and_loops_are_not(tmp_path):
    make(tmp_path / "elsewhere", "deep/x.png")
    root = make(tmp_path / "root", "a/1.png", "b/2.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "root" / "linked")
    os.symlink(tmp_path / "root" / "a", tmp_path / "root" / "a" / "self")
    os.symlink(tmp_path / "root", tmp_path / "root" / "b" / "up")
    raw = read_folder(root, training=True)
    assert ids(raw) == ["a/1.png", "b/2.png", "linked/deep/x.png"]


def test_missing_folder(tmp_path):
    with pytest.raises(UserFileNotFoundError, match="nothing: no such folder"):
        read_folder(str(tmp_path / "nothing"), training=True)


def test_a_file_is_not_a_folder(tmp_path):
    make(tmp_path, "a.png")
    with pytest.raises(UserError, match=r"a\.png: cannot be read as a folder"):
        read_folder(str(tmp_path / "a.png"), training=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "has no class sub-folders"),
        (("a.png", "b.txt"), "has images but no class sub-folders; expected .*/CLASS/IMAGE"),
        (("a/b.txt",), r"no images in its sub-folders; an image ends with \.jpg, "),
    ],
)
def test_a_folder_without_images_in_classes(tmp_path, files, message):
    make(tmp_path, *files)
    with pytest.raises(UserError, match=message) as caught:
        read_folder(str(tmp_path), training=True)
    assert str(tmp_path) in str(caught.value)


def test_a_class_without_images_is_an_error_only_in_training(tmp_path):
    make(tmp_path, "a/1.png", "b/readme.txt")
    with pytest.raises(UserError, match=r"no images in 1 of 2 class folders \(b\)"):
        get_dataset(f"folder:{tmp_path}")
    assert len(get_dataset(f"folder:{tmp_path}", ["a", "b"]).records) == 1
