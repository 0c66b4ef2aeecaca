"""MultiLabelEvaluator on one process."""

import csv
import json

import numpy as np
import pytest
import torch
from detectron2.evaluation import print_csv_format
from sklearn.metrics import average_precision_score, f1_score, log_loss

from imgcls.errors import UserError
from imgcls.evaluation import MultiLabelEvaluator

CLASSES = ["cat", "dog", "bird", "fish"]


def make(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(n, 4, generator=generator) < 0.4).float()
    labels[:, 2] = 0
    labels[0] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    labels[1] = 0
    probs = (torch.rand(n, 4, generator=generator) + 0.4 * labels) / 1.4
    probs[1] = torch.tensor([0.1, 0.9, 0.7, 0.2])
    return probs, labels


def make_losses(probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy(probs, labels, reduction="none").mean(dim=1)


def make_outputs(probs: torch.Tensor) -> list[dict]:
    top = probs.topk(2)
    return [{"pred_classes": c, "scores": s, "probs": p} for s, c, p in zip(*top, probs, strict=True)]


def make_inputs(labels: torch.Tensor, stacked: bool):
    ids = [f"id{i}" for i in range(len(labels))]
    names = [f"{i}.png" for i in ids]
    images = torch.zeros(len(ids), 3, 2, 2, dtype=torch.uint8)
    if stacked:
        return {"image": images, "label": labels, "image_id": ids, "file_name": names}
    keys = ("image", "label", "image_id", "file_name")
    return [dict(zip(keys, row, strict=True)) for row in zip(images, labels, ids, names, strict=True)]


@pytest.mark.parametrize("stacked", [False, True])
def test_result_files_and_the_absent_class(stacked, tmp_path, caplog):
    probs, labels = make()
    evaluator = MultiLabelEvaluator(CLASSES, threshold=0.6, output_dir=str(tmp_path))
    outputs = [{**o, "loss": v} for o, v in zip(make_outputs(probs), make_losses(probs, labels), strict=True)]
    evaluator.process(make_inputs(labels, stacked), outputs)
    result = evaluator.evaluate()
    assert "1 of 4 classes have no positive and are left out of the macro means: bird" in caplog.text

    metrics = result["multilabel"]
    names = "mAP mAP_micro precision_micro recall_micro F1_micro precision_macro recall_macro F1_macro exact_match"
    assert list(metrics) == [*names.split(), "loss"]
    columns = [log_loss(labels[:, i], probs[:, i], labels=[0, 1]) for i in range(4)]
    assert metrics["loss"] == pytest.approx(np.mean(columns), rel=1e-5)
    assert all(type(value) is float for value in metrics.values())
    kept = [0, 1, 3]
    expected = average_precision_score(labels[:, kept], probs[:, kept], average=None)
    assert metrics["mAP"] == pytest.approx(100 * expected.mean(), rel=1e-5)
    assert metrics["F1_micro"] == pytest.approx(100 * f1_score(labels, probs > 0.6, average="micro"), rel=1e-5)
    print_csv_format(result)

    content = json.loads((tmp_path / "multilabel.json").read_text())
    assert content["metrics"] == pytest.approx(dict(metrics), abs=1e-6)
    assert content["threshold"] == 0.6 and content["num_images"] == 40
    ap = {row["class"]: row["AP"] for row in content["per_class"]}
    assert ap == {"cat": pytest.approx(100 * expected[0]), "dog": pytest.approx(100 * expected[1]), "bird": None,
                  "fish": pytest.approx(100 * expected[2])}  # fmt: skip

    header, *rows = read(tmp_path / "per_class.csv")
    assert header == ["class", "positives", "AP", "precision", "recall", "F1"]
    assert rows[2] == ["bird", "0", "", "", "", ""] and rows[0][1] == str(int(labels[:, 0].sum()))

    header, *rows = read(tmp_path / "predictions.csv")
    assert header == ["image_id", "file_name", "labels", "pred", "label_scores", "pred_scores"]
    assert [row[:2] for row in rows] == [[f"id{i}", f"id{i}.png"] for i in range(40)]
    assert rows[0][2] == "cat;dog" and rows[1][2] == ""
    for row, prob in zip(rows, probs, strict=True):
        assert row[3] == ";".join(name for name, p in zip(CLASSES, prob, strict=True) if p > 0.6)
    assert [float(s) for s in rows[0][4].split(";")] == pytest.approx(probs[0, :2].tolist(), abs=1e-6)
    assert rows[1][3:] == ["dog;bird", "", "0.900000;0.700000"]


def read(path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_nothing_but_absent_classes_is_null_in_json(tmp_path):
    evaluator = MultiLabelEvaluator(CLASSES, output_dir=str(tmp_path))
    probs = torch.full((2, 4), 0.1)
    evaluator.process(make_inputs(torch.zeros(2, 4), stacked=True), make_outputs(probs))
    assert evaluator.evaluate()["multilabel"]["exact_match"] == 100
    content = json.loads((tmp_path / "multilabel.json").read_text())
    assert content["metrics"]["mAP"] is None and content["metrics"]["exact_match"] == 100


def test_half_precision_probabilities_and_boolean_labels():
    probs, labels = make()
    results = []
    for p, y in ((probs.half().float(), labels), (probs.half(), labels.bool())):
        evaluator = MultiLabelEvaluator(CLASSES)
        evaluator.process(make_inputs(y, stacked=True), make_outputs(p))
        results.append(evaluator.evaluate())
    assert results[0] == results[1]


def test_what_cannot_be_scored():
    probs, labels = make(2)
    evaluator = MultiLabelEvaluator(CLASSES)
    with pytest.raises(UserError, match=r"'probs'.*MODEL.CLSNET.HEAD to 'sigmoid'"):
        evaluator.process(make_inputs(labels, True), [{"pred_classes": torch.tensor([0]), "scores": torch.ones(1)}] * 2)
    with pytest.raises(UserError, match=r"probabilities of shape \(2, 3\) do not fit 4 classes.*NUM_CLASSES"):
        evaluator.process(make_inputs(labels, True), make_outputs(probs[:, :3]))
    with pytest.raises(UserError, match=r"labels of shape \(2,\) do not fit 4 classes.*multi-label"):
        evaluator.process(make_inputs(torch.tensor([0, 1]), True), make_outputs(probs))
    with pytest.raises(UserError, match="image 'id1' are not finite"):
        evaluator.process(make_inputs(labels, True), make_outputs(torch.tensor([[0.1] * 4, [torch.nan] * 4])))
    with pytest.raises(UserError, match=r"TEST.THRESHOLD is 1.5.*0 to 1"):
        MultiLabelEvaluator(CLASSES, threshold=1.5)


def test_all_probabilities_are_saved_on_request(tmp_path):
    probs, labels = make()
    for saves in (True, False):
        evaluator = MultiLabelEvaluator(CLASSES, output_dir=str(tmp_path), save_probabilities=saves)
        evaluator.process(make_inputs(labels, True), make_outputs(probs))
        evaluator.evaluate()
        path = tmp_path / "probabilities.npy"
        assert path.exists() == saves
        assert not saves or np.array_equal(np.load(path), probs.numpy())
        header, *rows = read(tmp_path / "predictions.csv")
        assert header[6:] == ([f"p({name})" for name in CLASSES] if saves else [])
        assert not saves or rows[5][6:] == [f"{p:.6f}" for p in probs[5].tolist()]
