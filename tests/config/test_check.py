import re

import pytest
import torch
from detectron2.evaluation.testing import flatten_results_dict

from imgcls.config import check_best_metric, check_cfg, get_cfg
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator

WRONG = [
    ("MODEL.MNET.WIDTH_MULT", 0.0), ("MODEL.MNET.WIDTH_MULT", -1.0), ("MODEL.MNET.WIDTH_MULT", float("nan")),
    ("MODEL.MNET.DEPTH_MULT", 0.0), ("MODEL.MNET.BLOCKS", [1, 0, 1, 1, 1]), ("MODEL.MNET.STEM_STRIDE", 3),
    ("MODEL.MNET.ACTIVATION", "swish"), ("MODEL.MNET.NORM", "BatchNorm"), ("MODEL.MNET.BN_EPS", 0.0),
    ("MODEL.MNET.BN_MOMENTUM", 1.5), ("MODEL.BACKBONE.FREEZE_AT", -1), ("MODEL.CLSNET.NUM_CLASSES", 0),
    ("MODEL.CLSNET.NUM_CLASSES", -2), ("MODEL.CLSNET.INPUT_SIZE", 0), ("MODEL.CLSNET.HEAD", "hinge"),
    ("MODEL.CLSNET.HEAD_CONV_DIM", -1), ("MODEL.CLSNET.DROPOUT", 2.0), ("MODEL.CLSNET.LABEL_SMOOTHING", -0.1),
    ("MODEL.CLSNET.POS_WEIGHT", "most"), ("MODEL.CLSNET.POS_WEIGHT", [1.0, -1.0]), ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0]),
    ("INPUT.RANDOM_FLIP", "both"), ("INPUT.CROP_PCT", 1.5),
    ("INPUT.CROP_SCALE", [0.5]), ("INPUT.CROP_SCALE", [0.9, 0.1]),
    ("INPUT.CROP_RATIO", [0.0, 1.0]), ("INPUT.AUGMENTATION", "more"), ("INPUT.RANDOM_ERASING", -1.0),
    ("MODEL.META_ARCHITECTURE", "Cls"), ("MODEL.BACKBONE.NAME", "resnet"),
    ("DATALOADER.BAD_IMAGES", "ignore"), ("SOLVER.IMS_PER_BATCH", 0), ("TEST.TOPK", []), ("TEST.TOPK", [0]),
    ("TEST.THRESHOLD", 1.1), ("SOLVER.STEP_EPOCHS", (3, 2)),
    ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"), ("DATALOADER.REPEAT_THRESHOLD", 0.1),
    ("DATASETS.PROPOSAL_FILES_TRAIN", ("p.pkl",)), ("DATASETS.PROPOSAL_FILES_TEST", ("p.pkl",)),
    ("MODEL.LOAD_PROPOSALS", True), ("MODEL.MASK_ON", True), ("MODEL.KEYPOINT_ON", True),
    ("TEST.AUG.ENABLED", True), ("VIS_PERIOD", 10),
]  # fmt: skip


def with_value(key, value):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "ClsNet"
    node = cfg
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = value
    return cfg


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_messages_have_the_key_the_value_and_what_is_allowed(key, value):
    with pytest.raises(ValueError) as raised:
        check_cfg(with_value(key, value))
    message = str(raised.value)
    assert message.startswith(f"{key} is {value!r}; ") and "\n" not in message
    assert "allowed: " in message or "registered are " in message


def test_pos_weight_must_match_head_and_class_count():
    cfg = with_value("MODEL.CLSNET.POS_WEIGHT", [1.0, 2.0])
    with pytest.raises(ValueError, match=r"2 values for MODEL\.CLSNET\.NUM_CLASSES 1000"):
        check_cfg(cfg)
    cfg.MODEL.CLSNET.NUM_CLASSES = 2
    with pytest.raises(ValueError, match=r"is for MODEL\.CLSNET\.HEAD 'sigmoid'"):
        check_cfg(cfg)
    cfg.MODEL.CLSNET.HEAD = "sigmoid"
    check_cfg(cfg)


def test_label_smoothing_needs_softmax():
    cfg = with_value("MODEL.CLSNET.LABEL_SMOOTHING", 0.1)
    cfg.MODEL.CLSNET.HEAD = "sigmoid"
    with pytest.raises(ValueError, match="LABEL_SMOOTHING is for"):
        check_cfg(cfg)


def test_format_is_checked_for_a_classifier_only():
    cfg = with_value("INPUT.FORMAT", "YUV-BT.601")
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT is 'YUV-BT\.601'; allowed: one of \['BGR', 'RGB'\]"):
        check_cfg(cfg)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    check_cfg(cfg)


@pytest.mark.parametrize(
    ("keys", "resolved", "message"),
    [
        ({"WARMUP_ITERS": 20, "MAX_ITER": 20}, False, "WARMUP_ITERS is 20; allowed: 0 to below SOLVER.MAX_ITER 20"),
        ({"WARMUP_ITERS": 19, "MAX_ITER": 20}, False, ""),
        ({"WARMUP_EPOCHS": 5, "EPOCHS": 3}, False, "WARMUP_EPOCHS is 5; allowed: 0 to below SOLVER.EPOCHS 3"),
        ({"WARMUP_EPOCHS": 2, "EPOCHS": 3}, False, ""),
        # Before the lengths are resolved, a length in epochs cannot be compared with the defaults in iterations.
        ({"WARMUP_EPOCHS": 0, "MAX_ITER": 300}, False, ""),
        ({"WARMUP_ITERS": 50000, "EPOCHS": 300}, False, ""),
        (
            {"WARMUP_EPOCHS": 2, "WARMUP_ITERS": 40, "MAX_ITER": 30},
            True,
            "WARMUP_EPOCHS is 2; allowed: 0 to below SOLVER.MAX_ITER 30 (40 of 30 iterations)",
        ),
        (
            {"WARMUP_ITERS": 40, "EPOCHS": 1, "MAX_ITER": 30},
            True,
            "WARMUP_ITERS is 40; allowed: 0 to below SOLVER.EPOCHS 1 (40 of 30 iterations)",
        ),
        (
            {"WARMUP_EPOCHS": 1, "EPOCHS": 2, "WARMUP_ITERS": 1, "MAX_ITER": 1},  # of two images
            True,
            "WARMUP_EPOCHS is 1; allowed: 0 to below SOLVER.EPOCHS 2 (1 of 1 iterations)",
        ),
        ({"WARMUP_EPOCHS": 1, "EPOCHS": 2, "WARMUP_ITERS": 50, "MAX_ITER": 100}, True, ""),
    ],
)
def test_warm_up_must_end_before_the_run(keys, resolved, message):
    """detectron2's cosine schedule would give a learning rate near 0. The message has the keys that were set."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "ClsNet"
    cfg.SOLVER.update(keys)
    if not message:
        check_cfg(cfg, resolved)
        return
    with pytest.raises(ValueError, match=rf"^SOLVER\.{re.escape(message)}$"):
        check_cfg(cfg, resolved)


def test_keys_that_a_classifier_does_not_use_are_left_to_detectors():
    cfg = with_value("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    check_cfg(cfg)


def test_one_top_k_must_be_within_the_class_count():
    cfg = with_value("TEST.TOPK", [5])
    cfg.MODEL.CLSNET.NUM_CLASSES = 3
    with pytest.raises(ValueError, match=r"TEST\.TOPK is \[5\]; allowed: at least one of 1 to 3"):
        check_cfg(cfg)
    cfg.TEST.TOPK = [2, 5]
    check_cfg(cfg)


@pytest.mark.parametrize("key", ["PIXEL_MEAN", "PIXEL_STD"])
def test_mean_and_std_have_three_values(key):
    with pytest.raises(ValueError, match=rf"MODEL\.{key} is \[1\.0\]; allowed: three"):
        check_cfg(with_value(f"MODEL.{key}", [1.0]))


def best_metric(name, sets=("a",), meta="ClsNet", **changes):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.DATASETS.TEST, cfg.TEST.BEST_METRIC = meta, sets, name
    cfg.MODEL.CLSNET.HEAD = changes.get("head", "softmax")
    cfg.MODEL.CLSNET.NUM_CLASSES = changes.get("classes", 10)
    cfg.SOLVER.EMA_DECAY = changes.get("ema", 0.0)
    return cfg


TWO = ("folder:x/a", "b")
MACRO = "accuracy/balanced, accuracy/precision_macro, accuracy/recall_macro, accuracy/F1_macro"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("", {}), ("", {"sets": TWO}), ("accuracy/top1", {}), ("accuracy/top5", {}), ("anything", {"sets": ()}),
        ("accuracy/top5", {"classes": -1}), ("ema/accuracy/top1", {"ema": 0.9}), ("accuracy/top1", {"ema": 0.9}),
        ("folder:x/a/accuracy/top1", {"sets": TWO}), ("ema/b/accuracy/top5", {"sets": TWO, "ema": 0.9}),
        ("accuracy/top1", {"sets": ("a", "a")}), ("multilabel/F1_micro", {"head": "sigmoid"}),
        ("accuracy/balanced", {}), ("ema/accuracy/F1_macro", {"ema": 0.9}), ("accuracy/top5", {"classes": 6}),
        ("bbox/AP", {"meta": "RetinaNet"}), ("segm/AP50", {"meta": "GeneralizedRCNN"}),
        ("b/bbox/AP-cat", {"meta": "RetinaNet", "sets": TWO}), ("ema/bbox/AP", {"meta": "RetinaNet", "ema": 0.9}),
    ],
)  # fmt: skip
def test_metrics_of_the_evaluators_are_accepted(name, changes):
    check_best_metric(best_metric(name, **changes))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("top1", {}, f'allowed: "", or one of accuracy/top1, accuracy/top5, {MACRO}$'),
        ("accuracy/top5", {"classes": 5}, f"or one of accuracy/top1, {MACRO}$"),
        ("accuracy/loss", {}, "accuracy/F1_macro; not a loss, because the largest value is taken as the best$"),
        ("multilabel/loss", {"head": "sigmoid"}, "multilabel/exact_match; not a loss, because"),
        ("ema/accuracy/top1", {}, r"accuracy/F1_macro; averaged weights need SOLVER\.EMA_DECAY above 0$"),
        ("ema/top1", {"ema": 0.9}, "accuracy/F1_macro, or ema/ and one of these$"),
        ("accuracy/top1", {"sets": TWO}, "accuracy/F1_macro after one of folder:x/a/, b/$"),
        ("ema/accuracy/top1", {"sets": TWO, "ema": 0.9}, "after one of folder:x/a/, b/, ema/folder:x/a/, ema/b/$"),
        ("a/accuracy/top1", {}, "allowed"),
        ("multilabel/mAP", {}, "or one of accuracy"),
        ("accuracy/top1", {"head": "sigmoid"}, "or one of multilabel/mAP, .*, multilabel/exact_match$"),
        ("AP", {"meta": "RetinaNet"}, 'allowed: "", or TASK/METRIC, for example bbox/AP$'),
        ("ema/bbox/AP", {"meta": "RetinaNet"}, "averaged weights need"),
        ("bbox/AP", {"meta": "RetinaNet", "sets": TWO}, "after one of folder:x/a/, b/$"),
    ],
)
def test_other_metrics_are_refused_before_training(name, changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        check_best_metric(best_metric(name, **changes))
    assert str(raised.value).startswith(f"TEST.BEST_METRIC is {name!r}; ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_known_metrics_are_those_that_the_evaluators_give(head):
    batch = {"image": torch.zeros(1, 3, 1, 1), "image_id": [0]}
    if head == "softmax":
        evaluator = ImageNetEvaluator(list("abcdefghij"), distributed=False)
        label, output = torch.tensor([0]), {"pred_classes": torch.arange(5), "scores": torch.ones(5)}
    else:
        evaluator = MultiLabelEvaluator(list("ab"), distributed=False)
        label, output = torch.tensor([[1.0, 0.0]]), {"probs": torch.tensor([0.9, 0.1])}
    evaluator.process({**batch, "label": label}, [output])
    with pytest.raises(ValueError, match="TEST") as raised:
        check_best_metric(best_metric("none", head=head))
    given = ", ".join(flatten_results_dict(evaluator.evaluate()))
    assert str(raised.value).endswith(f"or one of {given}")
