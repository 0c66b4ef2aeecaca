"""Finding and reading what an evaluation left."""

import json
import os
from pathlib import Path

import pytest

from imgcls.errors import UserError
from imgcls.report.results import find_results, metrics_table, read_csv


def write(folder: Path, name: str, metrics: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps({"metrics": metrics, "num_images": 1234, "per_class": []}))
    return path


def test_inference_folder_and_table(tmp_path):
    write(tmp_path / "inference", "accuracy.json", {"top1": 98.7654, "top5": 100.0})
    write(tmp_path / "inference" / "other", "accuracy.json", {"top1": 1.0})
    results = find_results(tmp_path)
    assert (results.folder, results.task) == (tmp_path / "inference", "accuracy")
    assert metrics_table(results).splitlines() == [
        "top-1 accuracy   98.77 %",
        "top-5 accuracy  100.00 %",
        "on 1,234 test images",
    ]


def test_first_sub_folder_with_results(tmp_path):
    (tmp_path / "inference" / "a").mkdir(parents=True)
    write(tmp_path / "inference" / "c", "accuracy.json", {"top1": 1.0})
    write(tmp_path / "inference" / "b", "multilabel.json", {"mAP": 97.0, "mAP_micro": None, "exact_match": 9.5})
    results = find_results(tmp_path)
    assert (results.folder, results.task) == (tmp_path / "inference" / "b", "multilabel")
    lines = metrics_table(results).splitlines()
    assert lines[:3] == ["mAP          97.00 %", "mAP (micro)      - %", "exact match   9.50 %"]


def test_later_task_of_a_folder_used_twice(tmp_path):
    old = write(tmp_path / "inference", "accuracy.json", {"top1": 1.0})
    write(tmp_path / "inference", "multilabel.json", {"mAP": 2.0})
    os.utime(old, (1, 1))
    assert find_results(tmp_path).task == "multilabel"
    os.utime(tmp_path / "inference" / "multilabel.json", (0, 0))
    assert find_results(tmp_path).task == "accuracy"


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone: no such folder.*OUTPUT_DIR"):
        find_results(tmp_path / "gone")
    with pytest.raises(UserError, match=r"inference: no accuracy.json or multilabel.json.*--eval-only"):
        find_results(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"x.csv: no such file.*--eval-only"):
        read_csv(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("a,b\n")
    with pytest.raises(UserError, match=r"x.csv: no rows"):
        read_csv(tmp_path / "x.csv")


@pytest.mark.parametrize("content", ['{"metrics": {"top', "[]", "{}"])
def test_damaged_json_is_named(content, tmp_path):
    write(tmp_path / "inference", "accuracy.json", {}).write_text(content)
    with pytest.raises(UserError, match=r"accuracy.json: not a result file"):
        find_results(tmp_path)
