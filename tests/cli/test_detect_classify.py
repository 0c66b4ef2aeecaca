import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from imgcls.checkpoint import build_detector_info, build_info, write_checkpoint
from imgcls.model_zoo import get_config


@pytest.fixture
def models(tiny_cfg, tmp_path) -> list[str]:
    """A detector's checkpoint and a classifier's, both with random weights."""
    cfg = get_config("COCO-Detection/retinanet_mnetv1_025_FPN_1x.yaml")
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.RETINANET.NUM_CLASSES", "3", "INPUT.MIN_SIZE_TEST", "128",
         "DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "TEST.DETECTIONS_PER_IMAGE", "4"]
    )  # fmt: skip
    detector = build_model(cfg)
    torch.nn.init.normal_(detector.head.cls_score.weight, std=3.0)
    torch.nn.init.zeros_(detector.head.cls_score.bias)
    paths = [str(tmp_path / "detector.pth"), str(tmp_path / "classifier.pth")]
    write_checkpoint(paths[0], {"model": detector.state_dict(), "imgcls": build_detector_info(cfg)})
    classifier = {"model": build_model(tiny_cfg).state_dict(), "imgcls": build_info(tiny_cfg, ["blue", "green", "red"])}
    write_checkpoint(paths[1], classifier)
    return paths


@pytest.fixture
def images(tmp_path) -> Path:
    rng = np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    return tmp_path / "images"


def test_one_drawing_for_each_image_and_one_json(run_verb, models, images, tmp_path):
    out = tmp_path / "out"
    arguments = (*models, images, "-o", out, "--min-score", 0.1, "--topk", 2, "--device", "cpu")
    code, printed, error = run_verb("detect-classify", *arguments)
    boxes = json.loads((out / "detections.json").read_text())
    assert code == 1 and error == f"unreadable: {images / 'broken.png'}: not an image that Pillow can read\n"
    assert printed == f"{len(boxes)} boxes in 2 images: {out / 'detections.json'}\n" and len(boxes) == 8
    assert sorted(os.listdir(out)) == ["000000_a.jpg", "000001_b.jpg", "detections.json"]
    for box in boxes:
        assert len(box["classes"]) == 2 and box["probabilities"][0] >= box["probabilities"][1] and len(box["bbox"]) == 4
        assert box["score"] >= 0.1 and Path(box["file_name"]).is_file()
    with Image.open(out / "000000_a.jpg") as drawn:
        assert drawn.size == (80, 60)
    # The JSON is a source of `imgcls predict`, which gives the same classes.
    code, *_ = run_verb("predict", models[1], out / "detections.json", "-o", tmp_path / "p.jsonl", "-j", 0, "--topk", 2)
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert code == 0 and [row["classes"] for row in rows] == [box["classes"] for box in boxes]
    code, _, error = run_verb("detect-classify", *arguments)
    assert code == 2 and "exists; add --force to replace it" in error and error.count("\n") == 1
    assert run_verb("detect-classify", *arguments, "--force")[0] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: "nothing.yaml"}, "DETECTOR nothing.yaml: no such file, and no config of the model zoo"),
        ({0: "nothing.pth"}, "nothing.pth: no such checkpoint"),
        ({1: "nothing.pth"}, "nothing.pth: no such checkpoint"),
        ({2: "nothing"}, "nothing: no such file, folder or dataset"),
    ],
)
def test_mistakes_are_one_line(run_verb, models, images, tmp_path, change, message):
    arguments = [change.get(number, value) for number, value in enumerate([*models, images])]
    code, _, error = run_verb("detect-classify", *arguments, "-o", tmp_path / "out", "--device", "cpu")
    assert code == 2 and message in error and error.count("\n") == 1


def test_a_negative_margin_is_refused(run_verb):
    assert "--margin is -1.0; allowed: from 0" in run_verb("detect-classify", "a", "b", "c", "--margin", -1)[2]
