import json
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from transfer import make
from transfer.make import make_detection_set

from imgcls.data.catalog import get_dataset
from imgcls.errors import UserError

SMALL = {"items": "digits", "train": 6, "test": 3, "size": 96}
SPLITS = {"train": 6, "test": 3}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("synthetic tests")


@pytest.fixture(autouse=True)
def root(shared, monkeypatch):
    """One folder for all tests of this file: the digits are written once."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared))


@pytest.fixture
def small_set(shared):
    """The small set; no test changes it."""
    make_detection_set(shared / "small", **SMALL)
    return shared / "small"


@pytest.fixture
def flat(tmp_path, monkeypatch):
    """``flat(255)``: a set on photographs of one colour; the random numbers do not depend on the colour."""

    def write(colour):
        photographs = {split: [tmp_path / f"{colour}.png"] for split in SPLITS}
        Image.new("RGB", (200, 150), (colour,) * 3).save(photographs["train"][0])
        monkeypatch.setattr(make, "find_photographs", lambda: photographs)
        make_detection_set(tmp_path / str(colour), "digits", train=16, test=4, size=96)
        return tmp_path / str(colour)

    return write


def content(folder, split):
    return json.loads((folder / f"{split}.json").read_text())


def pixels(folder, split, image):
    return np.asarray(Image.open(folder / split / image["file_name"]))


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_coco_files(small_set):
    for split, count in SPLITS.items():
        coco = COCO(str(small_set / f"{split}.json"))
        assert coco.getImgIds() == list(range(1, count + 1))
        assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [(i + 1, str(i)) for i in range(10)]
        assert coco.getAnnIds() == list(range(1, len(coco.anns) + 1))
        assert {annotation["image_id"] for annotation in coco.anns.values()} == set(coco.imgs)
        for annotation in coco.anns.values():
            _, _, width, height = annotation["bbox"]
            assert (annotation["area"], annotation["iscrowd"]) == (width * height, 0)
        for image in coco.imgs.values():
            assert (image["width"], image["height"]) == (96, 96)
            assert pixels(small_set, split, image).shape == (96, 96, 3)
        assert len(os.listdir(small_set / split)) == count


def test_boxes_are_exact(flat):
    """Every pixel of an item is visible on white or on black."""
    white, black = flat(255), flat(0)
    alone = 0
    for split in SPLITS:
        coco = content(white, split)
        assert coco["annotations"] == content(black, split)["annotations"]
        for image in coco["images"]:
            seen = (pixels(white, split, image) != 255).any(2) | (pixels(black, split, image) != 0).any(2)
            boxes = [a["bbox"] for a in coco["annotations"] if a["image_id"] == image["id"]]
            for x, y, w, h in boxes:
                part = seen[y : y + h, x : x + w]
                assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
            if len(boxes) == 1:
                rows, columns = np.nonzero(seen)
                assert (x, y) == (columns.min(), rows.min())
                assert (x + w, y + h) == (columns.max() + 1, rows.max() + 1)
                alone += 1
            for x, y, w, h in boxes:
                seen[y : y + h, x : x + w] = False
            assert not seen.any()
    assert alone >= 3


def test_annotations_name_the_item_that_is_pasted(flat):
    black = flat(0)
    coco = content(black, "train")
    items = {record["image_id"]: record for record in get_dataset("digits_train").records}
    images = {image["id"]: pixels(black, "train", image) for image in coco["images"]}
    shares = []
    for annotation in coco["annotations"]:
        item = items[annotation["item"]]
        assert annotation["category_id"] == item["label"] + 1
        x, y, w, h = annotation["bbox"]
        shown = images[annotation["image_id"]][y : y + h, x : x + w, 0]
        original = np.asarray(Image.open(item["file_name"]))
        rows, columns = np.nonzero(original > 16)
        trimmed = original[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        resized = np.asarray(Image.fromarray(trimmed).resize((w, h), Image.Resampling.BILINEAR))
        assert np.corrcoef(shown.ravel(), resized.ravel())[0, 1] > 0.8
        shares.append(shown.max() / original.max())
    assert 0.4 < min(shares) < 0.65 and 0.85 < max(shares) <= 1


def test_splits_share_no_item_and_no_background(small_set):
    backgrounds = {}
    for split in SPLITS:
        coco = content(small_set, split)
        known = {record["image_id"] for record in get_dataset(f"digits_{split}").records}
        assert {annotation["item"] for annotation in coco["annotations"]} <= known
        backgrounds[split] = {image["background"] for image in coco["images"]}
    assert not backgrounds["train"] & backgrounds["test"]
    note = json.loads((small_set / "synthetic.json").read_text())
    assert all(backgrounds[split] <= set(note["backgrounds"][split]) for split in SPLITS)


def test_images_differ_and_show_the_photograph(small_set):
    images = [pixels(small_set, split, image) for split in SPLITS for image in content(small_set, split)["images"]]
    assert len({image.tobytes() for image in images}) == 9
    assert all(len(np.unique(image.reshape(-1, 3), axis=0)) > 40 for image in images)


def test_the_same_arguments_give_the_same_bytes(small_set, tmp_path):
    assert make_detection_set(tmp_path / "again", **SMALL)
    assert files(tmp_path / "again") == files(small_set)
    make_detection_set(tmp_path / "other", **SMALL, seed=1)
    assert files(tmp_path / "other")["train/00001.png"] != files(small_set)["train/00001.png"]


def test_the_first_images_do_not_depend_on_their_number(small_set, tmp_path):
    make_detection_set(tmp_path / "more", **{**SMALL, "train": 8})
    more, few = files(tmp_path / "more"), files(small_set)
    assert all(more[name] == few[name] for name in few if name.endswith(".png"))


def test_the_same_set_is_not_written_again(small_set):
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    assert make_detection_set(small_set, **SMALL) is False
    assert {path: path.stat().st_mtime_ns for path in small_set.rglob("*")} == before


def test_another_set_is_not_overwritten(small_set):
    before = files(small_set)
    with pytest.raises(
        UserError, match=r"small holds another set \(size is 96, not 128; seed is 0, not 5\); remove it, or"
    ):
        make_detection_set(small_set, **{**SMALL, "size": 128}, seed=5)
    assert files(small_set) == before


def test_other_files_are_not_overwritten(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match=r"is not empty and has no synthetic\.json; name a new or empty folder"):
        make_detection_set(tmp_path, **SMALL)
    with pytest.raises(UserError, match="mine is a file; name a new or empty folder"):
        make_detection_set(tmp_path / "mine", **SMALL)
    assert os.listdir(tmp_path) == ["mine"]


def test_an_empty_folder_is_used(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert make_detection_set(make.Path("empty"), **SMALL)
    assert sorted(os.listdir("empty")) == ["synthetic.json", "test", "test.json", "train", "train.json"]
    assert os.listdir(tmp_path) == ["empty"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out: cannot be written .*name a folder that you can write"):
        make_detection_set(tmp_path / "file" / "out", **SMALL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"items": "cifar"}, "items are 'cifar'; allowed: fashion_mnist, digits"),
        ({"train": 0}, "train is 0; allowed: 1 or more"),
        ({"test": -1}, "test is -1; allowed: 1 or more"),
        ({"size": 63}, "size is 63; allowed: 64 or more"),
        ({"seed": -1}, "seed is -1; allowed: 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296; allowed: 0 to 4294967295"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, wrong, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        make_detection_set(tmp_path / "out", **{**SMALL, **wrong})
    assert not (tmp_path / "out").exists()
