import json
import os

import pytest

from imgcls.data.catalog import get_dataset
from imgcls.data.readers.coco import read_coco
from imgcls.errors import UserError, UserFileNotFoundError

CONTENT = {
    "images": [
        {"id": 5, "file_name": "x/ä.jpg", "height": 3, "width": 4, "license": 1},
        {"id": 2, "file_name": "b.jpg"},
        {"id": 9, "file_name": "c.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 90, "iscrowd": 1},
        {"id": 2, "image_id": 5, "category_id": 1, "iscrowd": 0},
        {"id": 3, "image_id": 5, "category_id": 1, "iscrowd": 0},
        {"id": 4, "image_id": 9, "category_id": 3, "iscrowd": 0},
    ],
    "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
}


@pytest.fixture
def write_annotations(tmp_path):
    root = tmp_path / "images with space"
    root.mkdir()
    path = tmp_path / "a:b.json"

    def write(content):
        path.write_text(json.dumps(content))
        return f"{path}:{root}"

    return write


def test_labels_are_the_categories_of_the_instances(write_annotations, tmp_path):
    raw = read_coco(write_annotations(CONTENT))
    assert raw.classes == ["person", "car", "brush"]  # by id: 1, 3, 90
    assert (raw.named, raw.multi_label, raw.source) == (True, True, str(tmp_path / "a:b.json"))
    assert raw.records == [
        {
            "file_name": os.path.join(tmp_path, "images with space", "x/ä.jpg"),
            "image_id": 5,
            "height": 3,
            "width": 4,
            "labels": [0, 2],
        },
        {"file_name": os.path.join(tmp_path, "images with space", "b.jpg"), "image_id": 2, "labels": []},
        {"file_name": os.path.join(tmp_path, "images with space", "c.jpg"), "image_id": 9, "labels": [1]},
    ]


def test_another_order_of_categories_is_mapped_by_name(write_annotations):
    dataset = get_dataset(f"coco:{write_annotations(CONTENT)}", ["brush", "boat", "car", "person"])
    assert [record["labels"] for record in dataset.records] == [[3, 0], [], [2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"image_id": 5, "category_id": 4}]}, "annotation 1: unknown category_id 4"),
        ({"annotations": [{"image_id": 6, "category_id": 1}]}, "annotation 1: unknown image_id 6"),
        ({"annotations": None}, "expected COCO annotations with the lists .*got: images, annotations, categories"),
        ({"images": [{"id": 1}], "annotations": []}, "not COCO instance annotations .*file_name"),
        ({"images": ["a"]}, "not COCO instance annotations"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "each category needs an id of its own and a name",
        ),
    ],
)
def test_not_coco_annotations(write_annotations, change, message):
    with pytest.raises(UserError, match=rf"b\.json: {message}"):
        read_coco(write_annotations({**CONTENT, **change}))


def test_a_list_of_records_is_refused(write_annotations):
    with pytest.raises(UserError, match="got: list"):
        read_coco(write_annotations([]))


def test_missing_paths_are_named(write_annotations, tmp_path):
    write_annotations(CONTENT)
    with pytest.raises(UserError, match=r"expected coco:ANNOTATIONS\.json:IMAGE_ROOT"):
        read_coco("annotations.json")
    with pytest.raises(UserFileNotFoundError, match=r"c\.json: no such annotation file"):
        read_coco(f"{tmp_path}/c.json:{tmp_path}")
    with pytest.raises(UserFileNotFoundError, match="nowhere: no such folder"):
        read_coco(f"{tmp_path}/a:b.json:{tmp_path}/nowhere")
