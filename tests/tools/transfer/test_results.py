import json

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from transfer import results as transfer
from transfer.results import draw_detections, read_scores, table_rows

from imgcls.report.figure import GREEN, GREY, RED


def write_run(folder, *results):
    folder.mkdir(parents=True)
    lines = [json.dumps({"iteration": 1, "total_loss": 2.0})]
    lines += [json.dumps({"iteration": i, "bbox/AP": ap, "bbox/AP50": ap50}) for i, (ap, ap50) in enumerate(results, 2)]
    (folder / "metrics.json").write_text("\n".join(lines) + "\n")


def test_the_last_result_of_each_seed_is_read_and_averaged(tmp_path):
    write_run(tmp_path / "handoff-1", (1.0, 2.0), (30.0, 50.0))
    write_run(tmp_path / "handoff-2", (34.0, 60.0))
    write_run(tmp_path / "random-1", (10.0, 20.0))
    write_run(tmp_path / "random-2", (12.0, 20.0))
    scores = read_scores(tmp_path)
    assert scores["handoff"] == {"AP": [30.0, 34.0], "AP50": [50.0, 60.0]}
    rows = table_rows(scores)
    # The sample standard deviation of 30 and 34 is sqrt(8).
    assert rows[2] == "| handed-over backbone | 32.0 ± 2.8 | 55.0 ± 7.1 | 30.0, 34.0 |"
    assert rows[3] == "| random weights | 11.0 ± 1.4 | 20.0 ± 0.0 | 10.0, 12.0 |"


def test_one_seed_has_no_spread(tmp_path):
    write_run(tmp_path / "handoff-1", (30.0, 50.0))
    write_run(tmp_path / "random-1", (10.0, 20.0))
    assert table_rows(read_scores(tmp_path))[2] == "| handed-over backbone | 30.0 | 50.0 | 30.0 |"


def test_a_detector_that_found_nothing_has_no_precision(tmp_path):
    write_run(tmp_path / "handoff-1", (30.0, 50.0))
    write_run(tmp_path / "random-1", (float("nan"), float("nan")))
    assert read_scores(tmp_path)["random"] == {"AP": [0.0], "AP50": [0.0]}


def test_arms_with_other_seeds_and_runs_without_result_are_refused(tmp_path):
    write_run(tmp_path / "handoff-1", (30.0, 50.0))
    with pytest.raises(ValueError, match=r"handoff-\[1\] and random-\[\].*transfer_experiment\.sh"):
        read_scores(tmp_path)
    write_run(tmp_path / "random-1")
    with pytest.raises(ValueError, match=r"random-1/metrics\.json: has no result"):
        read_scores(tmp_path)
    (tmp_path / "random-1" / "metrics.json").unlink()  # killed before its first line
    with pytest.raises(ValueError, match=r"handoff-\[1\] and random-\[\]"):
        read_scores(tmp_path)
    with pytest.raises(ValueError, match=r"gone has runs handoff-\[\] and random-\[\]"):
        read_scores(tmp_path / "gone")


def test_seeds_are_numbers_and_other_folders_no_runs(tmp_path):
    for arm in ("handoff", "random"):
        for seed, ap in ((10, 1.0), (9, 2.0)):
            write_run(tmp_path / f"{arm}-{seed}", (ap, ap))
    write_run(tmp_path / "handoff-old", (3.0, 3.0))
    assert read_scores(tmp_path)["handoff"]["AP"] == [2.0, 1.0]


@pytest.fixture
def experiment(tmp_path):
    """One black canvas with a box; ``experiment(seed, arm, (box, score), ...)`` writes what a run found on it."""
    canvas = tmp_path / "datasets" / "canvas"
    (canvas / "test").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(canvas / "test" / "1.png")
    content = {
        "info": {},
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 9, 30, 30], "area": 900, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "bag"}],
    }
    (canvas / "test.json").write_text(json.dumps(content))

    def found(seed, arm, *boxes):
        run = tmp_path / "out" / f"{arm}-{seed}"
        write_run(run, (30.0, 50.0))
        (run / "inference").mkdir()
        results = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for box, score in boxes]
        (run / "inference" / "coco_instances_results.json").write_text(json.dumps(results))

    return found


def has(pixels, colour):
    return (np.abs(pixels - np.multiply(to_rgb(colour), 255)).max(2) < 2).any()


def test_image_shows_what_the_first_seed_of_each_arm_found(experiment, tmp_path):
    """The hand-off above, random weights below; of detections only those that are sure."""
    experiment(10, "handoff", ([30, 40, 9, 9], 0.9))
    experiment(9, "handoff", ([9, 9, 30, 29], 0.9), ([1, 50, 9, 9], 0.1))
    experiment(9, "random", ([30, 40, 9, 9], 0.9))
    path = draw_detections(tmp_path / "out", tmp_path / "detections.png")
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=float)
    above, below = np.split(pixels[: len(pixels) // 2 * 2], 2)
    assert [has(above, colour) for colour in (GREY, GREEN, RED)] == [True, True, False]
    assert [has(below, colour) for colour in (GREY, GREEN, RED)] == [True, False, True]


def test_labels_that_would_cover_others_are_left_out(experiment, tmp_path, monkeypatch):
    for arm in ("handoff", "random"):
        experiment(1, arm, ([9, 9, 30, 30], 0.5), ([9, 10, 30, 30], 0.9))
    figures = []
    monkeypatch.setattr(transfer, "save", lambda figure, path: figures.append(figure))
    draw_detections(tmp_path / "out", tmp_path / "detections.png")
    texts = [text.get_text() for axes in figures[0].axes for text in axes.texts]
    assert texts == ["bag 90 %", "bag 90 %"]


def test_a_run_without_detections_is_refused(experiment, tmp_path):
    for arm in ("handoff", "random"):
        experiment(1, arm)
    (tmp_path / "out" / "random-1" / "inference" / "coco_instances_results.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"coco_instances_results\.json is not there; run scripts/transfer_exp"):
        draw_detections(tmp_path / "out", tmp_path / "detections.png")
