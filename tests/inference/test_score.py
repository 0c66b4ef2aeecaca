"""Evaluation of a model file: the metrics of ``--eval-only``, to the last digit."""

import json

import pytest

from imgcls.cli.train import main as train
from imgcls.errors import UserError
from imgcls.inference import Predictor
from imgcls.inference.export import export_classifier
from imgcls.inference.score import read_labelled, score


@pytest.fixture
def eval_only(tiny_cfg, tmp_path):
    """``eval_only(path, dataset)``: the result files of ``imgcls train --eval-only``."""

    def run(path: str, dataset: str) -> dict[str, str]:
        config = tmp_path / "config.yaml"
        config.write_text(tiny_cfg.dump())
        train(
            ["--eval-only", "--num-gpus", "0", "--config-file", str(config), "MODEL.WEIGHTS", path,
             "DATASETS.TEST", f"('{dataset}',)"]
        )  # fmt: skip
        return read_files(tmp_path / "output" / "inference")

    return run


def read_files(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != "config.yaml"}


def test_a_checkpoint_has_every_figure_of_eval_only(tiny_cfg, save_classifier, mixed_images, tmp_path, eval_only):
    tiny_cfg.INPUT.CROP_PCT, tiny_cfg.TEST.TOPK = 0.8, [1, 2]
    path, name = save_classifier(), f"folder:{mixed_images}"
    expected = eval_only(path, name)
    predictor = Predictor.from_file(path, "cpu")
    results = score(predictor, read_labelled(name, predictor.info), 4, folder=str(tmp_path / "files"))
    assert read_files(tmp_path / "files") == expected
    assert set(expected) == {"accuracy.json", "per_class.csv", "confusion_matrix.csv", "predictions.csv"}
    assert results == {"accuracy": json.loads(expected["accuracy.json"])["metrics"]}
    assert {"top1", "top2", "balanced", "loss"} < set(results["accuracy"]) and 0 < results["accuracy"]["top1"] < 100


def test_a_multi_label_checkpoint_has_every_figure_of_eval_only(
    tiny_cfg, save_classifier, mixed_images, tmp_path, eval_only
):
    tiny_cfg.MODEL.CLSNET.HEAD, tiny_cfg.TEST.THRESHOLD = "sigmoid", 0.3
    rows = [f"{file},{file.parent.name}" for file in sorted(mixed_images.rglob("*.*"))]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file_name,labels", *rows]))
    tiny_cfg.DATASETS.TRAIN = (f"csv:{table}",)
    path, name = save_classifier(), f"csv:{table}"
    expected = eval_only(path, name)
    predictor = Predictor.from_file(path, "cpu")
    results = score(predictor, read_labelled(name, predictor.info), 4, folder=str(tmp_path / "files"))
    assert read_files(tmp_path / "files") == expected and "multilabel.json" in expected
    assert results["multilabel"]["mAP"] == pytest.approx(json.loads(expected["multilabel.json"])["metrics"]["mAP"])


def test_a_temperature_counts_for_a_checkpoint_as_for_its_export(save_classifier, write_folder, tmp_path):
    """Of two files that predict the same probabilities, neither may be scored with others."""
    name = f"folder:{write_folder(tmp_path / 'val', {'blue': 22, 'green': 22, 'red': 22})}"
    loss = {}
    for temperature in (1.0, 3.0):
        path, target = save_classifier(temperature=temperature), str(tmp_path / "model.ts")
        export_classifier(path, target, name, force=True)
        for kind, file in (("checkpoint", path), ("export", target)):
            predictor = Predictor.from_file(file, "cpu")
            loss[kind, temperature] = score(predictor, read_labelled(name, predictor.info))["accuracy"]["loss"]
    for temperature in (1.0, 3.0):
        assert loss["checkpoint", temperature] == pytest.approx(loss["export", temperature], rel=1e-4)
    assert abs(loss["export", 3.0] - loss["export", 1.0]) > 1e-2


def test_workers_and_batch_sizes_change_no_metric(save_classifier, mixed_images):
    predictor = Predictor.from_file(save_classifier(), "cpu")
    dataset = read_labelled(f"folder:{mixed_images}", predictor.info)
    one, other = (dict(score(predictor, dataset, *how)["accuracy"]) for how in ((7, 2), (18, 0)))
    assert one.pop("loss") == pytest.approx(other.pop("loss"), rel=1e-6)
    assert one == other


def test_labels_go_by_name_and_other_classes_are_refused(save_classifier, write_folder, tmp_path):
    info = Predictor.from_file(save_classifier(), "cpu").info
    some = write_folder(tmp_path / "some", {"red": 2, "blue": 1})
    assert [record["label"] for record in read_labelled(f"folder:{some}", info).records] == [0, 2, 2]
    other = write_folder(tmp_path / "other", {"red": 2, "yellow": 1})
    with pytest.raises(
        UserError, match="has the class yellow, which the training set lacks; its 3 classes: blue, green"
    ):
        read_labelled(f"folder:{other}", info)
    table = tmp_path / "labels.csv"
    table.write_text(f"file_name,labels\n{other / 'red' / '0.png'},red")
    with pytest.raises(UserError, match=r'has "labels", but MODEL\.CLSNET\.HEAD is "softmax"'):
        read_labelled(f"csv:{table}", info)


def test_names_for_a_checkpoint_without_any(save_classifier, tmp_path):
    """As `imgcls convert` writes it, where the names are not known."""
    path = save_classifier(classes=[])
    with pytest.raises(UserError, match=r"has no names for its 3 classes; give them with --classes FILE, one a line"):
        Predictor.from_file(path, "cpu")
    assert Predictor.from_file(path, "cpu", ["a", "b", "c"]).info.classes == ["a", "b", "c"]
    with pytest.raises(UserError, match=r"there are 2 class names, and .*model\.pth has 3 outputs"):
        Predictor.from_file(path, "cpu", ["a", "b"])
