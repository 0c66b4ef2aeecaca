"""`imgcls report` on the files of the real evaluators."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator
from imgcls.report import write_report


def finish_run(output_dir: Path, multi_label: bool, inference: str = "inference") -> None:
    """An OUTPUT_DIR as 12 test images of 3 classes leave it."""
    output_dir.mkdir(parents=True)
    names = [str(output_dir / f"{i}.png") for i in range(12)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(name)
    probs = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    labels = (probs > 0.4).float() if multi_label else probs.argmax(dim=1)
    labels[0] = labels[1]
    evaluator = (MultiLabelEvaluator if multi_label else ImageNetEvaluator)(
        ["a", "b", "c"], output_dir=str(output_dir / inference)
    )
    top = probs.topk(3)
    outputs = [{"scores": s, "pred_classes": c, "probs": p} for s, c, p in zip(*top, probs, strict=True)]
    inputs = {"image": torch.zeros(12, 1, 2, 2), "label": labels, "image_id": list(range(12)), "file_name": names}
    evaluator.process(inputs, outputs)
    (task, metrics), *_ = evaluator.evaluate().items()
    lines = [{"iteration": 19, "total_loss": 1.0}, {"iteration": 19, **{f"{task}/{k}": v for k, v in metrics.items()}}]
    (output_dir / "metrics.json").write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture
def run(run_verb):
    return partial(run_verb, "report")


def test_command_prints_table_and_path(tmp_path, run):
    output_dir = tmp_path / "my run"
    finish_run(output_dir, multi_label=False, inference="inference/first_set")
    code, out, _ = run(str(output_dir))
    assert code == 0
    source, *table, empty, page = out.splitlines()
    assert source == f"results of {output_dir}/inference/first_set"
    assert [line.split()[0] for line in table] == ["top-1", "balanced", "precision", "recall", "F1", "on"]
    assert table[0].endswith("91.67 %") and table[-1] == "on 12 test images" and empty == ""
    assert page == f"{output_dir}/report/index.html" and "91.67 %" in Path(page).read_text()
    code, out, _ = run(str(output_dir), "--output", str(tmp_path / "else where"))
    assert out.splitlines()[-1] == f"{tmp_path}/else where/index.html"


def test_several_runs_are_compared(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        finish_run(tmp_path / name, multi_label=False)
    assert run("one", "two") == (0, "report_comparison/index.html\n", "")
    code, _, err = run("one", "./one")
    assert code == 2 and err == "error: a comparison needs two or more different runs; give each OUTPUT_DIR once\n"


def test_command_says_what_is_missing_in_one_line(tmp_path, run):
    gone = str(tmp_path / "gone")
    assert run(gone) == (2, "", f"error: {gone}: no such folder; give the OUTPUT_DIR of a training run\n")


@pytest.mark.parametrize("missing", ["metrics.json", "inference/predictions.csv", "inference/confusion_matrix.csv"])
def test_each_missing_file_is_named(missing, tmp_path):
    finish_run(tmp_path / "run", multi_label=False)
    (tmp_path / "run" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        write_report(tmp_path / "run")


def test_report_folder_that_cannot_be_written_is_named(tmp_path):
    finish_run(tmp_path / "run", multi_label=False)
    (tmp_path / "run" / "report").write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=r"report/index.html: cannot be written"):
        write_report(tmp_path / "run")
