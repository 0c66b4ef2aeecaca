"""Scores of the experiment, their table, and the image of both arms."""

import numpy as np
import pytest
from PIL import Image
from transfer.results import draw_arms, read_scores, table_rows


def test_the_last_result_of_each_seed_is_read_and_averaged(tmp_path, write_run):
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


def test_one_seed_has_no_spread(tmp_path, write_run):
    write_run(tmp_path / "handoff-1", (30.0, 50.0))
    write_run(tmp_path / "random-1", (10.0, 20.0))
    assert table_rows(read_scores(tmp_path))[2] == "| handed-over backbone | 30.0 | 50.0 | 30.0 |"


def test_a_detector_that_found_nothing_has_a_precision_of_0(tmp_path, write_run):
    write_run(tmp_path / "handoff-1", (30.0, 50.0))
    write_run(tmp_path / "random-1", (float("nan"), float("nan")))
    assert read_scores(tmp_path)["random"] == {"AP": [0.0], "AP50": [0.0]}


def test_different_seeds_and_runs_without_a_result_are_refused(tmp_path, write_run):
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


def test_folders_without_a_seed_are_ignored(tmp_path, write_run):
    for arm in ("handoff", "random"):
        for seed, ap in ((10, 1.0), (9, 2.0)):
            write_run(tmp_path / f"{arm}-{seed}", (ap, ap))
    write_run(tmp_path / "handoff-old", (3.0, 3.0))
    assert read_scores(tmp_path)["handoff"]["AP"] == [2.0, 1.0]


def test_the_image_shows_what_the_first_seed_of_each_arm_found(experiment, has_colour, tmp_path):
    """The hand-off above, random weights below."""
    experiment(10, "handoff", ([30, 40, 9, 9], 0.9))
    experiment(9, "handoff", ([9, 9, 30, 29], 0.9))
    experiment(9, "random", ([30, 40, 9, 9], 0.9))
    path = draw_arms(tmp_path / "out", tmp_path / "detections.png")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    above, below = np.split(pixels[: len(pixels) // 2 * 2], 2)
    assert [has_colour(above, colour) for colour in ("lime", "red")] == [True, False]
    assert [has_colour(below, colour) for colour in ("lime", "red")] == [False, True]
