import json

import numpy as np
import pytest

from imgcls.data.image import BadImageError
from imgcls.errors import UserError
from imgcls.inference.detections import crop_box, read_detections

PIXELS = np.arange(20 * 30 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 30, 3)


@pytest.mark.parametrize(
    ("box", "margin", "rows", "columns"),
    [
        ([5, 4, 10, 6], 0.0, (4, 10), (5, 15)),
        ([5, 4, 10, 6], 0.2, (2, 12), (3, 17)),  # 0.2 of the longer side, 10
        ([5.5, 4.5, 10, 6], 0.0, (4, 11), (5, 16)),  # whole pixels around the box
        ([-3, -2, 10, 6], 0.1, (0, 5), (0, 8)),
        ([25, 15, 10, 10], 0.5, (10, 20), (20, 30)),
        ([29.9, 19.9, 9, 9], 0.0, (19, 20), (29, 30)),
    ],
)
def test_a_box_is_cut_out_with_its_margin(box, margin, rows, columns):
    expected = PIXELS[slice(*rows), slice(*columns)]
    assert np.array_equal(crop_box(PIXELS, box, margin, "x"), expected)


@pytest.mark.parametrize("box", [[30, 0, 5, 5], [0, 20, 5, 5], [-5, 0, 5, 5], [0, -9, 5, 5]])
def test_a_box_outside_the_image_is_refused_even_with_a_margin(box):
    with pytest.raises(BadImageError, match=r"x: the box \(.*\) is outside the image of 30 x 20 pixels"):
        crop_box(PIXELS, box, 0.5, "x")


def write(path, content) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_results_of_detectron2_are_read_with_their_annotations(tmp_path):
    results = write(tmp_path / "results.json", [
        {"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 9, "category_id": 1, "bbox": [5.5, 6, 7, 8], "score": 0.2},
    ])  # fmt: skip
    images = [{"id": 9, "file_name": "sub/nine.jpg"}, {"id": 7, "file_name": "seven.jpg"}]
    annotations = write(tmp_path / "annotations.json", {"images": images, "annotations": [], "categories": []})
    both = read_detections(f"{results}:{annotations}:root")
    assert both == [
        {"file_name": "root/seven.jpg", "box": [1, 2, 3, 4], "category_id": 2, "score": 0.9},
        {"file_name": "root/sub/nine.jpg", "box": [5.5, 6, 7, 8], "category_id": 1, "score": 0.2},
    ]
    assert read_detections(f"{results}:{annotations}:root", min_score=0.5) == both[:1]
    with pytest.raises(UserError, match="detection 1 has no file_name but the image_id 7, which is no path; give"):
        read_detections(results)
    images.pop()
    write(tmp_path / "annotations.json", {"images": images})
    with pytest.raises(UserError, match="the image_id 7, which the annotations lack"):
        read_detections(f"{results}:{annotations}:root")


def test_names_are_relative_to_the_file(tmp_path):
    box = [0, 0, 1, 1]
    path = write(tmp_path / "d.json", [{"file_name": "a.jpg", "bbox": box}, {"file_name": "/b.jpg", "bbox": box}])
    assert [record["file_name"] for record in read_detections(path)] == [str(tmp_path / "a.jpg"), "/b.jpg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "has no list of detections; for a dataset of imgcls give json:"),
        ([{"file_name": "a.jpg", "label": 3}], 'detection 1 has no "bbox"; for a dataset of imgcls give json:'),
        ([7], 'detection 1 has no "bbox"'),
        ([{"file_name": "a.jpg", "bbox": [1, 2, 3]}], r"detection 1: bbox \[1, 2, 3\], score 1.0; expected"),
        ([{"file_name": "a.jpg", "bbox": [1, 2, 0, 3]}], "expected .* with a size above 0"),
        ([{"file_name": "a.jpg", "bbox": [1, 2, "3", 3]}], "expected"),
        ([{"file_name": "a.jpg", "bbox": [1, 2, 3, 3], "score": None}], "score None"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_detections(write(tmp_path / "d.json", content))


def test_other_forms_are_refused(tmp_path):
    with pytest.raises(UserError, match="detections:a:b: expected detections:RESULTS"):
        read_detections("a:b")
    results = write(tmp_path / "r.json", [])
    wrong = write(tmp_path / "a.json", [1])
    with pytest.raises(UserError, match=r"a\.json: not COCO annotations"):
        read_detections(f"{results}:{wrong}:root")
