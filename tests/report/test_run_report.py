"""The report of a run: its results, and what is drawn where parts are missing."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from imgcls.errors import UserError
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator
from imgcls.report import write_report
from imgcls.report.run_report import find_results, metrics_table


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


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone: no such folder.*OUTPUT_DIR"):
        find_results(tmp_path / "gone")


def test_run_without_a_test_set_gets_its_curve_and_is_told_what_is_missing(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 19, "total_loss": 1.0}\n')
    (tmp_path / "inference").mkdir()
    report = write_report(tmp_path)
    assert report.figures == [tmp_path / "report" / "curves.png"] and report.figures[0].stat().st_size > 5000
    assert report.source == tmp_path and "no test set was evaluated: set DATASETS.TEST" in report.table


@pytest.mark.parametrize("classes", [["caf\udce9", "b"], ["\u732b;\u72ac", "b"]], ids=["latin-1", "CJK"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_names_of_any_script_or_encoding_are_drawn(multi_label, classes, tmp_path, recwarn):
    """A byte of a latin-1 file name that Python could not decode, and characters that the default font lacks."""
    file_names = [str(tmp_path / "caf\udce9.png"), str(tmp_path / "gone \udce9.png")]
    Image.new("RGB", (8, 8)).save(tmp_path / "caf.png")
    os.rename(tmp_path / "caf.png", file_names[0])
    evaluator = (MultiLabelEvaluator if multi_label else ImageNetEvaluator)(
        classes, output_dir=str(tmp_path / "inference")
    )
    labels = torch.eye(2) if multi_label else torch.arange(2)
    inputs = {"image": torch.zeros(2, 3, 1, 1), "label": labels, "image_id": [0, 1], "file_name": file_names}
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    keys = ("scores", "pred_classes", "probs")
    evaluator.process(inputs, [dict(zip(keys, (*row.sort(descending=True), row), strict=True)) for row in probs])
    evaluator.evaluate()
    (tmp_path / "metrics.json").write_text('{"iteration": 19, "total_loss": 1.0}\n')
    assert len(write_report(tmp_path).figures) == 3
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]


@pytest.mark.parametrize("content", ['{"metrics": {"top', "[]", "{}"])
def test_damaged_json_is_named(content, tmp_path):
    write(tmp_path / "inference", "accuracy.json", {}).write_text(content)
    with pytest.raises(UserError, match=r"accuracy.json: not a result file"):
        find_results(tmp_path)
