"""Detections on an image: which are right, in which colours they are drawn, and which labels are left."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from transfer.detections import draw_image, drop_covered_labels, find_right

from imgcls.report.figure import GREEN, GREY, RED, new_figure


def detection(box, label, score):
    return {"bbox": box, "category_id": label + 1, "score": score}


def truth(box, label):
    return {"bbox": box, "category_id": label}


@pytest.fixture
def record(tmp_path):
    Image.new("RGB", (160, 160)).save(tmp_path / "black.png")
    return {"file_name": str(tmp_path / "black.png"), "annotations": [truth([40, 60, 40, 40], 1)]}


@pytest.fixture
def draw(record):
    def draw_on_axes(*found):
        figure = new_figure(3, 3)
        draw_image(figure.subplots(), record, list(found), ["coat", "bag"])
        drop_covered_labels(figure)
        return figure.axes[0]

    return draw_on_axes


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ([detection([0, 0, 10, 10], 1, 0.9)], [True]),
        ([detection([0, 0, 10, 10], 0, 0.9)], [False]),  # the other class
        ([detection([0, 0, 10, 5], 1, 0.9)], [True]),  # an IoU of 0.5
        ([detection([0, 0, 10, 4.95], 1, 0.9)], [False]),  # and below
        ([detection([0, 0, 9, 10], 1, 0.9), detection([0, 0, 10, 10], 1, 0.8)], [True, False]),  # found twice
        ([detection([50, 0, 10, 10], 1, 0.9), detection([0, 0, 10, 10], 1, 0.8)], [False, True]),
        ([], []),
    ],
)
def test_right_is_the_class_and_the_place_once(found, right):
    assert find_right(found, [truth([0, 0, 10, 10], 1)]) == right
    assert find_right(found, []) == [False] * len(found)


@pytest.mark.parametrize("seed", range(5))
def test_right_is_what_coco_counts_as_right(seed):
    """Against pycocotools' own matching, where boxes overlap so much that one could take several."""
    random = np.random.RandomState(seed)
    truths = [truth([x, 20, 30, 30], x % 2) for x in random.randint(0, 20, 6).tolist()]
    places = enumerate(random.randint(0, 20, 10).tolist())
    found = [detection([x, 20, 30, 30], x % 2, 1 - 0.01 * rank) for rank, x in places]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"id": i, "image_id": 1, "iscrowd": 0, "area": 900, "bbox": t["bbox"], "category_id": t["category_id"] + 1}
            for i, t in enumerate(truths, 1)
        ],
        "info": {},
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes([{"image_id": 1, **box} for box in found]), "bbox")
    evaluation.evaluate()
    whole = [part for part in evaluation.evalImgs if part and part["aRng"] == evaluation.params.areaRng[0]]
    # loadRes numbers the detections in their order; row 0 is the IoU of 0.5.
    matches = [pair for part in whole for pair in zip(part["dtIds"], part["dtMatches"][0], strict=True)]
    assert find_right(found, truths) == [bool(match) for _, match in sorted(matches)]
    assert 0 < sum(bool(match) for _, match in matches) < len(found)


def test_true_boxes_are_grey_right_ones_green_and_wrong_ones_red(draw):
    axes = draw(detection([40, 61, 40, 40], 1, 0.6), detection([100, 110, 30, 30], 1, 0.8))
    drawn = {patch.get_bbox().bounds: to_hex(patch.get_edgecolor()) for patch in axes.patches}
    assert drawn == {(40, 60, 40, 40): GREY, (40, 61, 40, 40): GREEN, (100, 110, 30, 30): RED}
    labels = {text.get_text(): to_hex(text.get_bbox_patch().get_facecolor()) for text in axes.texts}
    assert labels == {"bag 60 %": GREEN, "bag 80 %": RED}


def test_no_label_covers_another_and_the_surest_stays(draw):
    axes = draw(
        detection([40, 66, 40, 40], 0, 0.4), detection([40, 60, 40, 40], 1, 0.9), detection([40, 72, 40, 40], 0, 0.3)
    )
    # The third one's would cover the second one's, which is not there.
    assert [text.get_text() for text in axes.texts] == ["bag 90 %", "coat 30 %"]
    assert len(axes.patches) == 4  # all boxes are drawn


@pytest.mark.parametrize("left", [0, 60, 120])
@pytest.mark.parametrize("top", [0, 60, 120])
def test_labels_are_on_the_image_and_beside_their_box(draw, left, top):
    axes = draw(detection([left, top, 40, 40], 0, 1.0))
    axes.figure.draw_without_rendering()
    place = axes.texts[0].get_bbox_patch().get_window_extent()
    box = axes.patches[1].get_window_extent()
    image = axes.get_window_extent()
    slack = 4  # pixels: the rim of the label
    assert image.x0 - slack <= place.x0 and place.x1 <= image.x1 + slack
    assert image.y0 - slack <= place.y0 and place.y1 <= image.y1 + slack
    assert place.y0 >= box.y1 - slack or place.y1 <= box.y0 + slack
    assert box.x0 - slack <= place.x0 <= box.x1 or box.x0 <= place.x1 <= box.x1 + slack
