"""The FAQ quotes the messages that the code gives. ``python tests/docs/test_faq.py`` writes today's into the page."""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from imgcls.checkpoint import ClsCheckpointer, build_info, export_backbone, load_backbone
from imgcls.config import check_cfg, load_cfg
from imgcls.data.catalog import read_datasets
from imgcls.data.dataset import check_labels
from imgcls.data.image import read_image
from imgcls.errors import UserError

PAGE = Path(__file__).parents[2] / "docs" / "faq.md"
CONFIGS = Path(__file__).parents[2] / "configs"
SETS = ["DATASETS.TRAIN", "('folder:images/train',)"]


def write_images(folder: str, *names: str) -> None:
    """``folder/NAME/0.jpg`` for each class name."""
    for name in names:
        path = Path("images", folder, name)
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 128, np.uint8)).save(path / "0.jpg")


def read_training_set(opts: list[str]) -> None:
    """What set-up does before the first iteration: config, data, and both together."""
    cfg = load_cfg(str(CONFIGS / "Base_image_cls.yaml"), opts)
    check_cfg(cfg)
    datasets = read_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    train, test = datasets.train, datasets.test
    for dataset in (*train, *test):
        check_labels(dataset, cfg.MODEL.CLSNET.NUM_CLASSES, cfg.MODEL.CLSNET.HEAD == "sigmoid")


def other_number_of_classes() -> None:
    read_training_set([*SETS, "DATASETS.TEST", "()"])


def folder_without_sub_folders() -> None:
    Path("images/flat").mkdir(parents=True, exist_ok=True)
    Path("images/flat/0.jpg").write_bytes(Path("images/train/red/0.jpg").read_bytes())
    read_training_set(["DATASETS.TRAIN", "('folder:images/flat',)"])


def class_of_the_test_set_only() -> None:
    write_images("more", "blue", "purple")
    read_training_set([*SETS, "DATASETS.TEST", "('folder:images/more',)"])


def warm_up_longer_than_the_run() -> None:
    read_training_set(["SOLVER.MAX_ITER", "500"])


def flag_after_the_overrides() -> None:
    read_training_set(["OUTPUT_DIR", "output/mine", "--resume"])


def misspelled_key() -> None:
    read_training_set(["SOLVER.BASE_LEARNING_RATE", "0.1"])


def several_labels_for_a_softmax_head() -> None:
    Path("images/labels.csv").write_text("file_name,labels\ntrain/red/0.jpg,red;blue\n")
    read_training_set(["DATASETS.TRAIN", "('csv:images/labels.csv',)", "DATASETS.TEST", "()"])


def web_page_instead_of_an_image() -> None:
    Path("images/train/red/1.jpg").write_text("<html>404 Not Found</html>")
    read_image("images/train/red/1.jpg")


def write_classifier() -> None:
    opts = ["MODEL.DEVICE", "cpu", "MODEL.CLSNET.NUM_CLASSES", "3", "MODEL.MNET.WIDTH_MULT", "0.25"]
    cfg = load_cfg(str(CONFIGS / "Base_image_cls.yaml"), [*opts, *SETS, "DATASETS.TEST", "()"])
    classes = ["blue", "green", "red"]
    ClsCheckpointer(build_model(cfg), ".", info=build_info(cfg, classes)).save("model_final")


def load_into_detector(path: str, *opts: str) -> None:
    cfg = load_cfg(str(CONFIGS / "COCO-Detection" / "retinanet_mnetv1_025_FPN_1x.yaml"), ["MODEL.DEVICE", "cpu", *opts])
    load_backbone(build_model(cfg), path, cfg)


def whole_classifier_in_a_detector() -> None:
    write_classifier()
    load_into_detector("model_final.pth")


def other_means() -> None:
    write_classifier()
    export_backbone("model_final.pth", "backbone.pth")
    load_into_detector("backbone.pth", "MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]")


MISTAKES: list[Callable[[], None]] = [
    other_number_of_classes,
    folder_without_sub_folders,
    class_of_the_test_set_only,
    warm_up_longer_than_the_run,
    flag_after_the_overrides,
    misspelled_key,
    several_labels_for_a_softmax_head,
    web_page_instead_of_an_image,
    whole_classifier_in_a_detector,
    other_means,
]
QUOTE = re.compile(r"(?<=```text\n).*(?=\n```)")


def message_of(mistake: Callable[[], None]) -> str:
    write_images("train", "blue", "green", "red")
    with pytest.raises(UserError) as caught:
        mistake()
    return str(caught.value)


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[mistake.__name__ for mistake in MISTAKES])
def test_the_page_quotes_the_message(tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    assert message_of(MISTAKES[number]) == QUOTE.findall(PAGE.read_text())[number]


def test_every_quote_is_tested():
    assert len(QUOTE.findall(PAGE.read_text())) == len(MISTAKES)


def rewrite_page() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        messages = iter([message_of(mistake) for mistake in MISTAKES])
    PAGE.write_text(QUOTE.sub(lambda _: next(messages), PAGE.read_text()))


if __name__ == "__main__":
    rewrite_page()
