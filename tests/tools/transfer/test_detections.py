"""Detections on an image: which of them are right, and in which colours they are drawn."""

import pytest
from transfer.detections import draw_detections, read_detections, read_test_set

TRUE = [9, 9, 30, 30]


@pytest.mark.parametrize(
    ("boxes", "right"),
    [
        ([(TRUE, 0.9)], [True]),
        ([([9, 9, 30, 15], 0.9)], [True]),  # an IoU of 0.5
        ([([9, 9, 30, 14.9], 0.9)], [False]),
        ([([9, 9, 27, 30], 0.9), (TRUE, 0.8)], [True, False]),  # found twice
        ([(TRUE, 0.8), ([50, 9, 10, 10], 0.9)], [False, True]),  # best first
        ([(TRUE, 0.29), ([9, 10, 30, 30], 0.31)], [True]),  # the score is too low
        ([], []),
    ],
)
def test_a_true_box_is_found_once_at_an_iou_of_one_half(experiment, boxes, right):
    found = read_detections(experiment(1, "handoff", *boxes))
    assert [box["right"] for box in found.get(1, [])] == right


def test_another_class_is_wrong(experiment):
    (box,) = read_detections(experiment(1, "handoff", (TRUE, 0.9), label=1))[1]
    assert not box["right"] and box["score"] == 0.9


def test_true_boxes_are_white_right_ones_green_and_wrong_ones_red(experiment, has_colour):
    run = experiment(1, "handoff", ([9, 12, 30, 30], 0.6), ([45, 45, 15, 15], 0.8))
    (record,), names = read_test_set()
    pixels = draw_detections(record, read_detections(run)[1], names)
    assert pixels.shape == (128, 128, 3)
    right, wrong = pixels[:88, :88], pixels[88:, 88:]
    assert [has_colour(right, colour) for colour in ("white", "lime", "red")] == [True, True, False]
    assert [has_colour(wrong, colour) for colour in ("lime", "red")] == [False, True]
    nothing = draw_detections(record, [], names)
    assert [has_colour(nothing, colour) for colour in ("white", "lime", "red")] == [True, False, False]


def test_labels_are_class_and_score(experiment, monkeypatch):
    texts = []
    monkeypatch.setattr("transfer.detections.Visualizer.draw_text", lambda self, text, *_, **__: texts.append(text))
    run = experiment(1, "handoff", (TRUE, 0.6))
    (record,), names = read_test_set()
    draw_detections(record, read_detections(run)[1], names)
    assert texts == ["bag 60%"]


def test_missing_results_are_refused(experiment):
    run = experiment(1, "handoff")
    (run / "inference" / "coco_instances_results.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"coco_instances_results\.json: no such file; run scripts/transfer_exp"
    ):
        read_detections(run)
