"""ImageNetEvaluator on one process."""

import csv
import json

import numpy as np
import pytest
import torch
from detectron2.evaluation import print_csv_format, verify_results
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from imgcls.config import get_cfg
from imgcls.errors import UserError
from imgcls.evaluation import ImageNetEvaluator

CLASSES = ["cat", "dog, small", "Äpfel", "bird", "fish", "fox", "owl"]


def make_scores(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 6, (n,), generator=generator)
    scores = torch.rand(n, 7, generator=generator)
    scores[torch.arange(n), labels] += 0.3
    return scores.softmax(dim=1), labels


def make_outputs(scores: torch.Tensor, k: int = 5, loss: torch.Tensor | None = None) -> list[dict]:
    top = scores.topk(k)
    outputs = [{"pred_classes": p, "scores": s} for s, p in zip(*top, strict=True)]
    return outputs if loss is None else [{**o, "loss": v} for o, v in zip(outputs, loss, strict=True)]


def make_inputs(labels: torch.Tensor, start: int = 0, stacked: bool = False):
    ids = list(range(start, start + len(labels)))
    names = [f"images/a b,{i}.png" for i in ids]
    images = torch.zeros(len(ids), 3, 2, 2, dtype=torch.uint8)
    if stacked:
        return {"image": images, "label": labels, "image_id": ids, "file_name": names}
    return [
        {"image": images[i], "label": int(labels[i]), "image_id": ids[i], "file_name": names[i]}
        for i in range(len(ids))
    ]


def run(evaluator: ImageNetEvaluator, scores: torch.Tensor, labels: torch.Tensor, stacked: bool = False) -> dict:
    evaluator.reset()
    for start in range(0, len(labels), 16):
        part = slice(start, start + 16)
        loss = scores[part].log().gather(1, labels[part, None]).neg()[:, 0]
        evaluator.process(make_inputs(labels[part], start, stacked), make_outputs(scores[part], loss=loss))
    return evaluator.evaluate()


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("stacked", [False, True])
def test_result_equals_scikit_learn_and_detectron2_takes_it(stacked, caplog):
    scores, labels = make_scores(50)
    pred = scores.argmax(dim=1)
    result = run(ImageNetEvaluator(CLASSES, topk=(5, 1, 2)), scores, labels, stacked)
    expected = {f"top{k}": 100 * top_k_accuracy_score(labels, scores, k=k, labels=range(7)) for k in (1, 2, 5)}
    assert expected["top1"] < expected["top2"] < expected["top5"] < 100
    expected["balanced"] = 100 * balanced_accuracy_score(labels, pred)
    macro = precision_recall_fscore_support(labels, pred, average="macro", zero_division=0)
    expected |= dict(zip(("precision_macro", "recall_macro", "F1_macro"), 100 * np.array(macro[:3]), strict=True))
    expected["loss"] = log_loss(labels, scores.double() / scores.double().sum(dim=1, keepdim=True), labels=range(7))
    assert result == {"accuracy": pytest.approx(expected, rel=1e-6)}
    assert list(result["accuracy"]) == list(expected), "the first is the default of TEST.BEST_METRIC"
    assert all(type(value) is float for value in result["accuracy"].values())

    with caplog.at_level("INFO"):
        print_csv_format(result)
    assert "top1,top2,top5,balanced,precision_macro,recall_macro,F1_macro,loss" in caplog.text
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [["accuracy", name, expected[name], 0.01] for name in ("top1", "balanced", "loss")]
    assert verify_results(cfg, result)


def test_files(tmp_path):
    scores, labels = make_scores(50)
    folder = tmp_path / "out put" / "inference"
    result = run(ImageNetEvaluator(CLASSES, output_dir=str(folder)), scores, labels)
    pred = scores.argmax(dim=1)
    expected = confusion_matrix(labels, pred, labels=range(7))

    content = json.loads((folder / "accuracy.json").read_text())
    assert content["metrics"] == result["accuracy"] and content["num_images"] == 50
    per_class = {row["class"]: row for row in content["per_class"]}
    assert list(per_class) == CLASSES
    assert (pred == 6).any(), "the class without images was predicted"
    assert per_class["owl"] == {"class": "owl", "images": 0, "accuracy": None, "precision": 0.0, "F1": 0.0}
    f1 = 100 * f1_score(labels, pred, labels=range(7), average=None, zero_division=0)
    assert [row["F1"] for row in per_class.values()] == pytest.approx(f1.tolist(), abs=1e-6)
    assert per_class["Äpfel"]["images"] == int((labels == 2).sum())
    assert per_class["Äpfel"]["accuracy"] == pytest.approx(100 * accuracy_score(labels[labels == 2], pred[labels == 2]))

    header, *rows = read(folder / "confusion_matrix.csv")
    assert header[1:] == CLASSES and [row[0] for row in rows] == CLASSES
    assert np.array_equal(np.array([row[1:] for row in rows], dtype=int), expected)

    header, *rows = read(folder / "per_class.csv")
    assert header == ["class", "images", "accuracy", "precision", "F1"] and rows[6] == ["owl", "0", "", "0.0", "0.0"]

    header, *rows = read(folder / "predictions.csv")
    assert header == ["image_id", "file_name", "label", "pred", "score"]
    assert [row[0] for row in rows] == [str(i) for i in range(50)]
    assert rows[3][1] == "images/a b,3.png"
    assert [row[2] for row in rows] == [CLASSES[i] for i in labels]
    assert [row[3] for row in rows] == [CLASSES[i] for i in pred]
    np.testing.assert_allclose([float(row[4]) for row in rows], scores.max(dim=1).values, atol=1e-6)
    assert len(list(folder.iterdir())) == 4


def read(path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_reset_discards_predictions_and_evaluate_can_be_repeated(tmp_path):
    scores, _ = make_scores(20)
    evaluator = ImageNetEvaluator(CLASSES, output_dir=str(tmp_path))
    wrong = run(evaluator, scores, (scores.argmax(dim=1) + 1) % 7)
    assert wrong["accuracy"]["top1"] == 0
    right = run(evaluator, scores, scores.argmax(dim=1))
    assert right["accuracy"]["top1"] == 100 == json.loads((tmp_path / "accuracy.json").read_text())["metrics"]["top1"]
    assert evaluator.evaluate() == right


def test_evaluation_that_fails_half_way_keeps_all_previous_files(tmp_path):
    class Unwritable:
        def __str__(self):
            raise KeyboardInterrupt

    scores, labels = make_scores(4)
    run(ImageNetEvaluator(CLASSES, output_dir=str(tmp_path)), scores, labels)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 4
    evaluator = ImageNetEvaluator(CLASSES, output_dir=str(tmp_path))
    inputs = {"image": torch.zeros(1, 3, 2, 2), "label": labels[:1], "image_id": [0], "file_name": [Unwritable()]}
    evaluator.process(inputs, make_outputs(scores[:1]))
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    scores, labels = make_scores(4)
    with pytest.raises(UserError, match=r"file/inference: cannot be created .*OUTPUT_DIR"):
        run(ImageNetEvaluator(CLASSES, output_dir=str(tmp_path / "file" / "inference")), scores, labels)


def test_single_image_and_k_above_the_number_of_classes():
    evaluator = ImageNetEvaluator(["a", "b", "c"], topk=(1, 2, 3, 5))
    evaluator.process(make_inputs(torch.tensor([2])), make_outputs(torch.tensor([[0.5, 0.2, 0.3]]), k=3))
    assert list(evaluator.evaluate()["accuracy"].items())[:3] == [("top1", 0.0), ("top2", 100.0), ("balanced", 0.0)]


def test_file_names_may_be_missing_and_ids_may_be_text(tmp_path):
    evaluator = ImageNetEvaluator(["a", "b"], topk=[1], output_dir=str(tmp_path))
    inputs = {"image": torch.zeros(1, 3, 2, 2), "label": torch.tensor([1]), "image_id": ["x/1"]}
    evaluator.process(inputs, make_outputs(torch.tensor([[0.25, 0.75]]), k=1))
    evaluator.evaluate()
    assert read(tmp_path / "predictions.csv")[1] == ["x/1", "", "b", "b", "0.750000"]


def test_no_image_is_a_warning_and_an_empty_result(caplog):
    assert ImageNetEvaluator(CLASSES).evaluate() == {}
    assert "ImageNetEvaluator did not receive any images" in caplog.text


def test_an_image_that_is_evaluated_twice_is_an_internal_error():
    scores, labels = make_scores(4)
    evaluator = ImageNetEvaluator(CLASSES)
    for _ in range(2):
        evaluator.process(make_inputs(labels), make_outputs(scores))
    with pytest.raises(RuntimeError, match="4 images were evaluated more than once, first 0"):
        evaluator.evaluate()
    with pytest.raises(RuntimeError, match="3 outputs for 4 images"):
        evaluator.process(make_inputs(labels), make_outputs(scores[:3]))


def without(key: str) -> list[dict]:
    return [{k: v for k, v in image.items() if k != key} for image in make_inputs(torch.tensor([0, 1]))]


def labelled(labels: list) -> dict:
    return {"image": torch.zeros(2, 3, 2, 2), "image_id": [0, 1], "label": torch.tensor(labels)}


@pytest.mark.parametrize(
    ("inputs", "k", "message"),
    [
        (without("label"), 5, "without labels.*DATASETS.TEST"),
        (without("image_id"), 5, "without ids.*image_id"),
        (labelled([0, 1]), 3, "3 best classes.*TEST.TOPK asks for top5"),
        (labelled([0, 7]), 5, "true classes range from 0 to 7.*classes 0 to 6.*MODEL.CLSNET.NUM_CLASSES"),
        (labelled([-1, 2]), 5, "true classes range from -1 to 2"),
        (labelled([[0.0, 1.0], [1.0, 0.0]]), 5, "multi-label, .*MODEL.CLSNET.HEAD"),
    ],
)
def test_inputs_that_cannot_be_scored(inputs, k, message):
    scores, _ = make_scores(2)
    with pytest.raises(UserError, match=message):
        ImageNetEvaluator(CLASSES).process(inputs, make_outputs(scores, k))


def test_outputs_that_cannot_be_scored():
    nine = make_outputs(torch.eye(9)[[8, 0]], k=5)
    with pytest.raises(UserError, match=r"predicted classes range from \d to 8.*NUM_CLASSES"):
        ImageNetEvaluator(CLASSES).process(labelled([0, 1]), nine)
    nan = make_outputs(torch.tensor([[0.2] * 7, [torch.nan] * 7]))
    with pytest.raises(UserError, match=r"image 1 are not finite.*MODEL.WEIGHTS"):
        ImageNetEvaluator(CLASSES).process(labelled([0, 1]), nan)


def make_binary(scores: torch.Tensor, **options) -> dict:
    evaluator = ImageNetEvaluator(["a", "b"], **options)
    evaluator.process(labelled([0, 1]), make_outputs(scores, k=2))
    return evaluator.evaluate()["accuracy"]


def test_a_top_k_that_is_always_100_is_left_out_unless_no_other_remains():
    scores = torch.tensor([[0.7, 0.3], [0.6, 0.4]])
    assert list(make_binary(scores, topk=(1, 2, 5)))[:2] == ["top1", "balanced"]
    assert list(make_binary(scores, topk=(2, 5)))[:2] == ["top2", "balanced"]
    assert ImageNetEvaluator(list("abcde")).topk == [1] and ImageNetEvaluator(list("abcdef")).topk == [1, 5]
    assert ImageNetEvaluator(["only"]).topk == [1]


def test_model_without_a_loss_for_each_image_has_no_mean_of_them():
    scores, labels = make_scores(8)
    evaluator = ImageNetEvaluator(CLASSES)
    evaluator.process(make_inputs(labels[:4]), make_outputs(scores[:4], loss=torch.ones(4)))
    assert evaluator.evaluate()["accuracy"]["loss"] == 1
    evaluator.process(make_inputs(labels[4:], start=4), make_outputs(scores[4:]))
    assert "loss" not in evaluator.evaluate()["accuracy"]


def test_a_loss_that_is_not_finite_names_the_image():
    scores, labels = make_scores(2)
    outputs = make_outputs(scores, loss=torch.tensor([1.0, torch.inf]))
    with pytest.raises(UserError, match=r"loss for image 1 is not finite.*MODEL.WEIGHTS"):
        ImageNetEvaluator(CLASSES).process(make_inputs(labels), outputs)
    with pytest.raises(UserError, match=r"'loss' of an image has the shape \(7,\); allowed: a scalar, or no 'loss'"):
        ImageNetEvaluator(CLASSES).process(make_inputs(labels), make_outputs(scores, loss=scores))


@pytest.mark.parametrize("topk", [(), (5,), (0, 1)])
def test_topk_that_cannot_be_reported(topk):
    with pytest.raises(UserError, match=r"TEST.TOPK is \(.*from 1 to the number of classes, 3"):
        ImageNetEvaluator(["a", "b", "c"], topk=topk)


def test_no_classes():
    with pytest.raises(UserError, match="class list is empty"):
        ImageNetEvaluator([])


def test_all_probabilities_are_saved_in_the_order_of_the_classes(tmp_path):
    scores, labels = make_scores(50)
    evaluator = ImageNetEvaluator(CLASSES, output_dir=str(tmp_path), save_probabilities=True)
    for start in range(0, 50, 16):
        part = slice(start, start + 16)
        evaluator.process(make_inputs(labels[part], start), make_outputs(scores[part], k=7))
    evaluator.evaluate()
    assert np.array_equal(np.load(tmp_path / "probabilities.npy"), scores.numpy())
    header, *rows = read(tmp_path / "predictions.csv")
    assert header[:5] == ["image_id", "file_name", "label", "pred", "score"]
    assert header[5:] == [f"p({name})" for name in CLASSES]
    assert [row[5:] for row in rows] == [[f"{p:.6f}" for p in row] for row in scores.tolist()]
    run(ImageNetEvaluator(CLASSES, output_dir=str(tmp_path)), scores, labels)
    assert not (tmp_path / "probabilities.npy").exists(), "it would belong to the earlier evaluation"


@pytest.mark.parametrize(("count", "columns"), [(20, 20), (21, 0)])
def test_more_than_20_probabilities_are_only_in_the_array(count, columns, tmp_path):
    scores = torch.eye(count)[:3] * 0.5
    classes = [f"c{i}" for i in range(count)]
    evaluator = ImageNetEvaluator(classes, output_dir=str(tmp_path), save_probabilities=True)
    evaluator.process(make_inputs(torch.tensor([0, 1, 2])), make_outputs(scores, k=count))
    evaluator.evaluate()
    assert np.load(tmp_path / "probabilities.npy").shape == (3, count)
    assert {len(row) for row in read(tmp_path / "predictions.csv")} == {5 + columns}


def test_a_model_that_returns_only_the_best_classes_cannot_have_them_saved(tmp_path):
    scores, labels = make_scores(4)
    with pytest.raises(UserError, match=r"SAVE_PROBABILITIES needs the scores of all 7 classes.*returns 5"):
        run(ImageNetEvaluator(CLASSES, output_dir=str(tmp_path), save_probabilities=True), scores, labels)
