import csv
import logging

import pytest
from PIL import Image

from imgcls.data.dataset import Dataset
from imgcls.engine import resolve_from_data
from imgcls.engine.setup import positive_weights


@pytest.fixture
def multi_label_cfg(tiny_cfg, tmp_path):
    """Four images: class a on three of them, b on one, c on none."""
    rows = [("0.png", "a;b"), ("1.png", "a"), ("2.png", "a"), ("3.png", "")]
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file_name", "labels"), *rows])
    for name, _ in rows:
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    tiny_cfg.DATASETS.TRAIN, tiny_cfg.DATASETS.TEST = (f"csv:{tmp_path / 'labels.csv'}",), ()
    tiny_cfg.MODEL.CLSNET.HEAD, tiny_cfg.MODEL.CLSNET.NUM_CLASSES = "sigmoid", -1
    return tiny_cfg


def test_class_count_comes_from_the_data(tiny_cfg):
    tiny_cfg.MODEL.CLSNET.NUM_CLASSES = -1
    resolve_from_data(tiny_cfg)
    assert tiny_cfg.MODEL.CLSNET.NUM_CLASSES == 3


def test_class_count_is_checked(tiny_cfg):
    tiny_cfg.MODEL.CLSNET.NUM_CLASSES = 4
    with pytest.raises(ValueError, match=r"NUM_CLASSES.*-1"):
        resolve_from_data(tiny_cfg)


def test_head_must_fit_the_labels(tiny_cfg, multi_label_cfg):
    multi_label_cfg.MODEL.CLSNET.HEAD = "softmax"
    with pytest.raises(ValueError, match=r"MODEL\.CLSNET\.HEAD"):
        resolve_from_data(multi_label_cfg)


def test_pos_weight_auto_is_negatives_over_positives_and_is_logged(multi_label_cfg, caplog):
    multi_label_cfg.MODEL.CLSNET.POS_WEIGHT = "auto"
    with caplog.at_level(logging.INFO, "imgcls"):
        resolve_from_data(multi_label_cfg)
    assert multi_label_cfg.MODEL.CLSNET.NUM_CLASSES == 2
    assert [pytest.approx(1 / 3, abs=1e-4), 3.0] == multi_label_cfg.MODEL.CLSNET.POS_WEIGHT
    assert "POS_WEIGHT from the training set" in caplog.text
    assert "POS_WEIGHT:\n    - 0.3333\n    - 3.0" in multi_label_cfg.dump()  # what a checkpoint keeps


def test_class_without_a_positive_weighs_one_and_is_named(caplog):
    records = [{"labels": [0]}, {"labels": [0]}]
    dataset = Dataset(name="d", records=records, classes=["always", "never"], multi_label=True, source="s")
    with caplog.at_level(logging.WARNING, "imgcls"):
        assert positive_weights([dataset]) == [0.25, 1.0]
    assert "never" in caplog.text


def test_no_training_set_is_refused(tiny_cfg):
    tiny_cfg.DATASETS.TRAIN = ()
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN names no set"):
        resolve_from_data(tiny_cfg)
