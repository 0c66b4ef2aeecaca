"""`imgcls train` from real images to results, and the mistakes that users make."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

from imgcls.config import check_cfg, load_cfg
from imgcls.model_zoo import get_config
from imgcls.report.complexity import build_complexity


@pytest.fixture
def config(tiny_cfg, tmp_path):
    path = tmp_path / "tiny.yaml"
    tiny_cfg.MODEL.DEVICE = "cuda"
    path.write_text(tiny_cfg.dump())
    return path


@pytest.fixture
def run(run_verb, config):
    """``run("--eval-only", KEY, value)`` on the tiny config, on the CPU: exit code and stderr."""
    return lambda *args: run_verb("train", "--num-gpus", 0, "--config-file", config, *args)[::2]


def top1(tmp_path):
    return json.loads((tmp_path / "output" / "inference" / "accuracy.json").read_text())["metrics"]["top1"]


def test_train_evaluate_and_resume(run, tmp_path):
    assert run()[0] == 0
    trained = top1(tmp_path)
    shutil.rmtree(tmp_path / "output" / "inference")
    assert run("--eval-only", "MODEL.WEIGHTS", tmp_path / "output" / "model_final.pth")[0] == 0
    assert top1(tmp_path) == trained
    assert run("--eval-only", "--resume")[0] == 0
    assert run("--resume", "SOLVER.MAX_ITER", 5)[0] == 0
    assert torch.load(tmp_path / "output" / "model_final.pth", weights_only=True)["iteration"] == 4
    # A checkpoint of another architecture or class count is refused.
    weights = ["MODEL.WEIGHTS", tmp_path / "output" / "model_final.pth"]
    code, err = run("--eval-only", *weights, "MODEL.MNET.WIDTH_MULT", 0.5)
    assert code == 2 and "model_final.pth does not fit the model" in err and "MODEL.MNET.WIDTH_MULT" in err
    shutil.copytree(tmp_path / "train" / "red", tmp_path / "train" / "pink")
    code, err = run("--eval-only", *weights, "MODEL.CLSNET.NUM_CLASSES", 4)
    assert code == 2 and "model_final.pth does not fit the model" in err and "MODEL.CLSNET.NUM_CLASSES" in err


def test_class_count_from_the_data_and_sets_named_on_the_command_line(run, tmp_path, write_folder):
    own = write_folder(tmp_path / "my images äöü" / "train", {"cat": 4, "dog": 4})
    names = ["DATASETS.TRAIN", f"('folder:{own}',)", "DATASETS.TEST", f"('folder:{own}',)"]
    assert run("MODEL.CLSNET.NUM_CLASSES", -1, *names)[0] == 0
    with open(tmp_path / "output" / "inference" / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and {row["label"] for row in rows} == {"cat", "dog"}


def test_multi_label_run(run, tmp_path):
    images = sorted((tmp_path / "train").rglob("*.png"))
    lines = [f"{path},{path.parent.name}{';extra' if i % 2 else ''}" for i, path in enumerate(images)]
    (tmp_path / "labels.csv").write_text("file_name,labels\n" + "\n".join(lines))
    sets = [x for key in ("DATASETS.TRAIN", "DATASETS.TEST") for x in (key, f"('csv:{tmp_path / 'labels.csv'}',)")]
    head = ["MODEL.CLSNET.HEAD", "sigmoid", "MODEL.CLSNET.POS_WEIGHT", "auto", "MODEL.CLSNET.NUM_CLASSES", -1]
    assert run(*head, *sets)[0] == 0
    metrics = json.loads((tmp_path / "output" / "inference" / "multilabel.json").read_text())["metrics"]
    assert 0 <= metrics["mAP"] <= 100
    saved = torch.load(tmp_path / "output" / "model_final.pth", weights_only=True)["imgcls"]
    assert saved["classes"] == ["blue", "extra", "green", "red"]
    assert "POS_WEIGHT:\n    - 2.0\n    - 1.0\n    - 2.0\n    - 2.0" in saved["cfg"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_several_gpus_on_a_machine_without_one_are_one_cpu_process(run_verb, config, tmp_path):
    code, *_ = run_verb("train", "--num-gpus", 2, "--config-file", config)
    assert code == 0
    assert (tmp_path / "output" / "log.txt").read_text().count("there is no GPU") == 1


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def folder_of_text(tmp_path):
    write(tmp_path / "text" / "cat" / "notes.txt", b"hello")
    return ["DATASETS.TRAIN", f"('folder:{tmp_path / 'text'}',)"]


def records(tmp_path, content):
    path = write(tmp_path / "records.json", json.dumps(content).encode())
    return [x for key in ("DATASETS.TRAIN", "DATASETS.TEST") for x in (key, f"('json:{path}',)")]


def record(**changes):
    return {"file_name": "0.png", "image_id": 0, "label": 0} | changes


def bad_image(tmp_path, content):
    write(tmp_path / "train" / "blue" / "0.png", content)
    return ["SOLVER.IMS_PER_BATCH", 12]


def bad_checkpoint(tmp_path, content):
    return ["MODEL.WEIGHTS", write(tmp_path / "bad.pth", content)]


MISTAKES = {
    "missing folder": (lambda t: ["DATASETS.TRAIN", f"('folder:{t / 'gone'}',)"], "error: DATASETS.TRAIN: "),
    "empty folder": (lambda t: (t / "none").mkdir() or ["DATASETS.TRAIN", f"('folder:{t / 'none'}',)"], "none: has no"),
    "no images": (folder_of_text, "no images"),
    "zero bytes": (lambda t: bad_image(t, b""), "blue/0.png: the file is empty"),
    "not an image": (lambda t: bad_image(t, b"hello"), "blue/0.png: not an image"),
    "truncated image": (lambda t: bad_image(t, (t / "test/red/0.png").read_bytes()[:99]), "blue/0.png: damaged"),
    "label out of range": (lambda t: records(t, [record(label=3)]), "NUM_CLASSES is 3"),
    "negative label": (lambda t: records(t, [record(label=-1)]), "record 1: a label must be an int from 0 on"),
    "missing label": (lambda t: records(t, [{"file_name": "0.png"}]), 'neither "label" nor "labels"'),
    "wrong kind of label": (lambda t: records(t, [{"file_name": "0.png", "labels": [0, 1, 2]}]), "MODEL.CLSNET.HEAD"),
    "duplicate ids": (lambda t: records(t, [record(), record(label=1)]), "same image_id 0"),
    "not a list": (lambda t: records(t, {"images": []}), "expected a list of records"),
    "missing column": (
        lambda t: ["DATASETS.TRAIN", f"('csv:{write(t / 'a.csv', b'path,label')}',)"],
        "needs the columns file_name and label",
    ),
    "unknown test class": (
        lambda t: shutil.copytree(t / "test/red", t / "test/pink") and [],
        "has the class pink, which the training set lacks",
    ),
    "unknown dataset": (lambda t: ["DATASETS.TRAIN", "('imagenet_trian',)"], "did you mean imagenet_train"),
    "imagenet is not there": (lambda t: ["DATASETS.TRAIN", "('imagenet_train',)"], "tools/make_imagenet_json.py"),
    "unknown feature": (lambda t: ["MODEL.MNET.OUT_FEATURES", "['mob9']"], "MODEL.MNET.OUT_FEATURES is ['mob9']"),
    "unknown activation": (lambda t: ["MODEL.MNET.ACTIVATION", "gelu"], "MODEL.MNET.ACTIVATION is 'gelu'; allowed"),
    "unknown norm": (lambda t: ["MODEL.MNET.NORM", "Norm"], "MODEL.MNET.NORM is 'Norm'; allowed"),
    "unknown head": (lambda t: ["MODEL.CLSNET.HEAD", "hinge"], "MODEL.CLSNET.HEAD is 'hinge'; allowed"),
    "unknown meta-architecture": (lambda t: ["MODEL.META_ARCHITECTURE", "ClsNets"], "did you mean ClsNet?"),
    "unknown backbone": (lambda t: ["MODEL.BACKBONE.NAME", "build_mnetv3_backbone"], "did you mean build_mnetv"),
    "width 0": (lambda t: ["MODEL.MNET.WIDTH_MULT", "0.0"], "MODEL.MNET.WIDTH_MULT is 0.0; allowed"),
    "depth -1": (lambda t: ["MODEL.MNET.DEPTH_MULT", "-1.0"], "MODEL.MNET.DEPTH_MULT is -1.0; allowed"),
    "unknown key": (lambda t: ["MODEL.MNET.WIDTH", "1.0"], "did you mean MODEL.MNET.WIDTH_MULT"),
    "evaluating nothing": (lambda t: ["--eval-only"], "evaluation without weights would score random numbers"),
    "no checkpoint": (lambda t: ["MODEL.WEIGHTS", t / "gone.pth"], "gone.pth: no such checkpoint"),
    "broken checkpoint": (lambda t: bad_checkpoint(t, b"PK\x03\x04"), "bad.pth is truncated or not a checkpoint"),
    "nothing to resume": (lambda t: ["--eval-only", "--resume"], "there is none"),
    "output is a file": (lambda t: ["OUTPUT_DIR", write(t / "file", b"") / "sub"], "cannot be written to"),
}


def assert_one_line(code, err, message):
    """Exit code 2 and one line of ours at the end; torch may have printed warnings before it."""
    assert code == 2 and "Traceback" not in err
    ours = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(ours) == 1 and ours[0] == err.splitlines()[-1] and message in ours[0], err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(run, tmp_path, mistake):
    prepare, message = MISTAKES[mistake]
    args = prepare(tmp_path)
    options = [arg for arg in args if str(arg).startswith("--")]
    code, err = run(*options, *[arg for arg in args if arg not in options])
    assert_one_line(code, err, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL:\n  CLSNET:\n    CLASSES: 3\n", "unknown config key MODEL.CLSNET.CLASSES"),
        ("OUTPUT_DIR: !!python/object/apply:os.getcwd []\n", "YAML tags are not allowed"),
        (None, "no such file"),
    ],
)
def test_a_bad_config_file_is_one_line_and_exit_code_2(run_verb, tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    code, _, err = run_verb("train", "--num-gpus", 0, "--config-file", path)
    assert_one_line(code, err, message)


def test_a_detector_on_our_backbone_trains_and_is_evaluated(run_verb, tmp_path):
    """detectron2's own RetinaNet, loaders and COCO evaluation."""
    boxes = [(5, 5, 20, 20), (10, 8, 30, 16)]
    images, annotations = [], []
    for number, (x, y, w, h) in enumerate(boxes, 1):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[y : y + h, x : x + w] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": 1, **box})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
    (tmp_path / "coco.json").write_text(json.dumps({"info": {}, **content}))
    register_coco_instances("imgcls_boxes", {}, str(tmp_path / "coco.json"), str(tmp_path))
    (tmp_path / "retinanet.yaml").write_text(
        """
MODEL:
  META_ARCHITECTURE: RetinaNet
  BACKBONE: {NAME: build_mnetv1_backbone, FREEZE_AT: 0}
  MNET: {WIDTH_MULT: 0.25, OUT_FEATURES: [mob4]}
  RETINANET: {IN_FEATURES: [mob4], NUM_CLASSES: 1, NUM_CONVS: 1}
  ANCHOR_GENERATOR: {SIZES: [[32]]}
DATASETS: {TRAIN: [imgcls_boxes], TEST: [imgcls_boxes]}
DATALOADER: {NUM_WORKERS: 0}
INPUT: {MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}
SOLVER: {IMS_PER_BATCH: 2, MAX_ITER: 2, WARMUP_ITERS: 0}
"""
    )
    args = ["--num-gpus", 0, "--config-file", tmp_path / "retinanet.yaml"]
    out = ["OUTPUT_DIR", tmp_path / "detector"]
    try:
        assert run_verb("train", *args, *out)[0] == 0
        weights = tmp_path / "detector" / "model_final.pth"
        assert "backbone.stages.mob4.0.depthwise.weight" in torch.load(weights, weights_only=True)["model"]
        assert run_verb("train", *args, "--eval-only", "MODEL.WEIGHTS", weights, *out)[0] == 0
        assert (tmp_path / "detector" / "inference" / "coco_instances_results.json").exists()
    finally:
        DatasetCatalog.remove("imgcls_boxes")
        MetadataCatalog.remove("imgcls_boxes")


def test_a_config_of_the_2020_project_loads_builds_and_trains(tmp_path, tiny_cfg, run_verb):
    """Its Base_image_cls.yaml, and its default for IN_FEATURES written out."""
    old = tmp_path / "old.yaml"
    old.write_text(
        """
MODEL:
  META_ARCHITECTURE: "ClsNet"
  BACKBONE:
    NAME: "build_mnetv1_backbone"
    FREEZE_AT: 0
  MNET:
    OUT_FEATURES: ['linear']
    WIDTH_MULT: 0.25
  CLSNET:
    ENABLE: True
    NUM_CLASSES: 1000
    IN_FEATURES: ['linear']
    INPUT_SIZE: 224
DATASETS:
  TRAIN: ("imagenet_train", )
  TEST: ("imagenet_val", )
DATALOADER:
  ASPECT_RATIO_GROUPING: False
  NUM_WORKERS: 4
SOLVER:
  IMS_PER_BATCH: 512
  BASE_LR: 0.1
  STEPS: (150000, 180000)
  MAX_ITER: 200000
INPUT:
  CROP:
    ENABLED: True
VERSION: 2
"""
    )
    cfg = load_cfg(str(old))
    check_cfg(cfg)
    assert build_complexity(cfg) == build_complexity(get_config("ImageNet/mnetv1_025.yaml"))
    sets = [x for key in ("TRAIN", "TEST") for x in (f"DATASETS.{key}", str(tiny_cfg.DATASETS[key]))]
    small = ["MODEL.CLSNET.NUM_CLASSES", 3, "MODEL.CLSNET.INPUT_SIZE", 32, "SOLVER.IMS_PER_BATCH", 4]
    once = ["SOLVER.MAX_ITER", 2, "SOLVER.WARMUP_ITERS", 0, "DATALOADER.NUM_WORKERS", 0]
    args = [*sets, *small, *once, "OUTPUT_DIR", tmp_path / "old run"]
    assert run_verb("train", "--num-gpus", 0, "--config-file", old, *args)[0] == 0
    assert (tmp_path / "old run" / "model_final.pth").exists()
