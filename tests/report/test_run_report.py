"""The page about a run: its results, hostile names, and what it says where parts are missing."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from imgcls.data.catalog import read_datasets
from imgcls.engine import Trainer, resolve_from_data
from imgcls.errors import UserError
from imgcls.report import write_report
from imgcls.report.run_files import find_results
from imgcls.report.run_report import metrics_table

HOSTILE = '<script>window.hacked=1</script><img src=x onerror="window.hacked=1">'


class Page(HTMLParser):
    """The tags, the visible text, and the numbers of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.metrics: dict[str, str] = {}
        self._metric = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._metric = dict(attrs).get("data-metric", "")

    def handle_data(self, data):
        if self._metric:
            self.metrics[self._metric], self._metric = data, ""
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += data


def write(folder: Path, name: str, metrics: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps({"metrics": metrics, "num_images": 1234, "per_class": []}))
    return path


def test_inference_folder_and_table(tmp_path):
    write(
        tmp_path / "inference", "accuracy.json", {"top1": 98.7654, "balanced": 100.0, "F1_macro": 97.5, "loss": 0.51234}
    )
    write(tmp_path / "inference" / "ema" / "b", "multilabel.json", {"mAP": 97.0, "mAP_micro": None, "exact_match": 9.5})
    first, second = find_results(tmp_path)
    assert (first.folder, first.name, first.task) == (tmp_path / "inference", "", "accuracy")
    assert (second.name, second.task) == ("ema/b", "multilabel")
    assert metrics_table(first).splitlines() == [
        "top-1 accuracy      98.77 %",
        "balanced accuracy  100.00 %",
        "F1 (macro)          97.50 %",
        "loss                 0.5123",
        "on 1,234 test images",
    ]
    assert metrics_table(second).splitlines()[:3] == [
        "mAP          97.00 %",
        "mAP (micro)      - %",
        "exact match   9.50 %",
    ]


def test_later_task_of_a_folder_used_twice(tmp_path):
    old = write(tmp_path / "inference", "accuracy.json", {"top1": 1.0})
    write(tmp_path / "inference", "multilabel.json", {"mAP": 2.0})
    os.utime(old, (1, 1))
    assert find_results(tmp_path)[0].task == "multilabel"
    os.utime(tmp_path / "inference" / "multilabel.json", (0, 0))
    assert find_results(tmp_path)[0].task == "accuracy"


@pytest.mark.parametrize("content", ['{"metrics": {"top', "[]", "{}"])
def test_damaged_json_is_named(content, tmp_path):
    write(tmp_path / "inference", "accuracy.json", {}).write_text(content)
    with pytest.raises(UserError, match=r"accuracy.json: not a result file"):
        find_results(tmp_path)


def test_run_without_a_test_set_gets_its_curve_and_is_told_what_is_missing(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 19, "total_loss": 1.0}\n')
    report = write_report(tmp_path)
    page = Page(report.page)
    assert report.source == tmp_path and "no test set was evaluated: set DATASETS.TEST" in report.table
    assert report.table in page.text and [tag for tag, _ in page.tags].count("polyline") == 1
    assert "config.yaml is missing" in page.text


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("classes", [[HOSTILE, "b", "c"], ["\u732b;\u72ac \U0001f63a", "قطة", "caf\udce9"]])
def test_names_of_any_script_are_text_and_nothing_more(make_run, classes, multi_label, tmp_path):
    make_run(tmp_path / "run", classes, multi_label=multi_label)
    page = Page(write_report(tmp_path / "run").page)
    first = classes[0].replace(";", ",") if multi_label else classes[0]
    assert classes[0] in page.text and first in page.text
    assert [attrs for tag, attrs in page.tags if tag == "script" and attrs.get("type") != "application/json"] == [{}]
    assert not [attrs for _, attrs in page.tags if any(key.startswith("on") for key in attrs)]
    assert all(attrs["src"].startswith("data:image/") for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("dir") == "auto" for tag, attrs in page.tags if tag == "bdi")


def test_numbers_on_the_page_are_those_of_the_files(make_run, tmp_path):
    make_run(tmp_path / "run", ["a", "b", "c"], num_images=40)
    page = Page(write_report(tmp_path / "run").page)
    content = json.loads((tmp_path / "run" / "inference" / "accuracy.json").read_text())
    assert page.metrics["accuracy/top1"] == f"{content['metrics']['top1']:.2f} %"
    for name in ("balanced", "precision_macro", "recall_macro", "F1_macro"):
        assert page.metrics[f"accuracy/{name}"] == f"{content['metrics'][name]:.2f} %"
    assert page.metrics["accuracy/loss"] == f"{content['metrics']['loss']:.4f}"
    assert "training loss" in page.text and "validation loss" in page.text
    cells = [attrs["data-value"] for tag, attrs in page.tags if tag == "td" and "data-value" in attrs]
    for row in content["per_class"]:
        assert all(repr(row[column]) in cells for column in ("images", "accuracy", "precision", "F1"))
    wrong = round(40 * (1 - content["metrics"]["top1"] / 100))
    assert f"{wrong} of 40 test images are wrong" in page.text
    assert "0:00:25 without evaluation" in page.text, "50 iterations of half a second"


def test_nothing_is_loaded_from_elsewhere(make_run, tmp_path):
    make_run(tmp_path / "run", [f"class {i}" for i in range(30)], num_images=60)
    text = write_report(tmp_path / "run").page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", text) and "@import" not in text and "url(" not in text
    assert "<canvas" in text and 'id="set0-matrix"' in text


def test_images_that_are_gone_are_marked(make_run, tmp_path):
    make_run(tmp_path / "run", ["a", "b"])
    (tmp_path / "run" / "images" / "0.png").unlink()
    assert "cannot be read" in Page(write_report(tmp_path / "run").page).text


def test_multi_label_curves_need_probabilities_and_the_page_says_so(make_run, tmp_path):
    make_run(tmp_path / "without", ["a", "b", "c"], multi_label=True, probabilities=False)
    page = Page(write_report(tmp_path / "without").page)
    assert "TEST.SAVE_PROBABILITIES True" in page.text and "select" not in dict(page.tags)
    make_run(tmp_path / "with", ["a", "b", "c"], num_images=30, multi_label=True)
    page = Page(write_report(tmp_path / "with").page)
    assert [tag for tag, _ in page.tags].count("option") == 4
    assert page.metrics["multilabel/mAP"].endswith(" %")


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_probabilities_of_another_evaluation_are_refused(make_run, content, tmp_path):
    folder = make_run(tmp_path / "run", ["a", "b"]) / "inference"
    (folder / "probabilities.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"probabilities\.npy: cannot be read"):
        write_report(tmp_path / "run")
    other = make_run(tmp_path / "other", ["a", "b"], num_images=5) / "inference"
    (other / "probabilities.npy").replace(folder / "probabilities.npy")
    with pytest.raises(UserError, match=r"has the shape \(5, 2\) and not \(12, 2\)"):
        write_report(tmp_path / "run")


@pytest.fixture
def trained(tiny_cfg, tmp_path) -> Path:
    resolve_from_data(tiny_cfg)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "config.yaml").write_text(tiny_cfg.dump())
    (tmp_path / "output" / "log.txt").write_text(
        "[11/24 18:07:44] detectron2 INFO: Environment info:\n-----\n"
        "Python     3.11.7 (main)\nPyTorch    2.9 @/x\n---\n"
        "[11/24 18:08:00] imgcls.x INFO: b.pth: 135/135 backbone tensors loaded\n"
    )
    Trainer(tiny_cfg).train()
    return tmp_path / "output"


def test_a_training_writes_its_page_with_augmented_images_and_versions(trained):
    page = Page(trained / "report" / "index.html")
    assert "12 images" in page.text and "PyTorch" in page.text and "/x" not in page.text
    assert "b.pth: 135/135 backbone tensors loaded" in page.text
    images = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    again = Page(write_report(trained).page)
    assert [attrs["src"] for tag, attrs in again.tags if tag == "img"] == images, "the same images each time"
    assert len(images) >= 12 + 5


def test_training_data_that_is_gone_is_named(trained, tmp_path):
    (tmp_path / "train").rename(tmp_path / "moved")
    text = Page(write_report(trained).page).text
    assert "Not shown:" in text and str(tmp_path / "train") in text


def test_a_report_that_fails_costs_one_line_and_not_the_run(tiny_cfg, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no\npage")

    monkeypatch.setattr("imgcls.report.write_report", fail)
    resolve_from_data(tiny_cfg)
    with caplog.at_level("WARNING"):
        assert Trainer(tiny_cfg).train()["accuracy"]
    assert f"there is no report: no page; imgcls report {tmp_path}/output writes it" in caplog.messages
    assert (tmp_path / "output" / "model_final.pth").exists() and not (tmp_path / "output" / "report").exists()


def test_images_in_shards_and_skipped_rows_are_found(trained, tmp_path):
    from imgcls.report.gallery import PredictedImage, find_record

    records = read_datasets([f"folder:{tmp_path / 'train'}"], [f"folder:{tmp_path / 'test'}"]).test[0].records
    wanted = records[3]
    row = PredictedImage(1, "", wanted["file_name"], [], [], 0, 0)
    assert find_record(row, records, len(records) - 2) == wanted
    assert find_record(row, records, len(records)) == {"file_name": wanted["file_name"]}
