import json
from pathlib import Path

import pytest

from imgcls.data.shards.pack import pack_dataset
from imgcls.errors import UserError
from imgcls.inference.image_sources import list_images


def names(*sources: object, **arguments) -> list[str]:
    return [record["file_name"] for record in list_images([*map(str, sources)], **arguments)]


@pytest.fixture
def folder(tmp_path, write_folder, monkeypatch) -> Path:
    """images/a.png, images/b/0.png, images/b/c/0.png, and files that are no images."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "images" / "b", {"c": 1, ".hidden": 1})
    for target in ("images/a.png", "images/b/0.png"):
        (tmp_path / target).write_bytes((tmp_path / "images" / "b" / "c" / "0.png").read_bytes())
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return Path("images")


ALL = ["images/a.png", "images/b/0.png", "images/b/c/0.png"]


def test_a_folder_has_its_images_at_any_depth(folder):
    assert names(folder) == names(f"{folder}/") == ALL
    assert names(folder.absolute()) == [str(Path(name).absolute()) for name in ALL]
    assert names("images/b") == ALL[1:]


def test_files_globs_and_standard_input(folder):
    assert names("images/b/0.png", "images/a.png") == ["images/b/0.png", "images/a.png"]
    assert names("images/*.png") == ["images/a.png"]
    assert names("images/**") == names("images/**/*") == ALL
    assert names("images/b*") == ALL[1:]
    assert names("-", lines=["images/a.png\n", "\n", "no such.jpg\r\n"]) == ["images/a.png", "no such.jpg"]
    assert names("-", "images/a.png", lines=["x y.png"]) == ["x y.png", "images/a.png"]


def test_a_name_with_magic_characters_is_a_file_where_there_is_one(folder):
    special = folder / "a[1].png"
    special.write_bytes((folder / "a.png").read_bytes())
    assert names(special) == ["images/a[1].png"]


def test_dataset_names_with_shards_between_other_sources(tmp_path, write_folder):
    root = write_folder(tmp_path / "set", {"blue": 2, "red": 3})
    pack_dataset(f"folder:{root}", str(tmp_path / "packed"), processes=1)
    plain = names(f"folder:{root}")
    assert len(plain) == 5 and all(Path(name).is_file() for name in plain)
    records = list_images([str(root / "red" / "0.png"), f"shards:{tmp_path / 'packed'}", f"folder:{root}"])
    assert len(records) == 11 and [r["file_name"] for r in records][6:] == plain
    assert sum("shard_slice" in record for record in records) == 5
    assert "label" not in records[0] and "label" not in records[6]


def test_a_list_of_detections_is_read(folder):
    Path("boxes.json").write_text(json.dumps([{"file_name": "images/a.png", "bbox": [1, 2, 3, 4], "score": 0.5}]))
    (record,) = list_images(["boxes.json"])
    assert (record["file_name"], record["box"], record["score"]) == ("images/a.png", [1, 2, 3, 4], 0.5)
    with pytest.raises(UserError, match=r"boxes\.json: there is no image in it"):
        list_images(["boxes.json"], min_score=0.6)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("images/c.png", r"images/c\.png: no such file, folder or dataset; did you mean images/a\.png\? a source is"),
        ("images/*.jpg", r"images/\*\.jpg: there is no image in it"),
        ("empty", "empty: there is no image in it"),
        ("-", "-: there is no image in it"),
        ("digits_tset", "no such file, folder or dataset; did you mean digits_test"),
        ("folder:nothing", "nothing: no such folder"),
        ("ftp:x", "ftp:x: no such file, folder or dataset"),
        ("folder:", "the path is missing"),
    ],
)
def test_a_source_that_matches_nothing_is_refused(folder, source, message):
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message):
        list_images(["images/a.png", source])


def test_no_source_is_refused():
    with pytest.raises(UserError, match="there is no source"):
        list_images([])
