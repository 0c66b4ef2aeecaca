import json

import pytest

from imgcls.report.transfer import read_scores, table_rows


def write_run(folder, *results):
    folder.mkdir(parents=True)
    lines = [json.dumps({"iteration": 1, "total_loss": 2.0})]
    lines += [json.dumps({"iteration": 2, "bbox/AP": ap, "bbox/AP50": ap50}) for ap, ap50 in results]
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
    (tmp_path / "random-1" / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"metrics\.json is not there"):
        read_scores(tmp_path)
